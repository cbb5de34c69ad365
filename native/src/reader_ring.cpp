#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>
#include <vector>

#include "reader_parts.hpp"
#include "reader_schedule.hpp"
#include "stoker/reader.hpp"
#include "stoker/ring.hpp"

namespace stoker {
namespace {

// Values of newer kernels, for older headers.
constexpr unsigned kRegisterBuffers2 = 15;
constexpr unsigned kRegisterBuffersUpdate = 16;
constexpr unsigned kRegisterWorkers = 19;
constexpr unsigned kSparse = 1U << 0;
constexpr std::uint64_t kResolveCached = 0x20;

constexpr unsigned kMemorySlots = 256;
constexpr std::uint64_t kMemoryBytesMax = std::uint64_t{1} << 30;  // the kernel's limit of one registered buffer
constexpr unsigned kEntriesMin = 128;  // so that a deeper queue seldom needs another ring
constexpr unsigned kWorkersMax = 64;
// After so much was read at once from the page cache, what the device has answered meanwhile is looked at.
constexpr std::int64_t kInlineBytesMax = 1 << 20;
constexpr unsigned kInlineFilesMax = 64;
constexpr std::uint64_t kOpening = std::uint64_t{1} << 32;

// What is under way in the ring: the opening of a file, or a piece.
struct Request {
  unsigned slot = 0;  // of the file that is being opened
  int tries = 0;
  std::int64_t started = 0;
  Piece piece;
};

struct Memory {
  std::uint64_t address = 0;
  std::uint64_t size_bytes = 0;
};

// What the kernel has cached is opened and read by plain calls, which cost no more CPU time than the ring does and give
// each its own times; in the ring a read from the page cache is done while the requests prepared with it are submitted,
// and all of them seem to take as long. The ring has what would wait: opens of unknown names, reads of the device.
// Tried and left out, measured on 2,000 files of 100 KiB: chains of open, statx, read and close with direct descriptors
// (cached 1 us a file dearer, past the page cache 3 to 8 us dearer and slower), closing by the ring and registered
// files (no difference), registered memory for reads through the page cache (10 to 25 % slower).
class RingReader final : public Reader {
 public:
  int read(const ReadCall& call) override;
  bool add_memory(std::uint64_t address, std::uint64_t size_bytes) override;
  void remove_memory(std::uint64_t address) override;
  int open(unsigned queue_depth);

 private:
  int prepare(const ReadCall& call);
  int run();
  int fill();
  void reap();
  void open_file(unsigned slot);
  void read_piece(Piece* piece);
  bool read_inline(Piece* piece);
  void send_open(unsigned index);
  void send_read(unsigned index);
  void drain();
  bool fixed(const Piece& piece, io_uring_sqe* entry) const;
  bool tell_kernel(unsigned slot, const Memory& memory);
  bool within_budget() const { return inline_bytes_ < kInlineBytesMax && inline_files_ < kInlineFilesMax; }

  Ring ring_;
  pid_t process_ = -1;
  std::vector<Memory> memory_;  // by slot; size 0: free
  unsigned memory_used_ = 0;    // slots at and behind it are free
  std::vector<Request> requests_;
  std::vector<unsigned> free_;
  // Of the call that is being read:
  const ReadCall* call_ = nullptr;
  Schedule* schedule_ = nullptr;
  HowToOpen how_ = {};
  unsigned under_way_ = 0;
  std::int64_t inline_bytes_ = 0;
  unsigned inline_files_ = 0;
  // Of the file systems that were met:
  bool cached_opens_ = true;
  bool must_hand_over_ = false;  // reads that do not support O_NONBLOCK go to the kernel's worker threads
};

int RingReader::open(unsigned queue_depth) {
  const int error = ring_.open(std::bit_ceil(std::max(queue_depth, kEntriesMin)), true);
  if (error != 0) return error;
  process_ = getpid();
  // Opens of what the kernel has not cached, and file systems that cannot read without waiting, occupy a worker each.
  unsigned workers[2] = {std::min(std::max(queue_depth, 8U), kWorkersMax), 0};
  ring_.register_with(kRegisterWorkers, workers, 2);
  const io_uring_rsrc_register table = {kMemorySlots, kSparse, 0, 0, 0};
  const bool offered = ring_.register_with(kRegisterBuffers2, &table, sizeof(table)) == 0;
  if (!offered) memory_.clear(), memory_used_ = 0;
  if (offered && memory_.empty()) memory_.resize(kMemorySlots);
  for (unsigned slot = 0; slot < memory_.size(); ++slot) {
    if (memory_[slot].size_bytes > 0 && !tell_kernel(slot, memory_[slot])) memory_[slot] = {};
  }
  return 0;
}

bool RingReader::tell_kernel(unsigned slot, const Memory& memory) {
  const iovec vector = {reinterpret_cast<void*>(memory.address), memory.size_bytes};
  const std::uint64_t tag = 0;
  io_uring_rsrc_update2 update = {};
  update.offset = slot;
  update.data = reinterpret_cast<std::uint64_t>(&vector);
  update.tags = reinterpret_cast<std::uint64_t>(&tag);
  update.nr = 1;
  return ring_.register_with(kRegisterBuffersUpdate, &update, sizeof(update)) == 1;
}

bool RingReader::add_memory(std::uint64_t address, std::uint64_t size_bytes) {
  if (process_ != getpid() || size_bytes == 0 || size_bytes > kMemoryBytesMax) return false;
  for (const Memory& known : memory_) {
    if (known.size_bytes > 0 && address < known.address + known.size_bytes && known.address < address + size_bytes) {
      return known.address == address && known.size_bytes == size_bytes;
    }
  }
  for (unsigned slot = 0; slot < memory_.size(); ++slot) {
    if (memory_[slot].size_bytes > 0) continue;
    if (!tell_kernel(slot, {address, size_bytes})) return false;
    memory_[slot] = {address, size_bytes};
    memory_used_ = std::max(memory_used_, slot + 1);
    return true;
  }
  return false;
}

void RingReader::remove_memory(std::uint64_t address) {
  for (unsigned slot = 0; slot < memory_.size(); ++slot) {
    if (memory_[slot].size_bytes == 0 || memory_[slot].address != address) continue;
    if (process_ == getpid()) tell_kernel(slot, {});
    memory_[slot] = {};
  }
  while (memory_used_ > 0 && memory_[memory_used_ - 1].size_bytes == 0) --memory_used_;
}

int RingReader::read(const ReadCall& call) {
  try {
    const int error = prepare(call);
    if (error != 0) return error;
    Schedule schedule(call);
    call_ = &call;
    schedule_ = &schedule;
    const int failed = run();
    schedule_ = nullptr;
    call_ = nullptr;
    return failed;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;  // of what is taken before the first request
  }
}

int RingReader::prepare(const ReadCall& call) {
  const unsigned depth = std::clamp(call.queue_depth, 1U, kQueueDepthMax);
  if (!ring_.is_open() || process_ != getpid() || ring_.entries() < depth) {
    const int error = open(depth);
    if (error != 0) return error;
  }
  requests_.resize(depth);
  free_.clear();
  free_.reserve(depth);
  for (unsigned index = depth; index-- > 0;) free_.push_back(index);
  how_ = how_to_open(call.flags, 0);
  under_way_ = 0;
  must_hand_over_ = false;
  cached_opens_ = true;
  return 0;
}

int RingReader::run() {
  int error = 0;
  while (error == 0) {
    inline_bytes_ = 0;
    inline_files_ = 0;
    error = fill();
    if (under_way_ == 0 && schedule_->finished()) return error;
    // Without requests under way only the budget can have ended the filling: it goes on at once.
    if (error == 0 && under_way_ > 0) error = ring_.submit(within_budget() ? 1 : 0);
    if (error == 0) reap();
  }
  drain();
  schedule_->abandon();
  ring_.close();
  return error;
}

// Until the depth is reached, nothing is left to hand out, or the budget of work done at once is spent.
int RingReader::fill() {
  Piece piece;
  unsigned slot = 0;
  while (!free_.empty() && within_budget()) {
    switch (schedule_->next(&piece, &slot)) {
      case Task::none:
        return 0;
      case Task::open:
        open_file(slot);
        break;
      case Task::read:
        read_piece(&piece);
        break;
      case Task::close:
        ::close(schedule_->file(slot).descriptor);
        schedule_->closed(slot);
        break;
    }
    // The device works while the next bytes are copied from the page cache.
    if (ring_.unsubmitted() >= 8 || (inline_bytes_ > 0 && ring_.unsubmitted() > 0)) {
      const int error = ring_.submit(0);
      if (error != 0) return error;
    }
  }
  return 0;
}

void RingReader::open_file(unsigned slot) {
  const std::int64_t started = now_ns();
  const char* key = schedule_->key(slot);
  int answer = key == nullptr ? -EINVAL : -EAGAIN;
  if (key != nullptr && cached_opens_) {
    // The kernel knows most names already: no need for the ring, and the times are exact.
    answer = open_beneath(call_->folder, key, call_->flags, kResolveCached);
    cached_opens_ = answer != -EINVAL || (call_->flags & O_DIRECT) != 0;
    if (answer == -EINVAL) answer = -EAGAIN;  // before kernel 5.12, or the file's own refusal: asked again below
  }
  if (answer != -EAGAIN) {
    ++inline_files_;
    const Opened opened = look_at(answer);
    schedule_->opened(slot, opened, started, now_ns());
    return;
  }
  const unsigned index = free_.back();
  free_.pop_back();
  requests_[index].slot = slot;
  requests_[index].started = started;
  requests_[index].tries = 0;
  ++under_way_;
  send_open(index);
}

void RingReader::send_open(unsigned index) {
  io_uring_sqe* entry = ring_.next();
  entry->opcode = IORING_OP_OPENAT2;
  entry->fd = call_->folder;
  entry->addr = reinterpret_cast<std::uint64_t>(schedule_->key(requests_[index].slot));
  entry->len = sizeof(how_);
  entry->off = reinterpret_cast<std::uint64_t>(&how_);
  entry->user_data = kOpening | index;
}

void RingReader::read_piece(Piece* piece) {
  if (piece->first) {
    const int error = begin_range(*call_, *piece);
    if (error != 0) {
      piece->stop(error);
      schedule_->read(*piece, now_ns());
      return;
    }
  }
  if (!piece->seekable) {
    read_blocking(piece);
    schedule_->read(*piece, now_ns());
    return;
  }
  OpenFile& file = schedule_->file(piece->file);
  if (!piece->direct && !file.advised && file.partly_read()) {
    // What nobody asked for is not to be read ahead; a read with RWF_NOWAIT that finds nothing would do so, too.
    posix_fadvise(piece->descriptor, 0, 0, POSIX_FADV_RANDOM);
    file.advised = true;
  }
  if (!piece->direct && read_inline(piece)) {
    schedule_->read(*piece, now_ns());
    return;
  }
  const unsigned index = free_.back();
  free_.pop_back();
  requests_[index].piece = *piece;
  ++under_way_;
  send_read(index);
}

// Reads what the page cache holds; true when nothing is left to ask, else the ring reads the rest.
bool RingReader::read_inline(Piece* piece) {
  std::int64_t cached = call_->range_done(piece->range)[kDoneCached];
  if (cached >= 0 && cached < piece->wanted) return false;
  const iovec vector = {piece->target(), static_cast<std::size_t>(piece->left())};
  const ssize_t answer = preadv2(piece->descriptor, &vector, 1, piece->position(), RWF_NOWAIT);
  if (answer >= 0) {
    inline_bytes_ += answer;
    return !go_on(piece, answer);
  }
  if (errno != EOPNOTSUPP) return false;
  // A file system that cannot tell: what is cached will hardly make us wait, and spares a worker thread.
  int error = 0;
  if (cached < 0) cached = cached_bytes(piece->descriptor, piece->offset, piece->wanted, &error);
  if (cached < piece->wanted) return false;
  inline_bytes_ += piece->left();
  read_blocking(piece);
  return true;
}

bool RingReader::fixed(const Piece& piece, io_uring_sqe* entry) const {
  const std::uint64_t begin = piece.address + static_cast<std::uint64_t>(piece.at);
  const std::uint64_t end = piece.address + static_cast<std::uint64_t>(piece.until);
  for (unsigned slot = 0; slot < memory_used_; ++slot) {
    const Memory& known = memory_[slot];
    if (begin < known.address || end > known.address + known.size_bytes) continue;
    entry->opcode = IORING_OP_READ_FIXED;
    entry->buf_index = static_cast<std::uint16_t>(slot);
    return true;
  }
  return false;
}

void RingReader::send_read(unsigned index) {
  const Piece& piece = requests_[index].piece;
  io_uring_sqe* entry = ring_.next();
  entry->opcode = IORING_OP_READ;
  // Registered memory spares the device's reads the pinning of pages; copies from the page cache it slows down.
  if (piece.direct) fixed(piece, entry);
  entry->fd = piece.descriptor;
  entry->addr = reinterpret_cast<std::uint64_t>(piece.target());
  entry->len = static_cast<std::uint32_t>(piece.left());
  entry->off = static_cast<std::uint64_t>(piece.position());
  entry->user_data = index;
  if (must_hand_over_) entry->flags |= IOSQE_ASYNC;
}

void RingReader::reap() {
  io_uring_cqe answer;
  while (ring_.take(&answer)) {
    const auto index = static_cast<unsigned>(answer.user_data);
    Request& request = requests_[index];
    if (answer.user_data & kOpening) {
      if ((answer.res == -EAGAIN || answer.res == -EINTR) && request.tries++ < kTriesMax) {
        send_open(index);
        continue;
      }
      const Opened opened = look_at(answer.res);
      schedule_->opened(request.slot, opened, request.started, now_ns());
    } else {
      // The answer of file systems that always wait, for descriptors opened with O_NONBLOCK.
      if (answer.res == -EAGAIN) must_hand_over_ = true;
      if (go_on(&request.piece, answer.res)) {
        send_read(index);
        continue;
      }
      schedule_->read(request.piece, now_ns());
    }
    free_.push_back(index);
    --under_way_;
  }
}

// After a failure of the ring: nothing may still be written to the caller's memory when the call returns.
void RingReader::drain() {
  io_uring_cqe answer;
  while (under_way_ > ring_.unsubmitted()) {
    while (ring_.take(&answer)) {
      if ((answer.user_data & kOpening) && answer.res >= 0) ::close(answer.res);
      --under_way_;
    }
    const timespec pause = {0, 1'000'000};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace

std::unique_ptr<Reader> open_ring_reader(int* error) {
  auto reader = std::unique_ptr<RingReader>(new (std::nothrow) RingReader);
  try {
    *error = reader == nullptr ? -ENOMEM : reader->open(1);
  } catch (const std::bad_alloc&) {
    *error = -ENOMEM;
  }
  if (*error != 0) return nullptr;
  return reader;
}

}  // namespace stoker
