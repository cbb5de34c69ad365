// io_uring by its three system calls, so that nothing but the kernel's header is needed to build.
// Sources: io_uring_setup(2), io_uring_enter(2), io_uring_register(2), linux/io_uring.h.
#pragma once

#include <linux/io_uring.h>

#include <cstdint>

namespace stoker {

// One ring, for one thread at a time. No method throws; errors are negative errno values.
class Ring {
 public:
  Ring() = default;
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Opens a ring of at least `entries` submissions. Returns 0, or -errno when the kernel denies it or is too old:
  // reading, writing, opening (openat2), closing, fsync and rename must all be on offer.
  // With `any_thread` other threads than the opening one may use it, too, one at a time.
  int open(unsigned entries, bool any_thread = false);
  void close();
  bool is_open() const { return ring_ >= 0; }
  unsigned entries() const { return entries_; }
  bool offers(unsigned operation) const { return operation < sizeof(offered_) && offered_[operation]; }

  // The next free submission entry, zeroed, or nullptr when all are taken: submit, then ask again.
  io_uring_sqe* next();
  // Submits what was prepared and waits until at least `wait` completions are there. Interrupted waits go on.
  // Returns 0 or -errno.
  int submit(unsigned wait);
  // How many prepared entries the kernel has not taken yet.
  unsigned unsubmitted() const;
  // Copies a completion out and consumes it; false when there is none.
  bool take(io_uring_cqe* completion);

  // io_uring_register(2). Returns its result or -errno.
  int register_with(unsigned operation, const void* argument, unsigned count);

 private:
  int map(const io_uring_params& parameters);
  int probe();

  int ring_ = -1;
  unsigned entries_ = 0;
  bool deferred_ = false;
  void* rings_ = nullptr;
  unsigned long rings_bytes_ = 0;
  io_uring_sqe* submissions_ = nullptr;
  unsigned long submissions_bytes_ = 0;
  unsigned* sq_head_ = nullptr;
  unsigned* sq_tail_ = nullptr;
  unsigned* sq_array_ = nullptr;
  unsigned sq_mask_ = 0;
  unsigned sq_next_ = 0;
  unsigned* cq_head_ = nullptr;
  unsigned* cq_tail_ = nullptr;
  unsigned cq_mask_ = 0;
  io_uring_cqe* completions_ = nullptr;
  bool offered_[256] = {};
};

}  // namespace stoker
