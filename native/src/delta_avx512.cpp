#include <immintrin.h>

#include "delta_rows.hpp"

namespace stoker {
namespace {

// Lines with no more changed bytes than this are expanded byte by byte.
constexpr std::size_t kFewBytes = 2;
// Blocks up to this size are looked at line by line.
constexpr std::size_t kFewLines = 8;

__m512i load(const std::uint8_t* from) { return _mm512_loadu_si512(from); }
void store(std::uint8_t* to, __m512i vector) { _mm512_storeu_si512(to, vector); }

// A mask for each line, and the bitmap of those that are not 0: kept in memory, for what differs cannot be foretold and
// a branch for each line would cost more than the compare.
template <bool kMore>
std::uint64_t compare(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t lines, std::uint64_t* masks) {
  for (std::size_t line = 0; line < lines; ++line) {
    const std::size_t at = kLineBytes * line;
    if constexpr (kMore) {
      // The processor's own prefetcher stops at the end of a page.
      __builtin_prefetch(base + kBlockBytes + at);
      __builtin_prefetch(fresh + kBlockBytes + at);
    }
    masks[line] = _mm512_cmpneq_epi8_mask(load(base + at), load(fresh + at));
  }
  std::uint64_t bitmap = 0;
  if (lines <= kFewLines) {
    // Eight masks read at once, just after each was written by itself, would wait for all of them to be in the cache.
    for (std::size_t line = 0; line < lines; ++line) bitmap |= std::uint64_t{masks[line] != 0} << line;
    return bitmap;
  }
  for (std::size_t line = lines; line % 8 != 0; ++line) masks[line] = 0;
  for (std::size_t line = 0; line < lines; line += 8) {
    const __m512i eight = _mm512_load_si512(masks + line);
    bitmap |= std::uint64_t{_mm512_test_epi64_mask(eight, eight)} << line;
  }
  return bitmap;
}

// The bytes of a mask, brought together in a register and stored whole: what lies beyond them in `out` is overwritten
// later. To compress straight to memory takes many times as long on some processors.
template <bool kUpdate>
DeltaOut compact(std::uint8_t* base, const std::uint8_t* fresh, std::uint64_t bitmap, const std::uint64_t* masks,
                 DeltaOut out) {
  for (; bitmap != 0; bitmap &= bitmap - 1) {
    const std::size_t line = lowest_bit(bitmap);
    const std::uint64_t mask = masks[line];
    const __m512i is = load(fresh + kLineBytes * line);
    store_u64(out.masks, mask);
    out.masks += kWordBytes;
    store(out.bytes, _mm512_maskz_compress_epi8(mask, is));
    out.bytes += count_bits(mask);
    if constexpr (kUpdate) store(base + kLineBytes * line, is);
  }
  return out;  // by value: a pointer into memory would be written and read again for each line
}

std::uint64_t diff_block(std::uint8_t* base, const std::uint8_t* fresh, std::size_t lines, DiffHow how, DeltaOut& out) {
  alignas(64) std::uint64_t masks[64];
  const std::uint64_t bitmap =
      how.more ? compare<true>(base, fresh, lines, masks) : compare<false>(base, fresh, lines, masks);
  if (how.update) {
    out = compact<true>(base, fresh, bitmap, masks, out);
  } else {
    out = compact<false>(base, fresh, bitmap, masks, out);
  }
  return bitmap;
}

void copy(std::uint8_t* page, const std::uint8_t* image, std::uint64_t bitmap) {
  for (; bitmap != 0; bitmap &= bitmap - 1) {
    const std::size_t at = kLineBytes * lowest_bit(bitmap);
    store(page + at, load(image + at));
  }
}

std::size_t spread(std::uint8_t* page, std::uint64_t bitmap, const std::uint8_t* masks, const std::uint8_t* bytes) {
  const std::uint8_t* const begin = bytes;
  for (; bitmap != 0; bitmap &= bitmap - 1, masks += kWordBytes) {
    const std::uint64_t mask = load_u64(masks);
    const std::size_t count = count_bits(mask);
    __m512i packed = _mm512_maskz_loadu_epi8(_bzhi_u64(kAllBytes, static_cast<unsigned>(count)), bytes);
    asm("" : "+v"(packed));  // else the compiler may expand straight from memory
    _mm512_mask_storeu_epi8(page + kLineBytes * lowest_bit(bitmap), mask, _mm512_maskz_expand_epi8(mask, packed));
    bytes += count;
  }
  return static_cast<std::size_t>(bytes - begin);
}

// A line's bytes, of which 64 need not be there.
__m512i load_up_to_end(const std::uint8_t* bytes, const std::uint8_t* end, std::size_t count) {
  if (static_cast<std::size_t>(end - bytes) >= kLineBytes) return load(bytes);
  return _mm512_maskz_loadu_epi8(_bzhi_u64(kAllBytes, static_cast<unsigned>(count)), bytes);
}

std::size_t expand(std::uint8_t* page, std::uint64_t bitmap, const std::uint8_t* masks, const std::uint8_t* bytes,
                   const std::uint8_t* end) {
  const std::uint8_t* const begin = bytes;
  for (; bitmap != 0; bitmap &= bitmap - 1, masks += kWordBytes) {
    std::uint8_t* const line = page + kLineBytes * lowest_bit(bitmap);
    const std::uint64_t mask = load_u64(masks);
    const std::size_t count = count_bits(mask);
    if (count <= kFewBytes) {
      expand_exactly(line, mask, bytes);
    } else {
      __m512i packed = load_up_to_end(bytes, end, count);
      asm("" : "+v"(packed));  // else the compiler may expand straight from memory
      store(line, _mm512_mask_expand_epi8(load(line), mask, packed));
    }
    bytes += count;
  }
  return static_cast<std::size_t>(bytes - begin);
}

}  // namespace

const DeltaRows kDeltaRowsAvx512 = {diff_block, expand, copy, spread};

}  // namespace stoker
