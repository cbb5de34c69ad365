#include "stoker/reader.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"

namespace {

using namespace stoker;

char byte_at(std::size_t file, std::int64_t position) {
  return static_cast<char>((position * 2654435761LL >> 7) + static_cast<std::int64_t>(file));
}

// A folder of files with known bytes, removed at the end.
class Folder {
 public:
  Folder() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/stoker-reader-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) std::abort();
    descriptor_ = open(path_.c_str(), O_RDONLY | O_DIRECTORY);
  }
  ~Folder() {
    for (const std::string& name : names_) unlinkat(descriptor_, name.c_str(), 0);
    close(descriptor_);
    rmdir(path_.c_str());
  }
  void add(std::int64_t size) {
    const std::size_t number = names_.size();
    names_.push_back("file" + std::to_string(number));
    std::vector<char> data(static_cast<std::size_t>(size));
    for (std::int64_t at = 0; at < size; ++at) data[static_cast<std::size_t>(at)] = byte_at(number, at);
    const int file = openat(descriptor_, names_.back().c_str(), O_WRONLY | O_CREAT, 0600);
    CHECK(write(file, data.data(), data.size()) == size);
    close(file);
  }
  void forget(std::size_t number) const {
    const int file = open_file(number, O_RDONLY);
    fsync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
  }
  int open_file(std::size_t number, int flags) const { return openat(descriptor_, names_[number].c_str(), flags); }
  int descriptor() const { return descriptor_; }
  const std::string& name(std::size_t number) const { return names_[number]; }

 private:
  std::string path_;
  std::vector<std::string> names_;
  int descriptor_ = -1;
};

struct Range {
  std::int64_t file, offset, wanted, room;
};

// A call and the memory of its columns; every range is given aligned memory with a guard behind it.
class Columns {
 public:
  explicit Columns(const std::vector<Range>& asked) : asked_(asked) {
    std::int64_t total = 0;
    for (const Range& range : asked) total += place_of(range);
    bytes_ = static_cast<std::size_t>(total) + 4096;
    memory_ = static_cast<char*>(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    std::int64_t at = 0;
    for (const Range& range : asked) {
      starts_.push_back(memory_ + at);
      const std::int64_t address = reinterpret_cast<std::int64_t>(memory_ + at);
      ranges_.insert(ranges_.end(), {range.file, range.offset, range.wanted, range.room, address});
      at += place_of(range);
    }
    done_.assign(asked.size() * kDoneColumns, -77);
  }
  ~Columns() { munmap(memory_, bytes_); }
  ReadCall call(bool residency, unsigned depth, std::int64_t request_bytes) {
    ReadCall call;
    call.ranges = ranges_.data();
    call.range_count = asked_.size();
    call.ranges_done = done_.data();
    call.residency = residency;
    call.queue_depth = depth;
    call.request_bytes = request_bytes;
    return call;
  }
  std::int64_t done(std::size_t index, int column) const { return done_[index * kDoneColumns + std::size_t(column)]; }
  bool right(std::size_t index, std::size_t file) const {
    for (std::int64_t at = 0; at < done(index, kDoneRead); ++at) {
      if (starts_[index][at] != byte_at(file, asked_[index].offset + at)) return false;
    }
    return starts_[index][asked_[index].room] == 0;
  }

 private:
  static std::int64_t place_of(const Range& range) { return (range.room / 4096 + 2) * 4096; }
  std::vector<Range> asked_;
  std::vector<std::int64_t> ranges_;
  std::vector<std::int64_t> done_;
  std::vector<char*> starts_;
  char* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

struct Way {
  std::uint64_t flags;
  bool residency;
  bool cold;
  unsigned depth;
  std::int64_t request_bytes;
};

void whole_files(Reader* reader, const Folder& folder, const std::vector<std::int64_t>& sizes, const Way& way) {
  std::vector<Range> asked;
  std::vector<const char*> keys;
  std::vector<std::int64_t> files_done(sizes.size() * kFileColumns, -77);
  for (std::size_t number = 0; number < sizes.size(); ++number) {
    const auto file = static_cast<std::int64_t>(number);
    const std::int64_t blocks = (sizes[number] + 4095) / 4096 * 4096;
    keys.push_back(folder.name(number).c_str());
    asked.push_back({file, 0, sizes[number], blocks});
    asked.push_back({file, 4096, std::max<std::int64_t>(sizes[number] - 4096, 0), blocks + 4096});
    asked.push_back({file, 0, sizes[number] + 1, blocks + 4096});
    if (way.cold) folder.forget(number);
  }
  Columns columns(asked);
  ReadCall call = columns.call(way.residency, way.depth, way.request_bytes);
  call.folder = folder.descriptor();
  call.keys = keys.data();
  call.files = keys.size();
  call.flags = way.flags;
  call.files_done = files_done.data();
  CHECK(check_ranges(call) == ColumnFault::none);
  CHECK(reader->read(call) == 0);
  for (std::size_t number = 0; number < sizes.size(); ++number) {
    CHECK(files_done[number * kFileColumns + kFileStatus] == 0);
    CHECK(files_done[number * kFileColumns + kFileSize] == sizes[number]);
    CHECK(columns.done(number * 3, kDoneStatus) == 0);
    CHECK(columns.done(number * 3, kDoneRead) == sizes[number]);
    CHECK(columns.done(number * 3 + 1, kDoneStatus) == 0);
    CHECK(columns.done(number * 3 + 2, kDoneStatus) == kStatusShort);
    CHECK(columns.done(number * 3 + 2, kDoneRead) == sizes[number]);
    for (std::size_t index = number * 3; index < number * 3 + 3; ++index) {
      CHECK(columns.right(index, number));
      CHECK(columns.done(index, kDoneStarted) <= columns.done(index, kDoneEnded));
      CHECK((columns.done(index, kDoneCached) == -1) || way.residency);
    }
  }
}

void all_ways(Reader* reader) {
  const std::vector<std::int64_t> sizes = {0, 1, 4095, 4096, 4097, 8192, 20000, 40960, 100001, 300000};
  Folder folder;
  for (const std::int64_t size : sizes) folder.add(size);
  for (const std::uint64_t flags : {std::uint64_t{0}, std::uint64_t{O_DIRECT}}) {
    for (const bool cold : {false, true}) {
      for (const bool residency : {false, true}) {
        whole_files(reader, folder, sizes, {flags, residency, cold, 1, 1 << 20});
        whole_files(reader, folder, sizes, {flags, residency, cold, 3, 8192});
        whole_files(reader, folder, sizes, {flags, residency, cold, 200, 4096});
      }
    }
  }
}

void bad_files(Reader* reader) {
  Folder folder;
  folder.add(5000);
  const char* keys[] = {"none", nullptr, folder.name(0).c_str(), ".", "../x"};
  std::vector<std::int64_t> files_done(5 * kFileColumns, -77);
  Columns columns({{0, 0, 10, 10}, {1, 0, 10, 10}, {2, 0, 10, 10}, {2, 0, 0, 0}, {3, 0, 10, 10}});
  ReadCall call = columns.call(true, 8, 4096);
  call.folder = folder.descriptor();
  call.keys = keys;
  call.files = 5;
  call.files_done = files_done.data();
  CHECK(reader->read(call) == 0);
  const std::int64_t expected[] = {ENOENT, EINVAL, 0, kStatusNotRegular, EXDEV};
  for (std::size_t number = 0; number < 5; ++number) CHECK(files_done[number * kFileColumns] == expected[number]);
  const std::int64_t statuses[] = {kStatusNotTried, kStatusNotTried, 0, 0, kStatusNotTried};
  for (std::size_t index = 0; index < 5; ++index) CHECK(columns.done(index, kDoneStatus) == statuses[index]);
}

// Memory of more than 2 GiB that is really one small piece, mapped again and again.
[[maybe_unused]] void huge_range(Reader* reader) {
  constexpr std::size_t piece = std::size_t{64} << 20;
  constexpr std::size_t total = (std::size_t{2} << 30) + 2 * piece;
  const int shared = memfd_create("stoker", 0);
  CHECK(ftruncate(shared, piece) == 0);
  auto* memory = static_cast<char*>(mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  for (std::size_t at = 0; at < total; at += piece) {
    mmap(memory + at, piece, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, shared, 0);
  }
  Folder folder;
  folder.add(0);
  int file = folder.open_file(0, O_RDWR);
  CHECK(ftruncate(file, static_cast<off_t>(total)) == 0);
  close(file);
  file = folder.open_file(0, O_RDONLY | O_DIRECT);
  if (file >= 0) {  // without O_DIRECT it would fill the page cache with nothing
    const auto bytes = static_cast<std::int64_t>(total);
    const std::int64_t range[] = {0, 0, bytes, bytes, reinterpret_cast<std::int64_t>(memory)};
    std::int64_t done[kDoneColumns] = {};
    ReadCall call;
    call.descriptors = &file;
    call.files = 1;
    call.ranges = range;
    call.range_count = 1;
    call.ranges_done = done;
    call.queue_depth = 4;
    CHECK(reader->read(call) == 0);
    CHECK(done[kDoneStatus] == 0);
    CHECK(done[kDoneRead] == bytes);
    close(file);
  }
  munmap(memory, total);
  close(shared);
}

void shrinking_file(Reader* reader) {
  constexpr std::int64_t size = 256 * 1024;
  Folder folder;
  folder.add(size);
  std::atomic<bool> stop = false;
  std::thread other([&] {
    const int file = folder.open_file(0, O_RDWR);
    for (std::int64_t at = 0; !stop; at = (at + 12345) % size) {
      CHECK(ftruncate(file, at) == 0);
      CHECK(ftruncate(file, size) == 0);
    }
    close(file);
  });
  const char* key = folder.name(0).c_str();
  for (int round = 0; round < 60; ++round) {
    Columns columns({{0, 0, size, size + 4096}});
    std::int64_t files_done[kFileColumns] = {};
    ReadCall call = columns.call(round % 2 == 0, 4, 16384);
    call.folder = folder.descriptor();
    call.keys = &key;
    call.files = 1;
    call.flags = round % 4 < 2 ? 0 : O_DIRECT;
    call.files_done = files_done;
    CHECK(reader->read(call) == 0);
    const std::int64_t status = columns.done(0, kDoneStatus);
    CHECK(status == 0 || status == kStatusShort);
    CHECK((columns.done(0, kDoneRead) == size) == (status == 0));
  }
  stop = true;
  other.join();
}

void bad_columns() {
  const std::int64_t rows[][kRangeColumns] = {{2, 0, 1, 1, 0}, {0, 0, 2, 1, 0}, {0, -1, 1, 1, 0}};
  ReadCall call;
  call.files = 2;
  call.range_count = 1;
  for (const auto& row : rows) {
    call.ranges = row;
    CHECK(check_ranges(call) == ColumnFault::number);
  }
  const std::int64_t far[] = {0, INT64_MAX, 1, 1, 0};
  call.ranges = far;
  CHECK(check_ranges(call) == ColumnFault::end);
  const std::int64_t mixed[] = {1, 0, 1, 1, 0, 0, 0, 1, 1, 0};
  const char* const keys[] = {"a", "b"};
  call.ranges = mixed;
  call.range_count = 2;
  CHECK(check_ranges(call) == ColumnFault::none);
  call.keys = keys;
  CHECK(check_ranges(call) == ColumnFault::order);
}

void all_of(Reader* reader) {
  all_ways(reader);
  bad_files(reader);
#ifndef __SANITIZE_THREAD__  // it keeps a record of every byte
  huge_range(reader);
#endif
  shrinking_file(reader);
}

}  // namespace

int main() {
  bad_columns();
  int error = 0;
  const auto ring = open_ring_reader(&error);
  if (ring == nullptr) {
    CHECK(error == -EPERM || error == -ENOSYS || error == -EACCES || error == -ENOMEM);
    std::fprintf(stderr, "io_uring is denied here: not tested\n");
  } else {
    all_of(ring.get());
  }
  const auto threads = open_thread_reader(&error);
  CHECK(threads != nullptr);
  all_of(threads.get());
  RETURN_RESULT();
}
