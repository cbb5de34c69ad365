// Which file is opened, read or closed next, within bounds, and what came of each. For one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "reader_parts.hpp"
#include "stoker/reader.hpp"

namespace stoker {

enum class Task { none, open, read, close };

struct OpenFile {
  std::size_t number = 0;
  int descriptor = -1;
  std::int64_t file_bytes = -1;
  std::int64_t asked_from = INT64_MAX;  // the first byte wanted
  std::int64_t asked_bytes = 0;
  std::size_t first = 0;  // its ranges: [first, last)
  std::size_t last = 0;
  std::size_t cursor = 0;
  std::int64_t at = 0;  // what of the range at the cursor was handed out
  unsigned under_way = 0;
  std::uint64_t closings = 0;  // how many files had been closed when this one was to be opened
  bool direct = false;
  bool waits = false;    // for its turn to be read on
  bool advised = false;  // whether the kernel was told how it will be read

  // Whether reading ahead could bring what nobody asked for: more than a page behind the first byte wanted. Where it
  // could not, the kernel reads ahead as it likes: told that reads are random, it takes single pages for everything,
  // and long reads then cost twice the CPU time.
  bool partly_read() const { return file_bytes > 0 && file_bytes - kPageBytes - asked_bytes > asked_from; }
};

// What is known of a file that was open already.
struct Descriptor {
  bool known = false;
  bool direct = false;
  bool seekable = false;
  std::int64_t file_bytes = -1;
};

// What opening gave: a descriptor of a regular file, or -1 and the status that says why not.
struct Opened {
  int descriptor = -1;
  std::int64_t status = 0;
  std::int64_t file_bytes = -1;
};

// Asks what an open descriptor is; what is not a regular file is closed. Takes -errno, too.
Opened look_at(int descriptor_or_error);

class Schedule {
 public:
  // Takes all the memory that it will need; throws std::bad_alloc.
  explicit Schedule(const ReadCall& call);

  // Hands out the next thing to do, none when all that is left is under way. `slot` names the file.
  Task next(Piece* piece, unsigned* slot);
  // Hands out a piece of the file whose turn it is; false when that has none left.
  bool next_piece(Piece* piece);
  bool finished() const { return open_ == 0 && next_file_ == file_count_ && starved_.empty(); }

  // Tells what came of each thing that was handed out.
  void opened(unsigned slot, const Opened& answer, std::int64_t started, std::int64_t now);
  void read(const Piece& piece, std::int64_t now);
  void closed(unsigned slot);

  // Closes every file that it opened, when the engine has failed.
  void abandon();

  // Ranges of the file whose turn it is that were not handed out yet.
  std::size_t ranges_left() const;

  OpenFile& file(unsigned slot) { return files_[slot]; }
  const char* key(unsigned slot) const { return call_.keys[files_[slot].number]; }

 private:
  bool hand_out(OpenFile* file, unsigned slot, Piece* piece);
  void begin_file(unsigned slot, std::size_t number);
  void give_up(const OpenFile& file, std::int64_t now);
  void settle(const OpenFile& file);
  void line_up(unsigned slot);
  void about_descriptor(std::size_t index, Piece* piece);
  const Descriptor& descriptor(std::size_t index);

  const ReadCall& call_;
  std::size_t file_count_;
  std::vector<OpenFile> files_;
  std::vector<unsigned> free_;
  std::vector<unsigned> line_;  // open files with ranges left, first come first served; a circle
  std::size_t line_first_ = 0;
  std::size_t line_count_ = 0;
  std::vector<unsigned> to_close_;
  std::vector<std::size_t> starved_;  // files that found no free descriptor: to be opened again after a close
  std::vector<Descriptor> descriptors_;  // of a call with open files
  bool starving_ = false;
  std::uint64_t closings_ = 0;
  unsigned open_ = 0;  // slots in use
  std::size_t next_file_ = 0;
  std::size_t next_range_ = 0;
};

}  // namespace stoker
