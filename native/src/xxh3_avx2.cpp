#include <immintrin.h>

#include "check_levels.hpp"

namespace stoker {
namespace {

__m256i load(const std::uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

// Four lanes of a stripe: each takes its neighbour's word, and the product of the two halves of its own, keyed.
__m256i added(__m256i accumulator, __m256i words, __m256i secret) {
  const __m256i keyed = _mm256_xor_si256(words, secret);
  const __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
  const __m256i swapped = _mm256_shuffle_epi32(words, _MM_SHUFFLE(1, 0, 3, 2));
  return _mm256_add_epi64(accumulator, _mm256_add_epi64(product, swapped));
}

__m256i scrambled(__m256i accumulator, __m256i secret) {
  const __m256i mixed = _mm256_xor_si256(_mm256_xor_si256(accumulator, _mm256_srli_epi64(accumulator, 47)), secret);
  const __m256i prime = _mm256_set1_epi32(static_cast<int>(kPrime32First));
  const __m256i low = _mm256_mul_epu32(mixed, prime);
  const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(mixed, 32), prime);
  return _mm256_add_epi64(low, _mm256_slli_epi64(high, 32));
}

template <bool copy>
void take(std::uint64_t* accumulators, const std::uint8_t* data, [[maybe_unused]] std::uint8_t* target,
          std::size_t stripes) {
  auto* kept = reinterpret_cast<__m256i*>(accumulators);
  __m256i first = _mm256_load_si256(kept);
  __m256i second = _mm256_load_si256(kept + 1);
  for (std::size_t stripe = 0; stripe < stripes; ++stripe) {
    const std::size_t at = stripe * kStripeBytes;
    const std::uint8_t* secret = kXxh3Secret + 8 * stripe;
    const __m256i low = load(data + at);
    const __m256i high = load(data + at + 32);
    if constexpr (copy) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + at), low);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + at + 32), high);
    }
    first = added(first, low, load(secret));
    second = added(second, high, load(secret + 32));
  }
  _mm256_store_si256(kept, first);
  _mm256_store_si256(kept + 1, second);
}

void accumulate(std::uint64_t* accumulators, const std::uint8_t* data, std::uint8_t* target, std::size_t stripes) {
  if (target == nullptr) {
    take<false>(accumulators, data, target, stripes);
  } else {
    take<true>(accumulators, data, target, stripes);
  }
}

void scramble(std::uint64_t* accumulators) {
  auto* kept = reinterpret_cast<__m256i*>(accumulators);
  const std::uint8_t* secret = kXxh3Secret + kScrambleSecretAt;
  _mm256_store_si256(kept, scrambled(_mm256_load_si256(kept), load(secret)));
  _mm256_store_si256(kept + 1, scrambled(_mm256_load_si256(kept + 1), load(secret + 32)));
}

}  // namespace

const Xxh3Level kXxh3Avx2 = {accumulate, scramble};

}  // namespace stoker
