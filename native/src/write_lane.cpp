#include "stoker/write_lane.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <thread>
#include <vector>

namespace stoker {
namespace {

// An answer that asks to try again is believed this often without progress in between.
constexpr unsigned kStallsMax = 1000;
// A short write past the page cache goes on at a whole block: 4096 suits every device.
constexpr std::int64_t kBlock = 4096;

bool failed(const WriteRequest& request) {
  return std::atomic_ref<int>(*request.status).load(std::memory_order_relaxed) != 0;
}

void fail(WriteRequest& request, int error) {
  int good = 0;
  std::atomic_ref<int>(*request.status).compare_exchange_strong(good, error, std::memory_order_relaxed);
}

// Takes in the answer to a request; true when it must be sent again (what is left of it).
bool goes_on(WriteRequest& request, std::int64_t answer) {
  const bool writes = request.action == WriteAction::write;
  std::int64_t moved = 0;
  if (answer == -EINTR || (answer == -EAGAIN && writes)) {
    moved = 0;
  } else if (answer < 0) {
    // A failed sync is final: the kernel drops what it could not write, and asking once more would say that all is well.
    fail(request, static_cast<int>(-answer));
    return false;
  } else if (!writes || answer == request.length) {
    return false;
  } else {
    moved = request.direct ? answer - answer % kBlock : answer;
  }
  if (moved == 0 && ++request.stalls > kStallsMax) {
    fail(request, answer < 0 ? static_cast<int>(-answer) : EIO);
    return false;
  }
  if (moved > 0) request.stalls = 0;
  request.offset += moved;
  request.from += moved;
  request.length -= moved;
  return true;
}

std::int64_t answer_of(const WriteRequest& request) {
  ssize_t done = -1;
  switch (request.action) {
    case WriteAction::write:
      done = pwrite(request.file, request.from, static_cast<std::size_t>(request.length), request.offset);
      break;
    case WriteAction::sync_data:
      done = fdatasync(request.file);
      break;
    case WriteAction::sync_all:
      done = fsync(request.file);
      break;
  }
  return done < 0 ? -errno : done;
}

void do_one(WriteRequest& request) {
  while (!failed(request) && goes_on(request, answer_of(request))) {
  }
}

void prepare(io_uring_sqe* entry, const WriteRequest& request, std::size_t index) {
  entry->fd = request.file;
  entry->user_data = index;
  if (request.action == WriteAction::write) {
    entry->opcode = IORING_OP_WRITE;
    entry->off = static_cast<__u64>(request.offset);
    entry->addr = reinterpret_cast<__u64>(request.from);
    entry->len = static_cast<__u32>(request.length);
  } else {
    entry->opcode = IORING_OP_FSYNC;
    entry->fsync_flags = request.action == WriteAction::sync_data ? IORING_FSYNC_DATASYNC : 0;
  }
}

}  // namespace

void write_in_turn(std::span<WriteRequest> requests) {
  for (WriteRequest& request : requests) do_one(request);
}

void write_by_threads(std::span<WriteRequest> requests, unsigned queue_depth) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t index = next.fetch_add(1); index < requests.size(); index = next.fetch_add(1)) {
      do_one(requests[index]);
    }
  };
  std::vector<std::thread> others;
  const std::size_t count = std::min<std::size_t>(queue_depth, requests.size());
  try {
    others.reserve(count);
    while (others.size() + 1 < count) others.emplace_back(work);
  } catch (const std::exception&) {
    // fewer threads than wished for: those that are there, and this one, do it all
  }
  work();
  for (std::thread& other : others) other.join();
}

int write_by_ring(std::span<WriteRequest> requests, unsigned queue_depth, Ring& ring, std::span<std::size_t> again) {
  std::size_t next = 0;
  std::size_t waiting = 0;
  unsigned in_flight = 0;
  while (true) {
    while (in_flight < queue_depth && (waiting > 0 || next < requests.size())) {
      const std::size_t index = waiting > 0 ? again[waiting - 1] : next;
      if (!failed(requests[index])) {
        io_uring_sqe* entry = ring.next();
        if (entry == nullptr) break;
        prepare(entry, requests[index], index);
        ++in_flight;
      }
      waiting > 0 ? --waiting : ++next;
    }
    if (in_flight == 0) return 0;
    const int error = ring.submit(1);
    if (error != 0) return -error;
    io_uring_cqe completion;
    while (ring.take(&completion)) {
      --in_flight;
      const auto index = static_cast<std::size_t>(completion.user_data);
      if (goes_on(requests[index], completion.res)) again[waiting++] = index;
    }
  }
}

}  // namespace stoker
