// Checksums, alone and in one pass with a copy. The plain twin is stoker/kernels/plain_check.py.
// No address need be aligned; source and target of a copy do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `data`, going on from `value`, the CRC of what came before it.
std::uint32_t crc32c(const std::uint8_t* data, std::size_t size_bytes, std::uint32_t value);

// Copies, and returns the CRC-32C of what was copied.
std::uint32_t copy_crc32c(const std::uint8_t* source, std::uint8_t* target, std::size_t size_bytes,
                          std::uint32_t value);

// XXH3-64 with seed 0 (xxHash 0.8) of data longer than this; shorter data go other ways there and are not for here.
constexpr std::size_t kXxh3ShortBytes = 240;

// Copies, and returns the XXH3-64 of what was copied: more than kXxh3ShortBytes.
std::uint64_t copy_xxh3(const std::uint8_t* source, std::uint8_t* target, std::size_t size_bytes);

struct Hash128 {
  std::uint64_t low, high;
};

// XXH3-128 with seed 0 (xxHash 0.8) of data of any length.
Hash128 xxh3_128(const std::uint8_t* data, std::size_t size_bytes);

// Writes its 16 bytes as xxHash prints them: the high word first, each from its highest byte down.
void write_digest(const Hash128& hash, std::uint8_t* digest);

}  // namespace stoker
