#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "reader_parts.hpp"
#include "reader_schedule.hpp"
#include "stoker/reader.hpp"

namespace stoker {
namespace {

constexpr unsigned kThreadsMax = 64;
constexpr std::size_t kTogetherMax = 16;
constexpr std::int64_t kSmallBytes = 64 << 10;

// Threads that serve one call after the other; the thread that asks is one of them.
class Pool {
 public:
  Pool() { helpers_.reserve(kThreadsMax); }
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  void read(const ReadCall& call, Schedule* schedule);

 private:
  using Lock = std::unique_lock<std::mutex>;
  void grow(std::size_t helpers);
  void help();
  bool serve(Lock* lock);
  void open_file(Lock* lock, unsigned slot);
  void read_pieces(Lock* lock, const Piece& first);
  bool may_serve() const { return schedule_ != nullptr && serving_ < limit_; }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::thread> helpers_;
  const ReadCall* call_ = nullptr;
  Schedule* schedule_ = nullptr;
  std::size_t limit_ = 0;
  std::size_t serving_ = 0;
  std::size_t idle_ = 0;
  bool stopped_ = false;
};

Pool::~Pool() {
  {
    const Lock lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void Pool::grow(std::size_t helpers) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  // Signals are for the threads of whoever calls.
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    while (helpers_.size() < helpers) helpers_.emplace_back([this] { help(); });
  } catch (const std::exception&) {
    // No more threads are to be had: those that run do the work, the caller at least.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pool::read(const ReadCall& call, Schedule* schedule) {
  const std::size_t limit = std::clamp(call.queue_depth, 1U, kThreadsMax);
  std::size_t useful = call.keys == nullptr ? 0 : call.files;
  for (std::size_t index = 0; index < call.range_count && useful < limit; ++index) {
    useful += static_cast<std::size_t>(call.range(index)[kRangeRoom] / call.request_bytes + 1);
  }
  grow(std::clamp(useful, std::size_t{1}, limit) - 1);
  Lock lock(mutex_);
  call_ = &call;
  schedule_ = schedule;
  limit_ = limit;
  while (true) {
    while (may_serve() && serve(&lock)) continue;
    if (schedule->finished()) break;
    ++idle_;
    changed_.wait(lock);
    --idle_;
  }
  schedule_ = nullptr;
  call_ = nullptr;
}

void Pool::help() {
  Lock lock(mutex_);
  while (!stopped_) {
    while (may_serve() && serve(&lock)) continue;
    if (stopped_) break;
    ++idle_;
    changed_.wait(lock);
    --idle_;
  }
}

// Does one thing; false when nothing can be begun now. Whoever makes new things possible goes on to do them, and each
// who finds something to do wakes another: so no more threads run than there is work for.
bool Pool::serve(Lock* lock) {
  Piece piece;
  unsigned slot = 0;
  const Task task = schedule_->next(&piece, &slot);
  if (task == Task::none) {
    if (schedule_->finished()) changed_.notify_all();
    return false;
  }
  ++serving_;
  if (idle_ > 0 && serving_ < limit_) changed_.notify_one();
  if (task == Task::open) {
    open_file(lock, slot);
  } else if (task == Task::read) {
    read_pieces(lock, piece);
  } else {
    const int descriptor = schedule_->file(slot).descriptor;
    lock->unlock();
    ::close(descriptor);
    lock->lock();
    schedule_->closed(slot);
  }
  --serving_;
  return true;
}

void Pool::open_file(Lock* lock, unsigned slot) {
  const char* key = schedule_->key(slot);
  OpenFile& file = schedule_->file(slot);
  lock->unlock();
  const std::int64_t started = now_ns();
  const Opened opened = look_at(key == nullptr ? -EINVAL : open_beneath(call_->folder, key, call_->flags, 0));
  file.file_bytes = opened.file_bytes;
  if (opened.descriptor >= 0 && !file.direct && file.partly_read()) {
    // What nobody asked for is not to be read ahead.
    posix_fadvise(opened.descriptor, 0, 0, POSIX_FADV_RANDOM);
  }
  const std::int64_t now = now_ns();
  lock->lock();
  schedule_->opened(slot, opened, started, now);
}

// Reads a piece; of many small ones some together, or the lock would cost more than they do.
void Pool::read_pieces(Lock* lock, const Piece& first) {
  Piece pieces[kTogetherMax];
  int errors[kTogetherMax] = {};
  std::int64_t ended[kTogetherMax];
  const std::size_t together = std::clamp(schedule_->ranges_left() / (2 * limit_), std::size_t{1}, kTogetherMax);
  std::size_t count = 0;
  pieces[count++] = first;
  while (count < together && pieces[count - 1].left() <= kSmallBytes && schedule_->next_piece(&pieces[count])) ++count;
  for (std::size_t index = 0; index < count; ++index) {
    // Others may read on in this range at once: the page cache is asked before they can.
    if (pieces[index].first && !pieces[index].whole) errors[index] = begin_range(*call_, pieces[index]);
  }
  lock->unlock();
  for (std::size_t index = 0; index < count; ++index) {
    Piece& piece = pieces[index];
    if (piece.first && piece.whole) errors[index] = begin_range(*call_, piece);
    if (errors[index] != 0) {
      piece.stop(errors[index]);
    } else {
      read_blocking(&piece);
    }
    ended[index] = now_ns();
  }
  lock->lock();
  for (std::size_t index = 0; index < count; ++index) schedule_->read(pieces[index], ended[index]);
}

class ThreadReader final : public Reader {
 public:
  ~ThreadReader() override { forget_parent(); }
  int read(const ReadCall& call) override;
  bool add_memory(std::uint64_t, std::uint64_t) override { return false; }
  void remove_memory(std::uint64_t) override {}

 private:
  // In a forked child the threads do not exist and the lock may be held by one of them: all is left as it is.
  void forget_parent() {
    if (process_ != getpid()) static_cast<void>(pool_.release());
  }

  std::unique_ptr<Pool> pool_;
  pid_t process_ = -1;
};

int ThreadReader::read(const ReadCall& call) {
  try {
    forget_parent();
    if (pool_ == nullptr) pool_ = std::make_unique<Pool>();
    process_ = getpid();
    Schedule schedule(call);
    pool_->read(call, &schedule);
    return 0;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
}

}  // namespace

std::unique_ptr<Reader> open_thread_reader(int* error) {
  auto reader = std::unique_ptr<Reader>(new (std::nothrow) ThreadReader);
  *error = reader == nullptr ? -ENOMEM : 0;
  return reader;
}

}  // namespace stoker
