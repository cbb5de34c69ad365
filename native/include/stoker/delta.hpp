// Deltas of pages: what changed between two images of one size, as the TWO_LEVEL payload of stoker/pages/frames.py:
// a bitmap of the dirty 64-byte lines, a 64-bit mask for each dirty line, then the changed bytes.
// The plain twin is stoker/kernels/plain_deltas.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// The most bytes that two_level_diff can write for pages of this size: bitmap, a mask a line, every byte.
std::size_t two_level_bound(std::size_t page_bytes);

struct DeltaSize {
  std::size_t payload_bytes;  // 0 where nothing differs
  std::size_t changed_bytes;
};

// Compares `base` with `fresh` and writes the payload; `payload` has two_level_bound bytes. Reads both images once.
// With `more`, what lies behind both is wanted next: it may be fetched already, but need not be there.
DeltaSize two_level_diff(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t page_bytes,
                         std::uint8_t* payload, bool more = false);

// The same, and copies what changed into `base` in the same pass.
DeltaSize two_level_diff_update(std::uint8_t* base, const std::uint8_t* fresh, std::size_t page_bytes,
                                std::uint8_t* payload);

// Does to a page what a payload of two_level_diff says, from the image that it leads to: lines that differ are copied
// whole, or what changed is taken from the payload where the image is `far` from the processor by now. The payload is
// ours and not checked.
void two_level_copy(std::uint8_t* page, const std::uint8_t* image, std::size_t page_bytes, const std::uint8_t* payload,
                    bool far = false);

// Overwrites what the payload says. False, and an untouched page, where the payload does not fit the page: masks
// beyond its end, or fewer or more bytes than the masks ask for.
bool two_level_apply(std::uint8_t* page, std::size_t page_bytes, const std::uint8_t* payload,
                     std::size_t payload_bytes);

}  // namespace stoker
