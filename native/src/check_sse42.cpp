#include <nmmintrin.h>
#include <wmmintrin.h>

#include <array>

#include "check_levels.hpp"

namespace stoker {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78;
// Longer lanes spare joins and suit the prefetcher better; shorter ones leave less over.
constexpr std::size_t kLongBytes = 8192;
constexpr std::size_t kMiddleBytes = 1024;
constexpr std::size_t kShortestBytes = 32;

// x to the power of (8 * bytes - 33), modulo the polynomial, bits reflected: multiplied with a CRC, and the product
// reduced by the crc32 instruction, it moves the CRC on by so many bytes (Gopal et al., Fast CRC Computation for
// iSCSI Polynomial Using CRC32 Instruction, 2011).
constexpr std::uint32_t mover(std::size_t bytes) {
  std::uint32_t power = 0x80000000;
  for (std::size_t bit = 0; bit < 8 * bytes - 33; ++bit) {
    power = (power >> 1) ^ ((power & 1) != 0 ? kPolynomial : 0);
  }
  return power;
}

// The same of words of eight bytes, as many as the place in the table.
using Movers = std::array<std::uint32_t, 2 * kMiddleBytes / 8 + 1>;
constexpr Movers make_movers() {
  Movers movers{};
  for (std::size_t words = 1; words < movers.size(); ++words) {
    std::uint32_t power = words == 1 ? 0x80000000 : movers[words - 1];
    for (std::size_t bit = 0; bit < (words == 1 ? 64 - 33 : 64); ++bit) {
      power = (power >> 1) ^ ((power & 1) != 0 ? kPolynomial : 0);
    }
    movers[words] = power;
  }
  return movers;
}
constexpr Movers kMovers = make_movers();
static_assert(kMovers[4] == mover(32) && kMovers[2 * kMiddleBytes / 8] == mover(2 * kMiddleBytes));

std::uint64_t moved(std::uint64_t crc, std::uint32_t constant) {
  const __m128i left = _mm_cvtsi64_si128(static_cast<long long>(crc));
  const __m128i product = _mm_clmulepi64_si128(left, _mm_cvtsi32_si128(static_cast<int>(constant)), 0);
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(product));
}

template <bool copy>
std::uint64_t pass(const std::uint8_t* data, [[maybe_unused]] std::uint8_t* target, std::size_t at) {
  const std::uint64_t word = load_u64(data + at);
  if constexpr (copy) std::memcpy(target + at, &word, sizeof(word));
  return word;
}

// The instruction takes three cycles and one can begin in each: so three lanes, joined at the end by what moves a CRC on
// by one lane and by two.
template <bool copy>
[[gnu::always_inline]] inline std::uint64_t three_lanes(const std::uint8_t* data, std::uint8_t* target,
                                                        std::size_t start, std::size_t lane_bytes,
                                                        std::uint32_t by_one, std::uint32_t by_two, std::uint64_t crc) {
  std::uint64_t second = 0;
  std::uint64_t third = 0;
  for (std::size_t at = start; at < start + lane_bytes; at += 8) {
    crc = _mm_crc32_u64(crc, pass<copy>(data, target, at));
    second = _mm_crc32_u64(second, pass<copy>(data, target, at + lane_bytes));
    third = _mm_crc32_u64(third, pass<copy>(data, target, at + 2 * lane_bytes));
  }
  return third ^ _mm_crc32_u64(0, moved(crc, by_two) ^ moved(second, by_one));
}

template <bool copy, std::size_t lane_bytes>
std::uint64_t fixed_lanes(const std::uint8_t* data, std::uint8_t* target, std::size_t start, std::uint64_t crc) {
  constexpr std::uint32_t by_one = mover(lane_bytes);
  constexpr std::uint32_t by_two = mover(2 * lane_bytes);
  return three_lanes<copy>(data, target, start, lane_bytes, by_one, by_two, crc);
}

template <bool copy>
std::uint32_t run(const std::uint8_t* data, std::uint8_t* target, std::size_t size_bytes, std::uint32_t state) {
  std::uint64_t crc = state;
  std::size_t at = 0;
  for (; size_bytes - at >= 3 * kLongBytes; at += 3 * kLongBytes) {
    crc = fixed_lanes<copy, kLongBytes>(data, target, at, crc);
  }
  for (; size_bytes - at >= 3 * kMiddleBytes; at += 3 * kMiddleBytes) {
    crc = fixed_lanes<copy, kMiddleBytes>(data, target, at, crc);
  }
  // Lanes that leave less than three words: one join where lanes of fixed lengths would ask for several, each of which
  // takes as long as a third of a frame of a few hundred bytes.
  if (const std::size_t words = (size_bytes - at) / 24; words >= kShortestBytes / 8) {
    crc = three_lanes<copy>(data, target, at, 8 * words, kMovers[words], kMovers[2 * words], crc);
    at += 24 * words;
  }
  for (; size_bytes - at >= 8; at += 8) crc = _mm_crc32_u64(crc, pass<copy>(data, target, at));
  auto last = static_cast<std::uint32_t>(crc);
  for (; at < size_bytes; ++at) {
    const std::uint8_t byte = data[at];
    last = _mm_crc32_u8(last, byte);
    if constexpr (copy) target[at] = byte;
  }
  return last;
}

}  // namespace

std::uint32_t crc32c_sse42(const std::uint8_t* data, std::uint8_t* target, std::size_t size_bytes,
                           std::uint32_t state) {
  // The frames of pages that come and go: without what longer ones ask for first.
  if (target == nullptr && size_bytes < 3 * kShortestBytes && size_bytes % 8 == 0) {
    std::uint64_t crc = state;
    for (std::size_t at = 0; at < size_bytes; at += 8) crc = _mm_crc32_u64(crc, load_u64(data + at));
    return static_cast<std::uint32_t>(crc);
  }
  return target == nullptr ? run<false>(data, target, size_bytes, state) : run<true>(data, target, size_bytes, state);
}

}  // namespace stoker
