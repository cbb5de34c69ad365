// Reading the frames of a log and doing to pages what they say, many in one call. The layout of a frame is that of
// stoker/pages/frames.py. The plain twin is stoker/kernels/plain_replaying.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// What a frame's header says: one row, eight numbers of 64 bits.
struct FrameRow {
  std::uint64_t start;  // offset of the frame in the buffer
  std::uint64_t lsn;
  std::uint64_t page;
  std::uint64_t epoch;
  std::uint64_t time_ns;
  std::uint64_t kinds;  // type, codec, width of elements, flags: a byte each, the type lowest
  std::uint64_t source;
  std::uint64_t payload_bytes;
};

struct FramesFound {
  std::size_t count;
  std::size_t end;  // offset behind the last of them
};

// What frames must be to count.
struct FramesWanted {
  std::size_t start;
  std::uint32_t salt;
  std::uint64_t first_lsn;   // of the first frame; each further one has the next
  std::uint64_t covers_lsn;  // 0, or the LSN up to which numbers may be left out
};

// Reads valid frames, their checksums included, until one is not, or `rows_max` are read.
FramesFound scan_frames(const std::uint8_t* buffer, std::size_t buffer_bytes, const FramesWanted& wanted,
                        FrameRow* rows, std::size_t rows_max);

// A page that frames change.
struct ReplayPage {
  std::uint64_t address;
  std::uint64_t size_bytes;
  std::uint64_t epoch;
  std::uint64_t lsn;
};

// Does what frames of type DELTA and IMAGE say, in order; slots[i] is the number of the page of rows[i]. Returns how
// many were done: the next one is of another type, does not fit its page, or has an epoch that does not follow; it has
// changed nothing. The rows are those of scan_frames for this buffer.
std::size_t replay_frames(const std::uint8_t* buffer, const FrameRow* rows, const std::int64_t* slots,
                          std::size_t count, ReplayPage* pages);

}  // namespace stoker
