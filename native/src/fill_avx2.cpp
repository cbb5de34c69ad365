#include <immintrin.h>

#include "fill_rows.hpp"

namespace stoker {
namespace {

constexpr std::size_t kVector = 32;

__m256i load(const std::uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
void store_anywhere(std::uint8_t* to, __m256i vector) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), vector);
}
__m256i spread(std::uint64_t word) { return _mm256_set1_epi64x(static_cast<long long>(word)); }

void store_aligned(std::uint8_t* to, __m256i vector) { _mm256_store_si256(reinterpret_cast<__m256i*>(to), vector); }

// How many bytes lie before the first aligned vector: those, and the last vector, are stored unaligned and overlap.
std::size_t bytes_before(const std::uint8_t* out) {
  return (kVector - reinterpret_cast<std::uintptr_t>(out) % kVector) % kVector;
}

void mix(std::uint8_t* out, const std::uint8_t* tile, std::size_t size_bytes, std::uint64_t key, std::uint64_t mask) {
  if (size_bytes < kVector) return mix_few(out, tile, size_bytes, key, mask);
  const auto mixed = [tile](std::size_t at, __m256i keys, __m256i masks) {
    return _mm256_and_si256(_mm256_xor_si256(load(tile + at), keys), masks);
  };
  std::size_t at = bytes_before(out);
  if (at > 0) store_anywhere(out, mixed(0, spread(key), spread(mask)));
  const __m256i keys = spread(advanced(key, at));
  const __m256i masks = spread(advanced(mask, at));
  for (; at + 4 * kVector <= size_bytes; at += 4 * kVector) {
    const __m256i first = mixed(at, keys, masks);
    const __m256i second = mixed(at + kVector, keys, masks);
    const __m256i third = mixed(at + 2 * kVector, keys, masks);
    const __m256i fourth = mixed(at + 3 * kVector, keys, masks);
    store_aligned(out + at, first);
    store_aligned(out + at + kVector, second);
    store_aligned(out + at + 2 * kVector, third);
    store_aligned(out + at + 3 * kVector, fourth);
  }
  for (; at + kVector <= size_bytes; at += kVector) store_aligned(out + at, mixed(at, keys, masks));
  if (at == size_bytes) return;
  const std::size_t last = size_bytes - kVector;
  store_anywhere(out + last, mixed(last, spread(advanced(key, last)), spread(advanced(mask, last))));
}

void repeat(std::uint8_t* out, std::size_t size_bytes, std::uint64_t word) {
  if (size_bytes < kVector) return repeat_few(out, size_bytes, word);
  std::size_t at = bytes_before(out);
  if (at > 0) store_anywhere(out, spread(word));
  const __m256i words = spread(advanced(word, at));
  for (; at + kVector <= size_bytes; at += kVector) store_aligned(out + at, words);
  const std::size_t last = size_bytes - kVector;
  if (at < size_bytes) store_anywhere(out + last, spread(advanced(word, last)));
}

void stream(std::uint8_t* out, const std::uint8_t* from, std::size_t size_bytes) {
  for (std::size_t at = 0; at < size_bytes; at += kVector) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(out + at), load(from + at));
  }
}

}  // namespace

const FillRows kFillRowsAvx2 = {mix, repeat, stream};

}  // namespace stoker
