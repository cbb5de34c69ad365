// XXH3-64 of long input, by its specification (xxHash, doc/xxhash_spec.md, "XXH3 Algorithm for long inputs"), seed 0.
#include "stoker/check.hpp"
#include "stoker/cpu.hpp"
#include "xxh3_parts.hpp"

namespace stoker {

// The default secret of the specification. No size told here: a byte too few would not compile.
const std::uint8_t kXxh3Secret[] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

namespace {

constexpr std::size_t kLastStripeSecretAt = kSecretBytes - kStripeBytes - 7;

void add_stripe(std::uint64_t* accumulators, const std::uint8_t* data, const std::uint8_t* secret) {
  for (std::size_t lane = 0; lane < 8; ++lane) {
    const std::uint64_t word = load_u64(data + 8 * lane);
    const std::uint64_t keyed = word ^ load_u64(secret + 8 * lane);
    accumulators[lane ^ 1] += word;
    accumulators[lane] += (keyed & 0xFFFFFFFF) * (keyed >> 32);
  }
}

void accumulate(std::uint64_t* accumulators, const std::uint8_t* data, std::uint8_t* target, std::size_t stripes) {
  for (std::size_t stripe = 0; stripe < stripes; ++stripe) {
    const std::size_t at = stripe * kStripeBytes;
    if (target != nullptr) std::memcpy(target + at, data + at, kStripeBytes);
    add_stripe(accumulators, data + at, kXxh3Secret + 8 * stripe);
  }
}

void scramble(std::uint64_t* accumulators) {
  for (std::size_t lane = 0; lane < 8; ++lane) {
    std::uint64_t& accumulator = accumulators[lane];
    accumulator ^= accumulator >> 47;
    accumulator ^= load_u64(kXxh3Secret + kScrambleSecretAt + 8 * lane);
    accumulator *= kPrime32First;
  }
}

constexpr Xxh3Level kXxh3Scalar = {accumulate, scramble};

const Xxh3Level& level_in_use() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::avx2) return kXxh3Avx2;
#endif
  return kXxh3Scalar;
}

}  // namespace

std::uint64_t xxh3_merged(const std::uint64_t* accumulators, const std::uint8_t* secret, std::uint64_t start) {
  std::uint64_t hash = start;
  for (std::size_t pair = 0; pair < 4; ++pair) {
    const std::uint64_t* lanes = accumulators + 2 * pair;
    hash += folded_product(lanes[0] ^ load_u64(secret + 16 * pair), lanes[1] ^ load_u64(secret + 16 * pair + 8));
  }
  return xxh3_avalanche(hash);
}

void xxh3_long(const std::uint8_t* source, std::uint8_t* target, std::size_t size_bytes, std::uint64_t* accumulators) {
  const Xxh3Level& level = level_in_use();
  constexpr std::uint64_t kStart[8] = {kPrime32Third,  kPrime64First,  kPrime64Second, kPrime64Third,
                                       kPrime64Fourth, kPrime32Second, kPrime64Fifth,  kPrime32First};
  std::memcpy(accumulators, kStart, sizeof kStart);
  const auto behind = [&](std::size_t at) { return target == nullptr ? nullptr : target + at; };
  constexpr std::size_t block_bytes = kBlockStripes * kStripeBytes;
  std::size_t at = 0;
  // The last byte never belongs to a whole block: the last stripe, which may overlap, is taken in another way.
  for (; size_bytes - at > block_bytes; at += block_bytes) {
    level.accumulate(accumulators, source + at, behind(at), kBlockStripes);
    level.scramble(accumulators);
  }
  const std::size_t stripes = (size_bytes - at - 1) / kStripeBytes;
  level.accumulate(accumulators, source + at, behind(at), stripes);
  at += stripes * kStripeBytes;
  const std::uint8_t* last = source;
  if (target != nullptr) {
    std::memcpy(target + at, source + at, size_bytes - at);
    last = target;  // what was copied is what is hashed
  }
  add_stripe(accumulators, last + size_bytes - kStripeBytes, kXxh3Secret + kLastStripeSecretAt);
}

std::uint64_t copy_xxh3(const std::uint8_t* source, std::uint8_t* target, std::size_t size_bytes) {
  alignas(64) std::uint64_t accumulators[8];
  xxh3_long(source, target, size_bytes, accumulators);
  return xxh3_merged(accumulators, kXxh3Secret + kMergeSecretAt, size_bytes * kPrime64First);
}

}  // namespace stoker
