#include "stoker/ring.hpp"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace stoker {
namespace {

// Values of newer kernels, for older headers.
constexpr unsigned kCoopTaskrun = 1U << 8;
constexpr unsigned kSingleIssuer = 1U << 12;
constexpr unsigned kDeferTaskrun = 1U << 13;

unsigned load_acquire(unsigned* word) { return std::atomic_ref<unsigned>(*word).load(std::memory_order_acquire); }
void store_release(unsigned* word, unsigned value) {
  std::atomic_ref<unsigned>(*word).store(value, std::memory_order_release);
}

int setup(unsigned entries, io_uring_params* parameters) {
  const long ring = syscall(SYS_io_uring_setup, entries, parameters);
  return ring < 0 ? -errno : static_cast<int>(ring);
}

}  // namespace

Ring::~Ring() { close(); }

int Ring::open(unsigned entries, bool any_thread) {
  close();
  io_uring_params parameters;
  // Newer kernels run completions only when asked for; older ones refuse the flags they do not know.
  const unsigned best = any_thread ? kCoopTaskrun : kSingleIssuer | kDeferTaskrun;
  const unsigned tries[] = {IORING_SETUP_CLAMP | best, IORING_SETUP_CLAMP};
  int ring = -EINVAL;
  for (const unsigned flags : tries) {
    std::memset(&parameters, 0, sizeof(parameters));
    parameters.flags = flags;
    ring = setup(entries, &parameters);
    deferred_ = ring >= 0 && (flags & kDeferTaskrun) != 0;
    if (ring != -EINVAL) break;
  }
  if (ring < 0) return ring;
  ring_ = ring;
  int error = (parameters.features & IORING_FEAT_SINGLE_MMAP) && (parameters.features & IORING_FEAT_NODROP)
                  ? map(parameters)
                  : -ENOSYS;
  if (error == 0) error = probe();
  if (error != 0) close();
  return error;
}

int Ring::map(const io_uring_params& parameters) {
  entries_ = parameters.sq_entries;
  rings_bytes_ = std::max(parameters.sq_off.array + parameters.sq_entries * sizeof(unsigned),
                          parameters.cq_off.cqes + parameters.cq_entries * sizeof(io_uring_cqe));
  void* rings = mmap(nullptr, rings_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_,
                     IORING_OFF_SQ_RING);
  if (rings == MAP_FAILED) return -errno;
  rings_ = rings;
  submissions_bytes_ = parameters.sq_entries * sizeof(io_uring_sqe);
  void* submissions = mmap(nullptr, submissions_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_,
                           IORING_OFF_SQES);
  if (submissions == MAP_FAILED) return -errno;
  submissions_ = static_cast<io_uring_sqe*>(submissions);
  char* base = static_cast<char*>(rings_);
  const auto word = [base](unsigned offset) { return reinterpret_cast<unsigned*>(base + offset); };
  sq_head_ = word(parameters.sq_off.head);
  sq_tail_ = word(parameters.sq_off.tail);
  sq_array_ = word(parameters.sq_off.array);
  sq_mask_ = *word(parameters.sq_off.ring_mask);
  sq_next_ = *sq_tail_;
  cq_head_ = word(parameters.cq_off.head);
  cq_tail_ = word(parameters.cq_off.tail);
  cq_mask_ = *word(parameters.cq_off.ring_mask);
  completions_ = reinterpret_cast<io_uring_cqe*>(base + parameters.cq_off.cqes);
  for (unsigned index = 0; index < entries_; ++index) sq_array_[index] = index;
  return 0;
}

int Ring::probe() {
  alignas(io_uring_probe) char space[sizeof(io_uring_probe) + 256 * sizeof(io_uring_probe_op)] = {};
  auto* answer = reinterpret_cast<io_uring_probe*>(space);
  const int error = register_with(IORING_REGISTER_PROBE, answer, 256);
  if (error < 0) return error;
  const auto* operations = reinterpret_cast<const io_uring_probe_op*>(space + sizeof(io_uring_probe));
  for (unsigned index = 0; index < answer->ops_len; ++index) {
    if (operations[index].flags & IO_URING_OP_SUPPORTED) offered_[operations[index].op] = true;
  }
  const unsigned needed[] = {IORING_OP_READ,  IORING_OP_WRITE, IORING_OP_FSYNC,
                             IORING_OP_CLOSE, IORING_OP_OPENAT2, IORING_OP_RENAMEAT};
  for (const unsigned operation : needed) {
    if (!offers(operation)) return -ENOSYS;
  }
  return 0;
}

void Ring::close() {
  if (submissions_ != nullptr) munmap(submissions_, submissions_bytes_);
  if (rings_ != nullptr) munmap(rings_, rings_bytes_);
  if (ring_ >= 0) ::close(ring_);
  submissions_ = nullptr;
  rings_ = nullptr;
  ring_ = -1;
  entries_ = 0;
  std::fill(std::begin(offered_), std::end(offered_), false);
}

io_uring_sqe* Ring::next() {
  if (sq_next_ - load_acquire(sq_head_) >= entries_) return nullptr;
  io_uring_sqe* entry = &submissions_[sq_next_ & sq_mask_];
  std::memset(entry, 0, sizeof(*entry));
  ++sq_next_;
  return entry;
}

int Ring::submit(unsigned wait) {
  store_release(sq_tail_, sq_next_);
  while (true) {
    const unsigned prepared = sq_next_ - load_acquire(sq_head_);
    const unsigned ready = load_acquire(cq_tail_) - *cq_head_;
    if (prepared == 0 && ready >= wait) return 0;
    // With deferred work, completions appear only when they are asked for.
    const unsigned missing = wait > ready ? wait - ready : 0;
    const unsigned flags = missing > 0 || deferred_ ? IORING_ENTER_GETEVENTS : 0;
    const long done = syscall(SYS_io_uring_enter, ring_, prepared, missing, flags, nullptr, 0);
    if (done < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) return -errno;
    if (done < 0 && (errno == EAGAIN || errno == EBUSY) && ready > 0) return 0;  // the caller must take some first
  }
}

unsigned Ring::unsubmitted() const { return sq_next_ - load_acquire(sq_head_); }

bool Ring::take(io_uring_cqe* completion) {
  const unsigned head = *cq_head_;
  if (head == load_acquire(cq_tail_)) return false;
  std::memcpy(completion, &completions_[head & cq_mask_], sizeof(*completion));
  store_release(cq_head_, head + 1);
  return true;
}

int Ring::register_with(unsigned operation, const void* argument, unsigned count) {
  const long done = syscall(SYS_io_uring_register, ring_, operation, argument, count);
  return done < 0 ? -errno : static_cast<int>(done);
}

}  // namespace stoker
