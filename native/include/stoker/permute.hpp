// A keyed permutation of the numbers below a size: a Feistel network over a rectangle with cycle walking. What it is and
// why is told in stoker/loader/order.py; the plain twin is stoker/kernels/plain_permuting.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// Puts where the permutation `key` of the numbers below `size` takes each of `count` indices into `out`. Every index is
// below `size`, which is at least 1 and below 2^62; `rounds` is even.
void permute(const std::int64_t* index, std::size_t count, std::uint64_t size, std::uint64_t key, unsigned rounds,
             std::int64_t* out);

}  // namespace stoker
