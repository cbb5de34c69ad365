#include "stoker/fill.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <algorithm>
#include <cmath>

#include "fill_rows.hpp"
#include "stoker/cpu.hpp"

namespace stoker {

static_assert(std::endian::native == std::endian::little, "pages are made of little-endian words");

const FillRows kFillRowsScalar = {mix_few, repeat_few, nullptr};

namespace {

// From this size on a fill goes past the caches: its beginning would have left them before its end is made, and a
// reader of the whole is faster too. Below, the reader that comes next finds the bytes in the cache, which is worth
// more. Measured on a processor with 16 MiB of third-level cache.
constexpr std::size_t kStreamedBytes = std::size_t{16} << 20;

constexpr std::size_t kLineBytes = 64;

const FillRows& fill_rows() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::avx2) return kFillRowsAvx2;
#endif
  return kFillRowsScalar;
}

// Stores that went past the caches become visible to other threads before what is stored from here on.
void settle() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// SplitMix64 (Steele, Lea, Flood 2014).
std::uint64_t hashed(std::uint64_t base, std::uint64_t counter) {
  std::uint64_t z = (counter + 1) * 0x9E3779B97F4A7C15U + base;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

std::uint64_t key_of(const PageStream& stream, std::uint64_t page) {
  if (stream.duplicate_ratio > 0) {
    const double run = static_cast<double>(page / kRunPages);
    const double before = std::floor(run * stream.duplicate_ratio + stream.phase);
    const double after = std::floor((run + 1) * stream.duplicate_ratio + stream.phase);
    if (after > before) return load_word(stream.pool_keys + 8 * (page % kTilePages));
  }
  return hashed(stream.base, page);
}

void fill_cached(const FillRows& rows, std::uint8_t* out, std::size_t size_bytes, const PageStream& stream,
                 std::uint64_t offset_bytes, std::uint64_t mask) {
  std::uint64_t page = offset_bytes / kPageBytes;
  std::size_t within = offset_bytes % kPageBytes;
  for (std::size_t done = 0; done < size_bytes; ++page, within = 0) {
    const std::size_t end = std::min(kPageBytes, within + (size_bytes - done));
    const std::uint64_t key = key_of(stream, page);
    const std::size_t random_end = std::clamp(stream.random_bytes, within, end);
    const std::uint8_t* row = stream.tile + (page % kTilePages) * kPageBytes;
    if (random_end > within) {
      rows.mix(out + done, row + within, random_end - within, advanced(key, within), advanced(mask, done));
      done += random_end - within;
    }
    if (end > random_end) {
      rows.repeat(out + done, end - random_end, advanced(key, random_end) & advanced(mask, done));
      done += end - random_end;
    }
  }
}

// Makes each 4 KiB in the cache and streams it as whole lines: a line written in two ways costs several times more.
void fill_streamed(const FillRows& rows, std::uint8_t* out, std::size_t size_bytes, const PageStream& stream,
                   std::uint64_t offset_bytes, std::uint64_t mask) {
  alignas(kLineBytes) std::uint8_t block[kPageBytes];
  std::size_t done = (kLineBytes - reinterpret_cast<std::uintptr_t>(out) % kLineBytes) % kLineBytes;
  fill_cached(rows, out, done, stream, offset_bytes, mask);
  for (; size_bytes - done >= kPageBytes; done += kPageBytes) {
    fill_cached(rows, block, kPageBytes, stream, offset_bytes + done, advanced(mask, done));
    rows.stream(out + done, block, kPageBytes);
  }
  fill_cached(rows, out + done, size_bytes - done, stream, offset_bytes + done, advanced(mask, done));
  settle();
}

}  // namespace

void fill_pages(std::uint8_t* out, std::size_t size_bytes, const PageStream& stream, std::uint64_t offset_bytes,
                std::uint64_t mask) {
  const FillRows& rows = fill_rows();
  const bool streamed = rows.stream != nullptr && size_bytes >= kStreamedBytes;
  (streamed ? fill_streamed : fill_cached)(rows, out, size_bytes, stream, offset_bytes, mask);
}

}  // namespace stoker
