#include <immintrin.h>

#include <array>

#include "delta_rows.hpp"

namespace stoker {
namespace {

// Lines with no more changed bytes than this go byte by byte, without a branch for each.
constexpr std::size_t kFewBytes = 2;

using Shuffles = std::array<std::array<std::uint8_t, 8>, 256>;

// For each 8 bits, the shuffle that brings the chosen bytes of 8 together.
constexpr Shuffles gathering() {
  Shuffles table{};
  for (std::size_t bits = 0; bits < 256; ++bits) {
    std::size_t count = 0;
    for (std::uint8_t byte = 0; byte < 8; ++byte) {
      if ((bits >> byte & 1) != 0) table[bits][count++] = byte;
    }
  }
  return table;
}

// For each 8 bits, the shuffle that spreads bytes to the chosen places, with 0x80 (a zero) elsewhere.
constexpr Shuffles scattering() {
  Shuffles table{};
  for (std::size_t bits = 0; bits < 256; ++bits) {
    std::uint8_t count = 0;
    for (std::size_t byte = 0; byte < 8; ++byte) table[bits][byte] = (bits >> byte & 1) != 0 ? count++ : 0x80;
  }
  return table;
}

alignas(64) constexpr Shuffles kGather = gathering();
alignas(64) constexpr Shuffles kScatter = scattering();

__m256i load(const std::uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
void store(std::uint8_t* to, __m256i vector) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), vector); }
__m128i load_half(const std::uint8_t* from) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)); }
void store_half(std::uint8_t* to, __m128i vector) { _mm_storel_epi64(reinterpret_cast<__m128i*>(to), vector); }

void copy_line(std::uint8_t* to, const std::uint8_t* from) {
  const __m256i low = load(from);
  const __m256i high = load(from + 32);
  store(to, low);
  store(to + 32, high);
}

// All ones where a byte is equal.
struct Equal {
  __m256i low;
  __m256i high;
};

Equal equal_bytes(const std::uint8_t* base, const std::uint8_t* fresh) {
  return {_mm256_cmpeq_epi8(load(base), load(fresh)), _mm256_cmpeq_epi8(load(base + 32), load(fresh + 32))};
}

__m256i equal_halves(const std::uint8_t* base, const std::uint8_t* fresh) {
  const Equal equal = equal_bytes(base, fresh);
  return _mm256_and_si256(equal.low, equal.high);
}

std::uint64_t differing(const std::uint8_t* base, const std::uint8_t* fresh) {
  const Equal equal = equal_bytes(base, fresh);
  const auto low = static_cast<std::uint32_t>(_mm256_movemask_epi8(equal.low));
  const auto high = static_cast<std::uint32_t>(_mm256_movemask_epi8(equal.high));
  return ~(std::uint64_t{high} << 32 | low);
}

// Which of four lines differ, in the low bits. Saturation leaves a pair of bytes all ones only where both were, so
// after two packs each line has one word of 32 bits in either lane. No branch: what differs cannot be foretold.
unsigned dirty_of_four(const std::uint8_t* base, const std::uint8_t* fresh) {
  const auto line = [&](std::size_t i) { return equal_halves(base + kLineBytes * i, fresh + kLineBytes * i); };
  const __m256i first = _mm256_packs_epi16(line(0), line(1));
  const __m256i second = _mm256_packs_epi16(line(2), line(3));
  const __m256i clean = _mm256_cmpeq_epi32(_mm256_packs_epi16(first, second), _mm256_set1_epi32(-1));
  const auto bits = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(clean)));
  return ~(bits & bits >> 4) & 0xFU;
}

std::uint64_t compare(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t lines) {
  std::uint64_t bitmap = 0;
  std::size_t line = 0;
  for (; line + 4 <= lines; line += 4) {
    bitmap |= std::uint64_t{dirty_of_four(base + kLineBytes * line, fresh + kLineBytes * line)} << line;
  }
  for (; line < lines; ++line) {
    const bool dirty = differing(base + kLineBytes * line, fresh + kLineBytes * line) != 0;
    bitmap |= std::uint64_t{dirty} << line;
  }
  return bitmap;
}

// The few bytes of a mask, without a branch for each: what lies beyond them in `out` is overwritten later.
void compact_few(const std::uint8_t* from, std::uint64_t mask, std::uint8_t* out) {
  constexpr std::uint64_t stop = std::uint64_t{1} << 63;
  for (std::size_t count = 0; count < kFewBytes; ++count, mask &= mask - 1) {
    out[count] = from[lowest_bit(mask | stop)];
  }
}

// Eight times eight bytes; each store covers eight, of which only those of the mask count.
void compact_many(const std::uint8_t* from, std::uint64_t mask, std::uint8_t* out) {
  for (std::size_t at = 0; at < kLineBytes; at += 8, mask >>= 8) {
    const auto bits = static_cast<std::uint8_t>(mask);
    store_half(out, _mm_shuffle_epi8(load_half(from + at), load_half(kGather[bits].data())));
    out += count_bits(bits);
  }
}

template <bool kUpdate>
DeltaOut compact_lines(std::uint8_t* base, const std::uint8_t* fresh, std::uint64_t bitmap, DeltaOut out) {
  for (; bitmap != 0; bitmap &= bitmap - 1) {
    const std::size_t at = kLineBytes * lowest_bit(bitmap);
    const std::uint64_t mask = differing(base + at, fresh + at);
    const std::size_t count = count_bits(mask);
    store_u64(out.masks, mask);
    out.masks += kWordBytes;
    if (count <= kFewBytes) {
      compact_few(fresh + at, mask, out.bytes);
    } else if (count == kLineBytes) {
      copy_line(out.bytes, fresh + at);
    } else {
      compact_many(fresh + at, mask, out.bytes);
    }
    out.bytes += count;
    if constexpr (kUpdate) copy_line(base + at, fresh + at);
  }
  return out;
}

DeltaOut compact(std::uint8_t* base, const std::uint8_t* fresh, std::uint64_t bitmap, bool update, DeltaOut out) {
  return update ? compact_lines<true>(base, fresh, bitmap, out) : compact_lines<false>(base, fresh, bitmap, out);
}

std::uint64_t diff_block(std::uint8_t* base, const std::uint8_t* fresh, std::size_t lines, DiffHow how, DeltaOut& out) {
  const std::uint64_t bitmap = compare(base, fresh, lines);
  if (bitmap != 0) out = compact(base, fresh, bitmap, how.update, out);
  return bitmap;
}

void copy(std::uint8_t* page, const std::uint8_t* image, std::uint64_t bitmap) {
  for (; bitmap != 0; bitmap &= bitmap - 1) {
    const std::size_t at = kLineBytes * lowest_bit(bitmap);
    copy_line(page + at, image + at);
  }
}

// Reads eight bytes at a time: 64 must lie behind `bytes`.
void expand_many(std::uint8_t* line, std::uint64_t mask, const std::uint8_t* bytes) {
  for (std::size_t at = 0; at < kLineBytes; at += 8, mask >>= 8) {
    const auto bits = static_cast<std::uint8_t>(mask);
    const __m128i places = load_half(kScatter[bits].data());
    const __m128i spread = _mm_shuffle_epi8(load_half(bytes), places);
    // A place keeps what it holds where its shuffle byte has the high bit.
    store_half(line + at, _mm_blendv_epi8(spread, load_half(line + at), places));
    bytes += count_bits(bits);
  }
}

std::size_t expand(std::uint8_t* page, std::uint64_t bitmap, const std::uint8_t* masks, const std::uint8_t* bytes,
                   const std::uint8_t* end) {
  const std::uint8_t* const begin = bytes;
  for (; bitmap != 0; bitmap &= bitmap - 1, masks += kWordBytes) {
    std::uint8_t* const line = page + kLineBytes * lowest_bit(bitmap);
    const std::uint64_t mask = load_u64(masks);
    const std::size_t count = count_bits(mask);
    if (count == kLineBytes) {
      copy_line(line, bytes);
    } else if (count > kFewBytes && static_cast<std::size_t>(end - bytes) >= kLineBytes) {
      expand_many(line, mask, bytes);
    } else {
      expand_exactly(line, mask, bytes);
    }
    bytes += count;
  }
  return static_cast<std::size_t>(bytes - begin);
}

}  // namespace

const DeltaRows kDeltaRowsAvx2 = {diff_block, expand, copy, nullptr};

}  // namespace stoker
