#include "stoker/check.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "stoker/cpu.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes random_bytes(std::size_t size, std::uint64_t state) {
  Bytes bytes(size);
  for (auto& byte : bytes) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    byte = static_cast<std::uint8_t>(state >> 56);
  }
  return bytes;
}

// One bit at a time, by the definition.
std::uint32_t slow_crc32c(const std::uint8_t* data, std::size_t size, std::uint32_t value) {
  std::uint32_t crc = ~value;
  for (std::size_t at = 0; at < size; ++at) {
    crc ^= data[at];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0);
  }
  return ~crc;
}

constexpr std::size_t kSizes[] = {0,    1,    7,    8,    9,    63,   64,    65,    240,   241,   383,   384,
                                  385,  1023, 1024, 1025, 1088, 1089, 3071,  3072,  3073,  4096,  24575, 24576,
                                  24577, 30000, 70001};

void check_128(const Bytes& data, std::size_t size, std::uint64_t high, std::uint64_t low) {
  const stoker::Hash128 hash = stoker::xxh3_128(data.data(), size);
  CHECK(hash.high == high && hash.low == low);
  std::uint8_t digest[16];
  stoker::write_digest(hash, digest);
  for (std::size_t byte = 0; byte < 8; ++byte) {
    CHECK(digest[byte] == static_cast<std::uint8_t>(high >> (56 - 8 * byte)));
    CHECK(digest[8 + byte] == static_cast<std::uint8_t>(low >> (56 - 8 * byte)));
  }
}

void check_published() {
  // RFC 3720, appendix B.4.
  Bytes bytes(32, 0);
  CHECK(stoker::crc32c(bytes.data(), 32, 0) == 0x8A9136AA);
  std::fill(bytes.begin(), bytes.end(), std::uint8_t{0xFF});
  CHECK(stoker::crc32c(bytes.data(), 32, 0) == 0x62A8AB43);
  CHECK(stoker::crc32c(reinterpret_cast<const std::uint8_t*>("123456789"), 9, 0) == 0xE3069283);
  // As xxhsum tells it (xxHash 0.8).
  Bytes room(5000);
  Bytes zeros(5000, 0);
  CHECK(stoker::copy_xxh3(zeros.data(), room.data(), 5000) == 0x95929931B75A6D9FU);
  CHECK(stoker::copy_xxh3(zeros.data(), room.data(), 241) == 0x5C5B5D5D40C59CE3U);
  check_128(zeros, 0, 0x99AA06D3014798D8U, 0x6001C324468D497FU);
  check_128(zeros, 1, 0xA6CD5E9392000F6AU, 0xC44BDFF4074EECDBU);
  check_128(zeros, 5, 0xC61571A9FA582784U, 0x56B1430EA9E34626U);
  check_128(zeros, 13, 0x8804B1C74117DCA7U, 0x22FB57A9A0A9FF6BU);
  check_128(zeros, 64, 0xB388416FFD482336U, 0x2FFB6918C12C256EU);
  check_128(zeros, 200, 0x68AC297D87BA6FB2U, 0xF24858A3A3E3018FU);
  check_128(zeros, 241, 0xB9B45065A364C5B9U, 0x5C5B5D5D40C59CE3U);
  check_128(zeros, 5000, 0x4F64C6C368368322U, 0x95929931B75A6D9FU);}

void check_crc(const Bytes& data, std::size_t size, std::size_t shift) {
  const std::uint8_t* from = data.data() + shift;
  const std::uint32_t wanted = slow_crc32c(from, size, 0x12345678);
  CHECK(stoker::crc32c(from, size, 0x12345678) == wanted);
  Bytes room(size + 16, 0xA5);
  CHECK(stoker::copy_crc32c(from, room.data() + 5, size, 0x12345678) == wanted);
  CHECK(size == 0 || std::memcmp(room.data() + 5, from, size) == 0);
  CHECK(std::all_of(room.begin(), room.begin() + 5, [](std::uint8_t byte) { return byte == 0xA5; }));
  CHECK(std::all_of(room.end() - 11, room.end(), [](std::uint8_t byte) { return byte == 0xA5; }));
}

std::uint64_t check_xxh3(const Bytes& data, std::size_t size, std::size_t shift) {
  const std::uint8_t* from = data.data() + shift;
  Bytes room(size + 16, 0xA5);
  const std::uint64_t hash = stoker::copy_xxh3(from, room.data() + 5, size);
  CHECK(std::memcmp(room.data() + 5, from, size) == 0);
  CHECK(std::all_of(room.begin(), room.begin() + 5, [](std::uint8_t byte) { return byte == 0xA5; }));
  CHECK(std::all_of(room.end() - 11, room.end(), [](std::uint8_t byte) { return byte == 0xA5; }));
  return hash;
}

// Returns all XXH3 values, to be compared between levels.
std::vector<std::uint64_t> check_level(stoker::CpuLevel level) {
  std::vector<std::uint64_t> hashes;
  if (stoker::force_cpu_level(level) != level) {
    std::fprintf(stderr, "CPU level %d is not offered here: not tested\n", static_cast<int>(level));
    return hashes;
  }
  check_published();
  const Bytes data = random_bytes(70100, 1);
  for (std::size_t size = 80; size < 1300; ++size) check_crc(data, size, size % 3);
  for (const std::size_t size : kSizes) {
    for (const std::size_t shift : {0U, 1U, 13U}) {
      check_crc(data, size, shift);
      if (size > stoker::kXxh3ShortBytes) hashes.push_back(check_xxh3(data, size, shift));
      // Memory of exactly this size, so that the sanitizers see a byte too many.
      const Bytes alone(data.begin() + static_cast<std::ptrdiff_t>(shift),
                        data.begin() + static_cast<std::ptrdiff_t>(shift + size));
      const stoker::Hash128 wide = stoker::xxh3_128(alone.data(), size);
      hashes.insert(hashes.end(), {wide.high, wide.low});
    }
  }
  return hashes;
}

}  // namespace

int main() {
  using stoker::CpuLevel;
  const auto scalar = check_level(CpuLevel::scalar);
  CHECK(!scalar.empty());
  for (const CpuLevel level : {CpuLevel::sse42, CpuLevel::avx2, CpuLevel::avx512}) {
    const auto hashes = check_level(level);
    CHECK(hashes.empty() || hashes == scalar);
  }
  RETURN_RESULT();
}
