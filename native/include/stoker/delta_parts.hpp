// Looking into TWO_LEVEL payloads, and many pages in one call. The plain twin is stoker/kernels/plain_deltas.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// How many bytes the payload changes, or -1 where it does not fit a page of this size. An empty payload changes none.
std::int64_t two_level_changed(std::size_t page_bytes, const std::uint8_t* payload, std::size_t payload_bytes);

// `count` pages of one size, side by side.
struct PagesShape {
  std::size_t count;
  std::size_t page_bytes;
};

// Compares each page with its fresh image and writes the payloads one behind the other: that of page i begins at
// offsets[i] and ends at offsets[i + 1]; changed[i] is how many bytes differ. `payloads` has room for the bound of every
// page. Returns the bytes written.
std::size_t two_level_diff_many(const std::uint8_t* bases, const std::uint8_t* freshes, PagesShape shape,
                                std::uint8_t* payloads, std::int64_t* offsets, std::int64_t* changed);

}  // namespace stoker
