// What a CPU level must offer to make pages. `key` and `mask` are in the phase of `out`: their lowest byte is for
// out[0]. But for `stream`, none of them needs alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace stoker {

struct FillRows {
  // out[i] = (tile[i] ^ key[i % 8]) & mask[i % 8]
  void (*mix)(std::uint8_t* out, const std::uint8_t* tile, std::size_t size_bytes, std::uint64_t key,
              std::uint64_t mask);
  // out[i] = word[i % 8]
  void (*repeat)(std::uint8_t* out, std::size_t size_bytes, std::uint64_t word);
  // Copies whole cache lines past the caches to `out`, which begins one; nullptr where that is not on offer. Other
  // threads see the bytes after a store fence.
  void (*stream)(std::uint8_t* out, const std::uint8_t* from, std::size_t size_bytes);
};

extern const FillRows kFillRowsScalar;
#if defined(__x86_64__)
extern const FillRows kFillRowsAvx2;
#endif

inline std::uint64_t load_word(const std::uint8_t* from) {
  std::uint64_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

// The word as it must be to begin `bytes` later.
inline std::uint64_t advanced(std::uint64_t word, std::size_t bytes) {
  return std::rotr(word, static_cast<int>(8 * (bytes & 7)));
}

// For fewer bytes than a vector holds.
inline void mix_few(std::uint8_t* out, const std::uint8_t* tile, std::size_t size_bytes, std::uint64_t key,
                    std::uint64_t mask) {
  for (; size_bytes >= 8; size_bytes -= 8, out += 8, tile += 8) {
    const std::uint64_t word = (load_word(tile) ^ key) & mask;
    std::memcpy(out, &word, sizeof(word));
  }
  std::uint64_t last = 0;
  std::memcpy(&last, tile, size_bytes);
  last = (last ^ key) & mask;
  std::memcpy(out, &last, size_bytes);
}

inline void repeat_few(std::uint8_t* out, std::size_t size_bytes, std::uint64_t word) {
  for (; size_bytes >= 8; size_bytes -= 8, out += 8) std::memcpy(out, &word, sizeof(word));
  std::memcpy(out, &word, size_bytes);
}

}  // namespace stoker
