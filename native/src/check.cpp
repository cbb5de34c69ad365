#include "stoker/check.hpp"

#include <array>
#include <bit>

#include "check_levels.hpp"
#include "stoker/cpu.hpp"

namespace stoker {

static_assert(std::endian::native == std::endian::little, "checksums are taken of little-endian words");

namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78;

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[n][byte]: what a byte does to the register n bytes later (Kounavis and Berry, slicing by 8, 2005).
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (std::size_t later = 1; later < 8; ++later) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = tables[later - 1][byte];
      tables[later][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

std::uint32_t crc32c_scalar(const std::uint8_t* data, std::uint8_t* target, std::size_t size_bytes,
                            std::uint32_t state) {
  std::size_t at = 0;
  for (; size_bytes - at >= 8; at += 8) {
    const std::uint64_t word = load_u64(data + at);
    if (target != nullptr) std::memcpy(target + at, &word, sizeof(word));
    const std::uint64_t mixed = word ^ state;
    state = 0;
    for (std::size_t byte = 0; byte < 8; ++byte) state ^= kTables[7 - byte][(mixed >> (8 * byte)) & 0xFF];
  }
  for (; at < size_bytes; ++at) {
    const std::uint8_t byte = data[at];
    if (target != nullptr) target[at] = byte;
    state = (state >> 8) ^ kTables[0][(state ^ byte) & 0xFF];
  }
  return state;
}

Crc32c crc32c_of_level() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::sse42) return crc32c_sse42;
#endif
  return crc32c_scalar;
}

}  // namespace

std::uint32_t crc32c(const std::uint8_t* data, std::size_t size_bytes, std::uint32_t value) {
  return ~crc32c_of_level()(data, nullptr, size_bytes, ~value);
}

std::uint32_t copy_crc32c(const std::uint8_t* source, std::uint8_t* target, std::size_t size_bytes,
                          std::uint32_t value) {
  return ~crc32c_of_level()(source, target, size_bytes, ~value);
}

}  // namespace stoker
