// The pages of a dataset's content: each is a row of a random tile XOR a key, in any range of the stream, in place.
// What the bytes are is told in stoker/loader/dataset/content.py; the plain twin is stoker/kernels/plain_fill.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kTilePages = 64;
constexpr std::size_t kTileBytes = kTilePages * kPageBytes;
constexpr std::size_t kRunPages = 16;

// One stream. The pointers are to little-endian words; only the first `random_bytes` of each row of the tile are
// read, the rest of a page repeats its key.
struct PageStream {
  const std::uint8_t* tile = nullptr;       // kTileBytes
  const std::uint8_t* pool_keys = nullptr;  // kTilePages words
  std::size_t random_bytes = kPageBytes;    // a multiple of 8, at most kPageBytes
  std::uint64_t base = 0;
  double phase = 0;
  double duplicate_ratio = 0;
};

// Fills `out` with the stream from `offset_bytes` on. Every 8 bytes of `out`, counted from its first, are ANDed with
// `mask` (its lowest byte first). No address need be aligned.
void fill_pages(std::uint8_t* out, std::size_t size_bytes, const PageStream& stream, std::uint64_t offset_bytes,
                std::uint64_t mask);

}  // namespace stoker
