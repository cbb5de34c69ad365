#include "stoker/writer.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <exception>
#include <limits>
#include <utility>

namespace stoker {
namespace {

// Files open at once in a call: enough for one commit of the journal to serve many (128 measured no better), and
// sixteen calls at once stay below the usual `ulimit -n` of 1024.
constexpr std::size_t kGroupFiles = 32;
constexpr mode_t kMode = 0666;
constexpr std::size_t kDoneColumns = 3;
constexpr std::int64_t kNanoseconds = 1'000'000'000;
// Syncs under way at once: beyond this the device does no better and the processor does worse.
constexpr unsigned kSyncsMax = 8;

bool plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

// Past the page cache, a write that makes a file longer goes alone. In blocks that are there already many go at once,
// and a full disk is noticed before anything is moved. Where this is not on offer, the writes do as they can.
int reserve(int file, std::int64_t offset, std::int64_t length) {
  if (length <= 0 || fallocate(file, 0, offset, length) == 0) return 0;
  return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? errno : 0;
}

WriteAction sync_action(Fsync fsync) { return fsync == Fsync::full ? WriteAction::sync_all : WriteAction::sync_data; }

int rename_absent(int folder, const char* source, const char* target) {
  if (syscall(SYS_renameat2, folder, source, folder, target, RENAME_NOREPLACE) == 0) return 0;
  // Old kernels and network file systems do not know the flag; a link refuses to replace, too.
  if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP) return errno;
  if (linkat(folder, source, folder, target, 0) != 0) return errno;
  unlinkat(folder, source, 0);  // a second name of ours that stays does no harm, the file is there
  return 0;
}

int publish(int folder, const std::string& temporary, const std::string& name, bool if_absent) {
  if (if_absent) return rename_absent(folder, temporary.c_str(), name.c_str());
  return renameat(folder, temporary.c_str(), folder, name.c_str()) == 0 ? 0 : errno;
}

int reserve_pieces(int file, const Pieces& pieces) {
  std::int64_t start = std::numeric_limits<std::int64_t>::max();
  std::int64_t end = 0;
  for (std::size_t row = 0; row < pieces.count; ++row) {
    start = std::min(start, pieces.offset(row));
    end = std::max(end, pieces.offset(row) + pieces.length(row));
  }
  return reserve(file, start, end - start);
}

int open_temporary(const FileBatch& batch, std::size_t number, int* file) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const std::string& temporary = batch.temporaries[number];
  if (!plain_name(batch.names[number]) || !plain_name(temporary)) return EINVAL;
  *file = openat(batch.folder, temporary.c_str(), kFlags | batch.flags, kMode);
  return *file < 0 ? errno : 0;
}

// Makes the names durable: without it the files are there, but nobody may rely on that after a loss of power.
void sync_folder(const FileBatch& batch) {
  const auto good = [&](std::size_t index) { return batch.done[index * kDoneColumns] == 0; };
  bool any = false;
  for (std::size_t index = 0; index < batch.names.size(); ++index) any |= good(index);
  int status = 0;
  WriteRequest sync{.action = WriteAction::sync_all, .file = batch.folder, .status = &status};
  if (any) write_in_turn({&sync, 1});
  for (std::size_t index = 0; index < batch.names.size() && status != 0; ++index) {
    if (good(index)) batch.done[index * kDoneColumns] = status;
  }
}

}  // namespace

bool pieces_fit(const Pieces& pieces, std::size_t files) {
  std::int64_t before = 0;
  for (std::size_t row = 0; row < pieces.count; ++row) {
    const std::int64_t file = pieces.file(row);
    if (file < before || file >= static_cast<std::int64_t>(files)) return false;
    if (pieces.offset(row) < 0 || pieces.length(row) < 0) return false;
    if (pieces.length(row) > std::numeric_limits<std::int64_t>::max() - pieces.offset(row)) return false;
    if (pieces.address(row) == nullptr && pieces.length(row) > 0) return false;
    before = file;
  }
  return true;
}

// One file of a group on its way.
struct WriteEngine::Open {
  int file = -1;
  int status = 0;
  std::int64_t end = 0;
};

int WriteEngine::ring_error() {
  Ring ring;
  return -ring.open(1);
}

int WriteEngine::ready_ring() {
  const unsigned entries = std::min(queue_depth, kDepthMax);
  return ring_.is_open() && ring_.entries() >= entries ? 0 : -ring_.open(entries);
}

int WriteEngine::run_by_ring(std::span<WriteRequest> requests, unsigned depth) {
  int error = ready_ring();
  if (error == 0) error = write_by_ring(requests, depth, ring_, again_);
  if (error == EEXIST) {
    // The ring belongs to the thread that opened it, and the engine has wandered: nothing was taken from us yet.
    // Comparing the threads' names beforehand would not do, they are used again.
    ring_.close();
    error = ready_ring();
    if (error == 0) error = write_by_ring(requests, depth, ring_, again_);
  }
  if (error != 0) ring_.close();
  return error;
}

WriteLane WriteEngine::lane_for_writes(bool direct, bool several) const {
  // Writes into the page cache are copies, and the kernel lets one at a time into a file: neither 100 KiB files nor a
  // file of 140 MiB gained anything from a ring, in time or in CPU.
  if (!direct && buffered_in_turn_) return WriteLane::in_turn;
  if (kind_ == WriteKind::ring) return WriteLane::ring;
  return direct || several ? WriteLane::threads : WriteLane::in_turn;
}

WriteLane WriteEngine::lane_for_syncs(std::size_t count) const {
  if (count < 2) return WriteLane::in_turn;
  return kind_ == WriteKind::ring ? WriteLane::ring : WriteLane::threads;
}

int WriteEngine::run(WriteLane lane, std::span<WriteRequest> requests, unsigned depth_max) {
  const unsigned depth = std::min(queue_depth, depth_max);
  if (requests.empty()) return 0;
  if (lane == WriteLane::in_turn) {
    write_in_turn(requests);
  } else if (lane == WriteLane::threads) {
    write_by_threads(requests, depth);
  } else {
    return run_by_ring(requests, depth);
  }
  return 0;
}

void WriteEngine::add_writes(const Pieces& pieces, std::size_t first, std::size_t last, WriteRequest like) {
  for (std::size_t row = first; row < last; ++row) {
    like.offset = pieces.offset(row);
    like.from = pieces.address(row);
    for (std::int64_t left = pieces.length(row); left > 0; left -= like.length) {
      like.length = std::min(left, request_bytes);
      requests_.push_back(like);
      like.offset += like.length;
      like.from += like.length;
    }
  }
}

void WriteEngine::wait() {
  if (behind_.joinable()) behind_.join();
}

void WriteEngine::close() {
  wait();
  ring_.close();
}

int WriteEngine::write_open(int file, const Pieces& pieces, Fsync fsync) {
  wait();
  return write_pieces(file, pieces, fsync);
}

void WriteEngine::begin_open(int file, const Pieces& pieces) {
  wait();
  behind_rows_.assign(pieces.rows, pieces.rows + pieces.count * pieces.columns);
  const auto work = [this, file, count = pieces.count, columns = pieces.columns] {
    int status = ENOMEM;
    try {
      status = write_pieces(file, {behind_rows_.data(), count, columns}, Fsync::none);
    } catch (const std::exception&) {
      // for want of memory: nothing was begun
    }
    if (behind_status_ == 0) behind_status_ = status;
  };
  try {
    behind_ = std::thread(work);
  } catch (const std::exception&) {
    work();  // no thread is to be had: then here
  }
}

int WriteEngine::finish_open() {
  wait();
  return std::exchange(behind_status_, 0);
}

int WriteEngine::write_pieces(int file, const Pieces& pieces, Fsync fsync) {
  const int flags = fcntl(file, F_GETFL);
  if (flags < 0) return errno;
  int status = 0;
  const WriteRequest like{.direct = (flags & O_DIRECT) != 0, .file = file, .status = &status};
  requests_.clear();
  again_.resize(std::min(queue_depth, kDepthMax));
  add_writes(pieces, 0, pieces.count, like);
  const std::size_t count = requests_.size();
  if (like.direct && count > 1) status = reserve_pieces(file, pieces);
  const int error = run(count > 1 ? lane_for_writes(like.direct, false) : WriteLane::in_turn, requests_);
  if (error != 0 || status != 0) return error != 0 ? error : status;
  if (fsync == Fsync::start && !like.direct) sync_file_range(file, 0, 0, SYNC_FILE_RANGE_WRITE);
  if (fsync == Fsync::none || fsync == Fsync::start) return 0;
  WriteRequest sync = like;
  sync.action = sync_action(fsync);
  write_in_turn({&sync, 1});  // alone it gains nothing from a ring
  return status;
}

int WriteEngine::write_files(const FileBatch& batch) {
  wait();
  const std::size_t count = batch.names.size();
  std::size_t requests = std::min(count, kGroupFiles);
  for (std::size_t row = 0; row < batch.pieces.count; ++row) {
    requests += static_cast<std::size_t>(batch.pieces.length(row) / request_bytes) + 1;
  }
  requests_.reserve(requests);  // nothing is allocated once a file is open
  again_.resize(std::min(queue_depth, kDepthMax));
  std::array<Open, kGroupFiles> group;
  int engine_error = 0;
  std::size_t row = 0;
  for (std::size_t first = 0; first < count; first += kGroupFiles) {
    const std::span<Open> files(group.data(), std::min(kGroupFiles, count - first));
    open_group(batch, files, first, &row);
    int error = run(requests_.size() > 1 ? lane_for_writes(batch.direct(), true) : WriteLane::in_turn, requests_);
    trim_group(batch, files, first);
    if (error == 0) error = sync_group(batch, files);
    finish_group(batch, files, first, error);
    if (error != 0) engine_error = error;
  }
  if (batch.fsync == Fsync::full) sync_folder(batch);
  return engine_error;
}

// Makes the temporary files of a group, and the requests that fill them.
void WriteEngine::open_group(const FileBatch& batch, std::span<Open> files, std::size_t first, std::size_t* row) {
  requests_.clear();
  for (std::size_t index = 0; index < files.size(); ++index) {
    const std::size_t number = first + index;
    const std::size_t first_row = *row;
    Open& open = files[index];
    open = Open{};
    while (*row < batch.pieces.count && batch.pieces.file(*row) == static_cast<std::int64_t>(number)) {
      open.end = std::max(open.end, batch.pieces.offset(*row) + batch.pieces.length(*row));
      ++*row;
    }
    open.status = open_temporary(batch, number, &open.file);
    if (open.status == 0 && batch.direct()) open.status = reserve(open.file, 0, open.end);
    if (open.status != 0) continue;
    add_writes(batch.pieces, first_row, *row, {.direct = batch.direct(), .file = open.file, .status = &open.status});
  }
}

// What was written in whole blocks is cut to its true size.
void WriteEngine::trim_group(const FileBatch& batch, std::span<Open> files, std::size_t first) {
  for (std::size_t index = 0; index < files.size(); ++index) {
    Open& open = files[index];
    const std::int64_t size = batch.sizes[first + index];
    if (open.status == 0 && open.end != size && ftruncate(open.file, size) != 0) open.status = errno;
  }
}

int WriteEngine::sync_group(const FileBatch& batch, std::span<Open> files) {
  if (batch.fsync == Fsync::none) return 0;
  requests_.clear();
  for (Open& open : files) {
    if (open.status != 0) continue;
    // All files' blocks are on their way before the first sync asks for a commit, so that one commit serves many.
    if (!batch.direct()) sync_file_range(open.file, 0, 0, SYNC_FILE_RANGE_WRITE);
    requests_.push_back({.action = sync_action(batch.fsync), .file = open.file, .status = &open.status});
  }
  return run(lane_for_syncs(requests_.size()), requests_, kSyncsMax);
}

// Publishes what is good, removes what is not, and tells what came of each.
void WriteEngine::finish_group(const FileBatch& batch, std::span<Open> files, std::size_t first, int error) {
  for (std::size_t index = 0; index < files.size(); ++index) {
    const std::string& temporary = batch.temporaries[first + index];
    Open& open = files[index];
    struct stat facts = {};
    if (open.status == 0) open.status = error;
    if (open.file >= 0) {
      if (open.status == 0 && fstat(open.file, &facts) != 0) open.status = errno;
      // Network file systems tell here what they could not write.
      if (::close(open.file) != 0 && errno != EINTR && open.status == 0) open.status = errno;
      if (open.status == 0) {
        open.status = publish(batch.folder, temporary, batch.names[first + index], batch.if_absent);
      }
      if (open.status != 0) unlinkat(batch.folder, temporary.c_str(), 0);
    }
    std::int64_t* done = batch.done + (first + index) * kDoneColumns;
    done[0] = open.status;
    done[1] = facts.st_size;
    done[2] = facts.st_mtim.tv_sec * kNanoseconds + facts.st_mtim.tv_nsec;
  }
}

}  // namespace stoker
