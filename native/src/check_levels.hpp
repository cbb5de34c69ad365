// What a CPU level must offer to checksum and copy. `target` is nullptr where nothing is to be copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace stoker {

// The register as the algorithm keeps it: the caller inverts it before and after.
using Crc32c = std::uint32_t (*)(const std::uint8_t* data, std::uint8_t* target, std::size_t size_bytes,
                                 std::uint32_t state);

// Takes `stripes` of 64 bytes into the eight accumulators, and at a block's end scrambles them.
using Xxh3Stripes = void (*)(std::uint64_t* accumulators, const std::uint8_t* data, std::uint8_t* target,
                             std::size_t stripes);
using Xxh3Scramble = void (*)(std::uint64_t* accumulators);

struct Xxh3Level {
  Xxh3Stripes accumulate;
  Xxh3Scramble scramble;
};

constexpr std::size_t kStripeBytes = 64;
constexpr std::size_t kBlockStripes = 16;
constexpr std::size_t kSecretBytes = 192;
constexpr std::size_t kScrambleSecretAt = kSecretBytes - kStripeBytes;
constexpr std::uint32_t kPrime32First = 0x9E3779B1;
extern const std::uint8_t kXxh3Secret[kSecretBytes];

#if defined(__x86_64__)
std::uint32_t crc32c_sse42(const std::uint8_t* data, std::uint8_t* target, std::size_t size_bytes,
                           std::uint32_t state);
extern const Xxh3Level kXxh3Avx2;
#endif

inline std::uint64_t load_u64(const std::uint8_t* from) {
  std::uint64_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

}  // namespace stoker
