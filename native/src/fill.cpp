#include "stoker/fill.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "fill_rows.hpp"
#include "stoker/cpu.hpp"

namespace stoker {

static_assert(std::endian::native == std::endian::little, "pages are made of little-endian words");

const FillRows kFillRowsScalar = {mix_few, repeat_few};

namespace {

const FillRows& fill_rows() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::avx2) return kFillRowsAvx2;
#endif
  return kFillRowsScalar;
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

}  // namespace

void fill_pages(std::uint8_t* out, std::size_t size_bytes, const PageStream& stream, std::uint64_t offset_bytes,
                std::uint64_t mask) {
  const FillRows& rows = fill_rows();
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

}  // namespace stoker
