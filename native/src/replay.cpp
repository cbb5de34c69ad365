#include "stoker/replay.hpp"

#include <algorithm>
#include <cstring>

#include "arena_layout.hpp"
#include "stoker/check.hpp"
#include "stoker/delta.hpp"

namespace stoker {

using namespace arena;  // NOLINT: the names of the layout are this file's vocabulary

namespace {

constexpr std::uint64_t kFrameBytesMax = std::uint64_t{1} << 30;

// Bytes of the valid frame that begins here, 0 where none does.
std::uint64_t valid_bytes(const std::uint8_t* frame, std::size_t left, std::uint32_t salt) {
  if (left < kFrameHeaderBytes) return 0;
  const std::uint64_t length = get<std::uint32_t>(frame), payload_bytes = get<std::uint32_t>(frame + 48);
  if (length < kFrameHeaderBytes || length > std::min<std::uint64_t>(left, kFrameBytesMax)) return 0;
  if (length != kFrameHeaderBytes + padded(payload_bytes) || get<std::uint32_t>(frame + 52) != 0) return 0;
  return crc32c(frame + 8, length - 8, salt) == get<std::uint32_t>(frame + 4) ? length : 0;
}

FrameRow row_of(const std::uint8_t* frame, std::uint64_t start) {
  return {start,
          get<std::uint64_t>(frame + 8),
          get<std::uint64_t>(frame + 16),
          get<std::uint64_t>(frame + 24),
          get<std::uint64_t>(frame + 32),
          get<std::uint32_t>(frame + 40),
          get<std::uint32_t>(frame + 44),
          get<std::uint32_t>(frame + 48)};
}

// Calls `work(offset, bytes, length)` for each run; false where one leaves the page or the payload.
template <typename Work>
bool each_run(const ReplayPage& page, const std::uint8_t* payload, std::uint64_t payload_bytes, Work work) {
  std::uint64_t at = 0;
  while (at + kRunRecordBytes <= payload_bytes) {
    const auto offset = get<std::uint64_t>(payload + at), length = get<std::uint64_t>(payload + at + 8);
    at += kRunRecordBytes;
    if (length > page.size_bytes || offset > page.size_bytes - length || length > payload_bytes - at) return false;
    work(offset, payload + at, length);
    at += std::min<std::uint64_t>(padded(length), payload_bytes - at);
  }
  return true;
}

bool apply_runs(const ReplayPage& page, const std::uint8_t* payload, std::uint64_t payload_bytes) {
  auto* const data = reinterpret_cast<std::uint8_t*>(page.address);
  const auto nothing = [](std::uint64_t, const std::uint8_t*, std::uint64_t) {};
  if (!each_run(page, payload, payload_bytes, nothing)) return false;
  return each_run(page, payload, payload_bytes, [&](std::uint64_t offset, const std::uint8_t* bytes,
                                                    std::uint64_t length) { std::memcpy(data + offset, bytes, length); });
}

bool apply(const ReplayPage& page, const FrameRow& row, const std::uint8_t* payload) {
  auto* const data = reinterpret_cast<std::uint8_t*>(page.address);
  const int type = static_cast<int>(row.kinds & 0xFF), codec = static_cast<int>(row.kinds >> 8 & 0xFF);
  if (type == kImage) {
    if (row.payload_bytes != page.size_bytes) return false;
    std::memcpy(data, payload, page.size_bytes);
    return true;
  }
  if (type != kDelta) return false;
  if (codec == kTwoLevel) return two_level_apply(data, page.size_bytes, payload, row.payload_bytes);
  return codec == kRuns && apply_runs(page, payload, row.payload_bytes);
}

}  // namespace

FramesFound scan_frames(const std::uint8_t* buffer, std::size_t buffer_bytes, const FramesWanted& wanted,
                        FrameRow* rows, std::size_t rows_max) {
  FramesFound found{0, wanted.start};
  std::uint64_t expected = wanted.first_lsn;
  while (found.count < rows_max && found.end < buffer_bytes) {
    const std::uint8_t* const frame = buffer + found.end;
    const std::uint64_t length = valid_bytes(frame, buffer_bytes - found.end, wanted.salt);
    if (length == 0) break;
    const FrameRow row = row_of(frame, found.end);
    const bool left_out = row.lsn > expected && row.lsn <= wanted.covers_lsn;
    if (row.lsn != expected && !left_out) break;
    rows[found.count++] = row;
    found.end += length;
    expected = row.lsn + 1;
  }
  return found;
}

std::size_t replay_frames(const std::uint8_t* buffer, const FrameRow* rows, const std::int64_t* slots,
                          std::size_t count, ReplayPage* pages) {
  for (std::size_t index = 0; index < count; ++index) {
    const FrameRow& row = rows[index];
    ReplayPage& page = pages[slots[index]];
    if (index + 1 < count) __builtin_prefetch(buffer + rows[index + 1].start + kFrameHeaderBytes);
    if (row.epoch != page.epoch + 1) return index;
    if (!apply(page, row, buffer + row.start + kFrameHeaderBytes)) return index;
    page.epoch = row.epoch;
    page.lsn = row.lsn;
  }
  return count;
}

}  // namespace stoker
