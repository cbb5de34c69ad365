// What both read engines share: the system calls, and what an answer to a request means.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stoker/reader.hpp"

namespace stoker {

constexpr std::int64_t kPageBytes = 4096;
constexpr int kTriesMax = 16;

// One request: bytes [at, until) of a range, counted from the range's beginning.
struct Piece {
  std::size_t range = 0;
  unsigned file = 0;  // slot of the file in the schedule
  int descriptor = -1;
  bool direct = false;
  bool seekable = true;    // else a ring would take what a pipe or a terminal holds, whatever the position
  bool first = false;      // of its range: whoever reads it begins the range
  bool whole = false;      // nothing else of the range is asked for
  bool came_short = false;
  bool stopped = false;    // before `until`, for `reason`
  int reason = 0;          // an errno, 0 at the file's end
  int tries = 0;
  std::int64_t at = 0;
  std::int64_t until = 0;
  std::int64_t wanted = 0;
  std::int64_t offset = 0;      // of the range in the file
  std::int64_t file_bytes = 0;  // 0 or less: not known
  std::uint64_t address = 0;    // of the range's memory

  std::int64_t position() const { return offset + at; }
  std::int64_t left() const { return until - at; }
  void* target() const { return reinterpret_cast<void*>(address + static_cast<std::uint64_t>(at)); }
  void stop(int why) {
    stopped = true;
    reason = why;
  }
};

std::int64_t now_ns();

// openat2 beneath the folder, following no link, with `resolve` added. Returns the descriptor or -errno.
int open_beneath(int folder, const char* key, std::uint64_t flags, std::uint64_t resolve);

// What openat2 is told for reading `flags`.
struct HowToOpen {
  std::uint64_t flags;
  std::uint64_t mode;
  std::uint64_t resolve;
};
HowToOpen how_to_open(std::uint64_t flags, std::uint64_t resolve);

// Returns the cached bytes of the range, -1 where that is not told; another failure as -errno below -1 in `error`.
std::int64_t cached_bytes(int descriptor, std::int64_t offset, std::int64_t length, int* error);

// Begins a piece's range: its time and what is cached. Returns 0 or the errno that ends it.
int begin_range(const ReadCall& call, const Piece& piece);

// Takes in the answer to a request: bytes or -errno. True when the rest of the piece is to be asked for.
bool go_on(Piece* piece, std::int64_t answer);

// Reads all of the piece by blocking calls.
void read_blocking(Piece* piece);

}  // namespace stoker
