#include <immintrin.h>

#include <bit>

#include "delta_rows.hpp"
#include "wire_rows.hpp"

namespace stoker {
namespace {

constexpr std::size_t kVectorBytes = 64;
// Masks with no more elements than this are emitted one by one.
constexpr std::size_t kFew = 3;

__m512i load(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
void store(std::uint8_t* to, __m512i vector) { _mm512_storeu_si512(to, vector); }

// The operations on a vector of elements of some width; `narrow` is the lowest byte of each, `widen` its inverse.
template <std::size_t kWidth>
struct Lanes;

template <>
struct Lanes<1> {
  static std::uint64_t differ(__m512i a, __m512i b) { return _mm512_cmpneq_epi8_mask(a, b); }
  static __m512i compress(std::uint64_t mask, __m512i v) { return _mm512_maskz_compress_epi8(mask, v); }
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi8(a, b); }
  static __m512i subtract(__m512i a, __m512i b) { return _mm512_sub_epi8(a, b); }
  static __m512i sign(__m512i v) { return _mm512_movm_epi8(_mm512_movepi8_mask(v)); }
  static __m512i halve(__m512i v) {
    return _mm512_and_si512(_mm512_srli_epi16(v, 1), _mm512_set1_epi8(0x7F));
  }
  static __m512i one() { return _mm512_set1_epi8(1); }
  static void narrow(std::uint8_t* to, __m512i v, unsigned) { store(to, v); }
  static __m512i widen(const std::uint8_t* from, unsigned) { return load(from); }
};

template <>
struct Lanes<2> {
  static std::uint64_t differ(__m512i a, __m512i b) { return _mm512_cmpneq_epi16_mask(a, b); }
  static __m512i compress(std::uint64_t mask, __m512i v) {
    return _mm512_maskz_compress_epi16(static_cast<__mmask32>(mask), v);
  }
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
  static __m512i subtract(__m512i a, __m512i b) { return _mm512_sub_epi16(a, b); }
  static __m512i sign(__m512i v) { return _mm512_srai_epi16(v, 15); }
  static __m512i halve(__m512i v) { return _mm512_srli_epi16(v, 1); }
  static __m512i one() { return _mm512_set1_epi16(1); }
  static void narrow(std::uint8_t* to, __m512i v, unsigned shift) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi16_epi8(_mm512_srli_epi16(v, shift)));
  }
  static __m512i widen(const std::uint8_t* from, unsigned shift) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_slli_epi16(_mm512_cvtepu8_epi16(bytes), shift);
  }
};

template <>
struct Lanes<4> {
  static std::uint64_t differ(__m512i a, __m512i b) { return _mm512_cmpneq_epi32_mask(a, b); }
  static __m512i compress(std::uint64_t mask, __m512i v) {
    return _mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), v);
  }
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
  static __m512i subtract(__m512i a, __m512i b) { return _mm512_sub_epi32(a, b); }
  static __m512i sign(__m512i v) { return _mm512_srai_epi32(v, 31); }
  static __m512i halve(__m512i v) { return _mm512_srli_epi32(v, 1); }
  static __m512i one() { return _mm512_set1_epi32(1); }
  static void narrow(std::uint8_t* to, __m512i v, unsigned shift) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_srli_epi32(v, shift)));
  }
  static __m512i widen(const std::uint8_t* from, unsigned shift) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), shift);
  }
};

template <>
struct Lanes<8> {
  static std::uint64_t differ(__m512i a, __m512i b) { return _mm512_cmpneq_epi64_mask(a, b); }
  static __m512i compress(std::uint64_t mask, __m512i v) {
    return _mm512_maskz_compress_epi64(static_cast<__mmask8>(mask), v);
  }
  static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi64(a, b); }
  static __m512i subtract(__m512i a, __m512i b) { return _mm512_sub_epi64(a, b); }
  static __m512i sign(__m512i v) { return _mm512_srai_epi64(v, 63); }
  static __m512i halve(__m512i v) { return _mm512_srli_epi64(v, 1); }
  static __m512i one() { return _mm512_set1_epi64(1); }
  static void narrow(std::uint8_t* to, __m512i v, unsigned shift) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm512_cvtepi64_epi8(_mm512_srli_epi64(v, shift)));
  }
  static __m512i widen(const std::uint8_t* from, unsigned shift) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm512_slli_epi64(_mm512_cvtepu8_epi64(bytes), shift);
  }
};

template <std::size_t kWidth>
std::uint64_t mask_of_64(const std::uint8_t* base, const std::uint8_t* fresh) {
  std::uint64_t mask = 0;
  for (std::size_t part = 0; part < kWidth; ++part) {
    const std::size_t at = kVectorBytes * part;
    mask |= Lanes<kWidth>::differ(load(base + at), load(fresh + at)) << (kVectorBytes / kWidth * part);
  }
  return mask;
}

// The gaps of more than one element of a mask: only the first may be longer than what one byte says.
void emit_gaps(std::uint64_t mask, std::size_t first, Emission& to) {
  alignas(64) static constexpr std::uint8_t kIndices[64] = {
      0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
      22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
      44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
  const __m512i indices = load(kIndices);
  const __m512i places = _mm512_maskz_compress_epi8(mask, indices);
  const __m512i before = _mm512_permutexvar_epi8(_mm512_sub_epi8(indices, _mm512_set1_epi8(1)), places);
  const __m512i gaps = _mm512_sub_epi8(_mm512_sub_epi8(places, before), _mm512_set1_epi8(1));
  std::size_t gap = first + lowest_bit(mask) - to.next;
  for (; gap >= kGapSkip; gap -= kGapSkip) *to.gaps++ = kGapSkip;
  store(to.gaps, gaps);
  *to.gaps = static_cast<std::uint8_t>(gap);
  to.gaps += count_bits(mask);
  to.next = first + static_cast<std::size_t>(std::bit_width(mask));
}

template <std::size_t kWidth>
void emit(std::uint64_t mask, std::size_t first, Emission& to) {
  constexpr std::size_t kElements = kVectorBytes / kWidth;
  const std::uint8_t* const was = to.base + kWidth * first;
  const std::uint8_t* const is = to.fresh + kWidth * first;
  emit_gaps(mask, first, to);
  if (count_bits(mask) <= kFew) {
    for (; mask != 0; mask &= mask - 1, to.base_values += kWidth, to.fresh_values += kWidth) {
      std::memcpy(to.base_values, was + kWidth * lowest_bit(mask), kWidth);
      std::memcpy(to.fresh_values, is + kWidth * lowest_bit(mask), kWidth);
    }
    return;
  }
  for (std::size_t part = 0; part < kWidth; ++part, mask >>= kElements % 64) {
    const std::uint64_t here = kElements == 64 ? mask : mask & ((std::uint64_t{1} << kElements % 64) - 1);
    store(to.base_values, Lanes<kWidth>::compress(here, load(was + kVectorBytes * part)));
    store(to.fresh_values, Lanes<kWidth>::compress(here, load(is + kVectorBytes * part)));
    to.base_values += kWidth * count_bits(here);
    to.fresh_values += kWidth * count_bits(here);
  }
}

template <std::size_t kWidth>
std::size_t encode(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t count, bool ulps,
                   std::uint8_t* planes) {
  using L = Lanes<kWidth>;
  constexpr std::size_t kElements = kVectorBytes / kWidth;
  std::size_t index = 0;
  for (; index + kElements <= count; index += kElements) {
    const __m512i was = load(base + kWidth * index);
    const __m512i is = load(fresh + kWidth * index);
    const __m512i moved = L::subtract(is, was);
    const __m512i code =
        ulps ? _mm512_xor_si512(L::add(moved, moved), L::sign(moved)) : _mm512_xor_si512(was, is);
    for (std::size_t plane = 0; plane < kWidth; ++plane) {
      L::narrow(planes + plane * count + index, code, static_cast<unsigned>(8 * plane));
    }
  }
  return index;
}

template <std::size_t kWidth>
std::size_t apply(std::uint8_t* values, std::size_t count, bool ulps, const std::uint8_t* planes) {
  using L = Lanes<kWidth>;
  constexpr std::size_t kElements = kVectorBytes / kWidth;
  const __m512i zero = _mm512_setzero_si512();
  std::size_t index = 0;
  for (; index + kElements <= count; index += kElements) {
    __m512i code = zero;
    for (std::size_t plane = 0; plane < kWidth; ++plane) {
      code = _mm512_or_si512(code, L::widen(planes + plane * count + index, static_cast<unsigned>(8 * plane)));
    }
    const __m512i was = load(values + kWidth * index);
    const __m512i flip = L::subtract(zero, _mm512_and_si512(code, L::one()));
    const __m512i is = ulps ? L::add(was, _mm512_xor_si512(L::halve(code), flip)) : _mm512_xor_si512(was, code);
    store(values + kWidth * index, is);
  }
  return index;
}

}  // namespace

const WireRows kWireRowsAvx512 = {{mask_of_64<1>, mask_of_64<2>, mask_of_64<4>, mask_of_64<8>},
                                  {emit<1>, emit<2>, emit<4>, emit<8>},
                                  {encode<1>, encode<2>, encode<4>, encode<8>},
                                  {apply<1>, apply<2>, apply<4>, apply<8>}};

}  // namespace stoker
