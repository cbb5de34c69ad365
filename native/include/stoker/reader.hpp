// Many reads of files in one call. The words, columns and statuses are those of stoker/kernels/files.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace stoker {

constexpr int kRangeFile = 0;
constexpr int kRangeOffset = 1;
constexpr int kRangeWanted = 2;
constexpr int kRangeRoom = 3;
constexpr int kRangeAddress = 4;
constexpr int kRangeColumns = 5;

constexpr int kFileStatus = 0;
constexpr int kFileSize = 1;
constexpr int kFileStarted = 2;
constexpr int kFileOpened = 3;
constexpr int kFileColumns = 4;

constexpr int kDoneStatus = 0;
constexpr int kDoneRead = 1;
constexpr int kDoneCached = 2;
constexpr int kDoneStarted = 3;
constexpr int kDoneEnded = 4;
constexpr int kDoneColumns = 5;

constexpr std::int64_t kStatusShort = -1;
constexpr std::int64_t kStatusNotRegular = -2;
constexpr std::int64_t kStatusNotTried = -3;

constexpr unsigned kQueueDepthMax = 4096;
constexpr std::int64_t kRequestBytesMax = std::int64_t{1} << 30;

// What is to be read. Either `keys` below `folder` (nullptr for a key that no file can have), or `descriptors`.
struct ReadCall {
  int folder = -1;
  const char* const* keys = nullptr;
  const int* descriptors = nullptr;
  std::size_t files = 0;
  std::uint64_t flags = 0;
  const std::int64_t* ranges = nullptr;
  std::size_t range_count = 0;
  std::int64_t* files_done = nullptr;
  std::int64_t* ranges_done = nullptr;
  bool residency = false;
  unsigned queue_depth = 1;
  std::int64_t request_bytes = kRequestBytesMax;

  const std::int64_t* range(std::size_t index) const { return ranges + index * kRangeColumns; }
  std::int64_t* range_done(std::size_t index) const { return ranges_done + index * kDoneColumns; }
  std::int64_t* file_done(std::size_t index) const { return files_done + index * kFileColumns; }
};

enum class ColumnFault : int { none = 0, number = 1, end = 2, order = 3 };

// Checks every number of the call's ranges before anything is done with them.
ColumnFault check_ranges(const ReadCall& call);

// One engine, for one thread at a time, in the process that reads; after a fork it begins anew.
class Reader {
 public:
  Reader() = default;
  virtual ~Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // Reads all of a checked call; returns 0, or -errno when the engine itself failed. Never throws.
  virtual int read(const ReadCall& call) = 0;
  // Tells the kernel of memory that is read into often. False when it does not take it.
  virtual bool add_memory(std::uint64_t address, std::uint64_t size_bytes) = 0;
  virtual void remove_memory(std::uint64_t address) = 0;
};

// Each returns nullptr and sets `error` to -errno when this machine does not offer the engine.
std::unique_ptr<Reader> open_ring_reader(int* error);
std::unique_ptr<Reader> open_thread_reader(int* error);

}  // namespace stoker
