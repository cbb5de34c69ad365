#include <immintrin.h>

#include "wire_rows.hpp"

namespace stoker {
namespace {

__m256i load(const std::uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

std::uint64_t bits_of_bytes(__m256i equal) { return static_cast<std::uint32_t>(_mm256_movemask_epi8(equal)); }

std::uint64_t bytes_mask(const std::uint8_t* base, const std::uint8_t* fresh) {
  const std::uint64_t low = bits_of_bytes(_mm256_cmpeq_epi8(load(base), load(fresh)));
  const std::uint64_t high = bits_of_bytes(_mm256_cmpeq_epi8(load(base + 32), load(fresh + 32)));
  return ~(high << 32 | low);
}

// Packs two vectors of 16-bit answers to one of 8-bit answers, in order.
std::uint64_t bits_of_pairs(const std::uint8_t* base, const std::uint8_t* fresh) {
  const __m256i low = _mm256_cmpeq_epi16(load(base), load(fresh));
  const __m256i high = _mm256_cmpeq_epi16(load(base + 32), load(fresh + 32));
  return bits_of_bytes(_mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8));
}

std::uint64_t pairs_mask(const std::uint8_t* base, const std::uint8_t* fresh) {
  return ~(bits_of_pairs(base + 64, fresh + 64) << 32 | bits_of_pairs(base, fresh));
}

std::uint64_t fours_mask(const std::uint8_t* base, const std::uint8_t* fresh) {
  std::uint64_t equal = 0;
  for (unsigned part = 0; part < 8; ++part, base += 32, fresh += 32) {
    const __m256i answers = _mm256_cmpeq_epi32(load(base), load(fresh));
    equal |= static_cast<std::uint64_t>(_mm256_movemask_ps(_mm256_castsi256_ps(answers))) << (8 * part);
  }
  return ~equal;
}

std::uint64_t eights_mask(const std::uint8_t* base, const std::uint8_t* fresh) {
  std::uint64_t equal = 0;
  for (unsigned part = 0; part < 16; ++part, base += 32, fresh += 32) {
    const __m256i answers = _mm256_cmpeq_epi64(load(base), load(fresh));
    equal |= static_cast<std::uint64_t>(_mm256_movemask_pd(_mm256_castsi256_pd(answers))) << (4 * part);
  }
  return ~equal;
}

}  // namespace

const WireRows kWireRowsAvx2 = {{bytes_mask, pairs_mask, fours_mask, eights_mask}, {}, {}, {}};

}  // namespace stoker
