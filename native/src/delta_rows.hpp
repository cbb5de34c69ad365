// What a CPU level must offer to make and apply deltas of pages. A block is up to 64 whole lines of 64 bytes: what one
// word of the bitmap speaks of. Nothing needs alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace stoker {

constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kWordBytes = sizeof(std::uint64_t);
constexpr std::size_t kBlockBytes = 64 * kLineBytes;
constexpr std::uint64_t kAllBytes = ~std::uint64_t{0};

// Where the masks and the bytes of a payload go; both move on as they grow.
struct DeltaOut {
  std::uint8_t* masks;
  std::uint8_t* bytes;
};

struct DiffHow {
  bool update;  // the lines that differ are copied into the base
  bool more;    // what lies behind both images is wanted next: it may be fetched already
};

struct DeltaRows {
  // Returns the bitmap of the lines that differ. Writes a mask for each of them and the bytes of `fresh` that it names,
  // then copies those lines into `base` if `update`. `out.bytes` has as much room as the block has bytes.
  std::uint64_t (*diff)(std::uint8_t* base, const std::uint8_t* fresh, std::size_t lines, DiffHow how, DeltaOut& out);
  // Overwrites the bytes of `page` that the masks name and returns how many; at least that many lie between `bytes`
  // and `end`.
  std::size_t (*expand)(std::uint8_t* page, std::uint64_t bitmap, const std::uint8_t* masks,
                        const std::uint8_t* bytes, const std::uint8_t* end);
  // Copies the lines of the bitmap.
  void (*copy)(std::uint8_t* page, const std::uint8_t* image, std::uint64_t bitmap);
  // Overwrites the bytes that the masks name, without reading the lines, and returns how many; null at a level that
  // cannot.
  std::size_t (*spread)(std::uint8_t* page, std::uint64_t bitmap, const std::uint8_t* masks, const std::uint8_t* bytes);
};

extern const DeltaRows kDeltaRowsScalar;
#if defined(__x86_64__)
extern const DeltaRows kDeltaRowsAvx2;
extern const DeltaRows kDeltaRowsAvx512;
#endif

inline std::uint64_t load_u64(const std::uint8_t* from) {
  std::uint64_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

inline void store_u64(std::uint8_t* to, std::uint64_t word) { std::memcpy(to, &word, sizeof(word)); }

inline std::size_t count_bits(std::uint64_t word) { return static_cast<std::size_t>(std::popcount(word)); }

// Of a word that is not 0.
inline std::size_t lowest_bit(std::uint64_t word) { return static_cast<std::size_t>(__builtin_ctzll(word)); }

// Byte by byte: writes nothing but what the mask asks for.
inline std::size_t compact_exactly(const std::uint8_t* from, std::uint64_t mask, std::uint8_t* out) {
  std::size_t count = 0;
  for (; mask != 0; mask &= mask - 1) out[count++] = from[lowest_bit(mask)];
  return count;
}

inline std::size_t expand_exactly(std::uint8_t* page, std::uint64_t mask, const std::uint8_t* bytes) {
  std::size_t count = 0;
  for (; mask != 0; mask &= mask - 1) page[lowest_bit(mask)] = bytes[count++];
  return count;
}

}  // namespace stoker
