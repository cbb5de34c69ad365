// Writing files: one that is open, or many small ones that appear whole or not at all.
// Sources: open(2), fallocate(2), fsync(2), rename(2), renameat2(2), link(2).
#pragma once

#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "stoker/ring.hpp"
#include "stoker/write_lane.hpp"

namespace stoker {

enum class WriteKind : int { ring = 0, threads = 1 };
// `start` begins to move what is in the page cache to the device, and waits for nothing.
enum class Fsync : int { none = 0, data = 1, full = 2, start = 3 };

// What is to be written: rows of offset, length, address, and file where there are several; `columns` is their width.
struct Pieces {
  const std::int64_t* rows = nullptr;
  std::size_t count = 0;
  std::size_t columns = 3;

  std::int64_t offset(std::size_t row) const { return rows[row * columns]; }
  std::int64_t length(std::size_t row) const { return rows[row * columns + 1]; }
  const char* address(std::size_t row) const { return reinterpret_cast<const char*>(rows[row * columns + 2]); }
  std::int64_t file(std::size_t row) const { return columns > 3 ? rows[row * columns + 3] : 0; }
};

// Many files of one open folder. `done` has three numbers a file: status, size, time of change in nanoseconds.
struct FileBatch {
  int folder = -1;
  std::span<const std::string> names;
  std::span<const std::string> temporaries;
  Pieces pieces;
  std::span<const std::int64_t> sizes;
  int flags = 0;
  Fsync fsync = Fsync::none;
  bool if_absent = false;
  std::int64_t* done = nullptr;

  bool direct() const { return (flags & O_DIRECT) != 0; }
};

// True when every number can be, and the pieces stand in the order of their `files`.
bool pieces_fit(const Pieces& pieces, std::size_t files);

// Writes for one thread at a time. No method throws but for want of memory, and then no file is open yet.
class WriteEngine {
 public:
  WriteEngine(WriteKind kind, bool buffered_in_turn) : kind_(kind), buffered_in_turn_(buffered_in_turn) {}
  ~WriteEngine() { wait(); }
  WriteEngine(const WriteEngine&) = delete;
  WriteEngine& operator=(const WriteEngine&) = delete;

  static constexpr unsigned kDepthMax = 1024;

  // From 1 to kDepthMax requests under way at once; longer pieces are split, a multiple of 4096.
  unsigned queue_depth = 32;
  std::int64_t request_bytes = 1 << 20;

  // Writes all pieces of one open file, then syncs it. Returns 0 or the first errno; then nothing is known of the
  // file's content.
  int write_open(int file, const Pieces& pieces, Fsync fsync);
  // The same behind the caller's back: memory and file are ours until `finish_open` returns what came of it. Other
  // calls wait for it first.
  void begin_open(int file, const Pieces& pieces);
  int finish_open();
  // Writes, syncs and publishes every file. Returns 0, or an errno when the ring itself failed; each file's status
  // tells the rest.
  int write_files(const FileBatch& batch);
  void close();
  // 0 when a ring can be had here, else the errno that says why not.
  static int ring_error();

 private:
  struct Open;
  void wait();
  int write_pieces(int file, const Pieces& pieces, Fsync fsync);
  WriteLane lane_for_writes(bool direct, bool several) const;
  WriteLane lane_for_syncs(std::size_t count) const;
  int run(WriteLane lane, std::span<WriteRequest> requests, unsigned depth_max = kDepthMax);
  int run_by_ring(std::span<WriteRequest> requests, unsigned depth);
  int ready_ring();
  void add_writes(const Pieces& pieces, std::size_t first, std::size_t last, WriteRequest like);
  void open_group(const FileBatch& batch, std::span<Open> files, std::size_t first, std::size_t* row);
  void trim_group(const FileBatch& batch, std::span<Open> files, std::size_t first);
  int sync_group(const FileBatch& batch, std::span<Open> files);
  void finish_group(const FileBatch& batch, std::span<Open> files, std::size_t first, int error);

  WriteKind kind_;
  bool buffered_in_turn_;
  Ring ring_;
  std::vector<WriteRequest> requests_;
  std::vector<std::size_t> again_;
  std::thread behind_;
  std::vector<std::int64_t> behind_rows_;
  int behind_status_ = 0;
};

}  // namespace stoker
