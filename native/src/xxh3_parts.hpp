// What XXH3-64 and XXH3-128 share; names and numbers of xxHash, doc/xxhash_spec.md.
#pragma once

#include "check_levels.hpp"

namespace stoker {

constexpr std::uint64_t kPrime32Second = 0x85EBCA77;
constexpr std::uint64_t kPrime32Third = 0xC2B2AE3D;
constexpr std::uint64_t kPrime64First = 0x9E3779B185EBCA87;
constexpr std::uint64_t kPrime64Second = 0xC2B2AE3D27D4EB4F;
constexpr std::uint64_t kPrime64Third = 0x165667B19E3779F9;
constexpr std::uint64_t kPrime64Fourth = 0x85EBCA77C2B2AE63;
constexpr std::uint64_t kPrime64Fifth = 0x27D4EB2F165667C5;
constexpr std::uint64_t kAvalanche = 0x165667919E3779F9;
constexpr std::size_t kMergeSecretAt = 11;

struct Product {
  std::uint64_t low, high;
};

inline Product product(std::uint64_t left, std::uint64_t right) {
  __extension__ using Wide = unsigned __int128;
  const Wide wide = static_cast<Wide>(left) * right;
  return {static_cast<std::uint64_t>(wide), static_cast<std::uint64_t>(wide >> 64)};
}

inline std::uint64_t folded_product(std::uint64_t left, std::uint64_t right) {
  const Product both = product(left, right);
  return both.low ^ both.high;
}

inline std::uint64_t xxh3_avalanche(std::uint64_t hash) {
  hash ^= hash >> 37;
  hash *= kAvalanche;
  return hash ^ (hash >> 32);
}

// Takes all of the data, more than kXxh3ShortBytes, into the eight accumulators; copies them unless target is nullptr.
void xxh3_long(const std::uint8_t* source, std::uint8_t* target, std::size_t size_bytes, std::uint64_t* accumulators);
std::uint64_t xxh3_merged(const std::uint64_t* accumulators, const std::uint8_t* secret, std::uint64_t start);

}  // namespace stoker
