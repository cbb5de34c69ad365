// XXH3-128, seed 0, by its specification (xxHash, doc/xxhash_spec.md): data of any length.
#include <bit>

#include "stoker/check.hpp"
#include "xxh3_parts.hpp"

namespace stoker {
namespace {

constexpr std::uint64_t kMixSecond = 0x9FB21C651E98DF25;
constexpr std::size_t kMiddleSecretAt = 3;
constexpr std::size_t kMiddleLastSecretAt = 136 - 17 - 16;

std::uint32_t load_u32(const std::uint8_t* from) {
  std::uint32_t word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

std::uint64_t secret_pair(std::size_t at) { return load_u64(kXxh3Secret + at) ^ load_u64(kXxh3Secret + at + 8); }

std::uint64_t avalanche_of_xxh64(std::uint64_t hash) {
  hash ^= hash >> 33;
  hash *= kPrime64Second;
  hash ^= hash >> 29;
  hash *= kPrime64Third;
  return hash ^ (hash >> 32);
}

Hash128 up_to_3(const std::uint8_t* data, std::size_t size) {
  const auto first = std::uint32_t{data[0]}, middle = std::uint32_t{data[size >> 1]}, last = std::uint32_t{data[size - 1]};
  const std::uint32_t low = first << 16 | middle << 24 | last | static_cast<std::uint32_t>(size << 8);
  const std::uint32_t high = std::rotl(__builtin_bswap32(low), 13);
  const std::uint32_t low_key = load_u32(kXxh3Secret) ^ load_u32(kXxh3Secret + 4);
  const std::uint32_t high_key = load_u32(kXxh3Secret + 8) ^ load_u32(kXxh3Secret + 12);
  return {avalanche_of_xxh64(std::uint64_t{low} ^ low_key), avalanche_of_xxh64(std::uint64_t{high} ^ high_key)};
}

Hash128 up_to_8(const std::uint8_t* data, std::size_t size) {
  const std::uint64_t both = load_u32(data) + (std::uint64_t{load_u32(data + size - 4)} << 32);
  Product mixed = product(both ^ secret_pair(16), kPrime64First + (size << 2));
  mixed.high += mixed.low << 1;
  mixed.low ^= mixed.high >> 3;
  mixed.low ^= mixed.low >> 35;
  mixed.low *= kMixSecond;
  mixed.low ^= mixed.low >> 28;
  return {mixed.low, xxh3_avalanche(mixed.high)};
}

Hash128 up_to_16(const std::uint8_t* data, std::size_t size) {
  const std::uint64_t first = load_u64(data), last = load_u64(data + size - 8);
  Product mixed = product(first ^ last ^ secret_pair(32), kPrime64First);
  mixed.low += std::uint64_t{size - 1} << 54;
  const std::uint64_t keyed = last ^ secret_pair(48);
  mixed.high += keyed + (keyed & 0xFFFFFFFF) * (kPrime32Second - 1);
  mixed.low ^= __builtin_bswap64(mixed.high);
  Product again = product(mixed.low, kPrime64Second);
  again.high += mixed.high * kPrime64Second;
  return {xxh3_avalanche(again.low), xxh3_avalanche(again.high)};
}

std::uint64_t mix_16(const std::uint8_t* data, const std::uint8_t* secret) {
  return folded_product(load_u64(data) ^ load_u64(secret), load_u64(data + 8) ^ load_u64(secret + 8));
}

void mix_32(Hash128& hash, const std::uint8_t* first, const std::uint8_t* second, const std::uint8_t* secret) {
  hash.low += mix_16(first, secret);
  hash.low ^= load_u64(second) + load_u64(second + 8);
  hash.high += mix_16(second, secret + 16);
  hash.high ^= load_u64(first) + load_u64(first + 8);
}

Hash128 finished(const Hash128& hash, std::size_t size) {
  const std::uint64_t high = hash.low * kPrime64First + hash.high * kPrime64Fourth + size * kPrime64Second;
  return {xxh3_avalanche(hash.low + hash.high), std::uint64_t{0} - xxh3_avalanche(high)};
}

Hash128 up_to_128(const std::uint8_t* data, std::size_t size) {
  Hash128 hash{size * kPrime64First, 0};
  for (std::size_t pair = (size - 1) / 32 + 1; pair-- > 0;) {
    mix_32(hash, data + 16 * pair, data + size - 16 * (pair + 1), kXxh3Secret + 32 * pair);
  }
  return finished(hash, size);
}

Hash128 up_to_240(const std::uint8_t* data, std::size_t size) {
  Hash128 hash{size * kPrime64First, 0};
  for (std::size_t at = 0; at < 128; at += 32) mix_32(hash, data + at, data + at + 16, kXxh3Secret + at);
  hash = {xxh3_avalanche(hash.low), xxh3_avalanche(hash.high)};
  for (std::size_t at = 128; at + 32 <= size; at += 32) {
    mix_32(hash, data + at, data + at + 16, kXxh3Secret + kMiddleSecretAt + at - 128);
  }
  mix_32(hash, data + size - 16, data + size - 32, kXxh3Secret + kMiddleLastSecretAt);
  return finished(hash, size);
}

Hash128 longer(const std::uint8_t* data, std::size_t size) {
  alignas(64) std::uint64_t accumulators[8];
  xxh3_long(data, nullptr, size, accumulators);
  const std::uint8_t* const high_secret = kXxh3Secret + kSecretBytes - kStripeBytes - kMergeSecretAt;
  return {xxh3_merged(accumulators, kXxh3Secret + kMergeSecretAt, size * kPrime64First),
          xxh3_merged(accumulators, high_secret, ~(size * kPrime64Second))};
}

}  // namespace

Hash128 xxh3_128(const std::uint8_t* data, std::size_t size_bytes) {
  if (size_bytes > kXxh3ShortBytes) return longer(data, size_bytes);
  if (size_bytes > 128) return up_to_240(data, size_bytes);
  if (size_bytes > 16) return up_to_128(data, size_bytes);
  if (size_bytes > 8) return up_to_16(data, size_bytes);
  if (size_bytes > 3) return up_to_8(data, size_bytes);
  if (size_bytes > 0) return up_to_3(data, size_bytes);
  return {avalanche_of_xxh64(secret_pair(64)), avalanche_of_xxh64(secret_pair(80))};
}

void write_digest(const Hash128& hash, std::uint8_t* digest) {
  const std::uint64_t words[2] = {__builtin_bswap64(hash.high), __builtin_bswap64(hash.low)};
  std::memcpy(digest, words, sizeof words);
}

}  // namespace stoker
