// Looking into TWO_LEVEL payloads, and many pages in one call. The plain twin is stoker/kernels/plain_deltas.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// How many bytes the payload changes, or -1 where it does not fit a page of this size. An empty payload changes none.
std::int64_t two_level_changed(std::size_t page_bytes, const std::uint8_t* payload, std::size_t payload_bytes);

}  // namespace stoker
