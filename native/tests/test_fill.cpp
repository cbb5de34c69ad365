#include "stoker/fill.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include "check.hpp"
#include "stoker/cpu.hpp"

namespace {

constexpr std::uint64_t kAll = ~std::uint64_t{0};
using Bytes = std::vector<std::uint8_t>;

std::uint64_t next(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9E3779B97F4A7C15U);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

Bytes random_bytes(std::size_t size, std::uint64_t seed) {
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(next(seed));
  return bytes;
}

// The stream's byte, made on its own.
std::uint8_t byte_at(const stoker::PageStream& stream, std::uint64_t position) {
  const std::uint64_t page = position / stoker::kPageBytes;
  const std::size_t within = position % stoker::kPageBytes;
  std::uint64_t state = stream.base + page * 0x9E3779B97F4A7C15U;
  std::uint64_t key = next(state);
  const double run = static_cast<double>(page / stoker::kRunPages);
  const bool pooled = std::floor((run + 1) * stream.duplicate_ratio + stream.phase) >
                      std::floor(run * stream.duplicate_ratio + stream.phase);
  if (pooled) std::memcpy(&key, stream.pool_keys + 8 * (page % stoker::kTilePages), 8);
  const auto key_byte = static_cast<std::uint8_t>(key >> (8 * (within % 8)));
  const std::uint8_t tile_byte =
      within < stream.random_bytes ? stream.tile[(page % stoker::kTilePages) * stoker::kPageBytes + within] : 0;
  return static_cast<std::uint8_t>(key_byte ^ tile_byte);
}

void check_range(const stoker::PageStream& stream, std::size_t shift, std::uint64_t offset, std::size_t size,
                 std::uint64_t mask) {
  constexpr std::uint8_t guard = 0xA5;
  Bytes room(shift + size + 64, guard);
  stoker::fill_pages(room.data() + shift, size, stream, offset, mask);
  bool same = true;
  for (std::size_t index = 0; index < room.size(); ++index) {
    const bool inside = index >= shift && index < shift + size;
    std::uint8_t wanted = guard;
    if (inside) {
      const std::size_t at = index - shift;
      wanted = static_cast<std::uint8_t>(byte_at(stream, offset + at) & (mask >> (8 * (at % 8))));
    }
    same = same && room[index] == wanted;
  }
  CHECK(same);
}

// So large that it goes past the caches; compared with the same in small pieces.
void check_large(const Bytes& tile, const Bytes& keys) {
  stoker::PageStream stream;
  stream.tile = tile.data();
  stream.pool_keys = keys.data();
  stream.random_bytes = 8 * 253;
  stream.base = 17;
  stream.duplicate_ratio = 0.3;
  constexpr std::uint64_t mask = 0x7F00FF01FFFFFFFFU;
  constexpr std::size_t size = (std::size_t{16} << 20) + 5000;
  constexpr std::size_t piece = 40000;
  constexpr std::uint64_t offset = 1234567;
  Bytes whole(size + 1);
  Bytes pieces(size + 1);
  stoker::fill_pages(whole.data() + 1, size, stream, offset, mask);
  for (std::size_t at = 0; at < size; at += piece) {
    const std::size_t bytes = size - at < piece ? size - at : piece;
    stoker::fill_pages(pieces.data() + 1 + at, bytes, stream, offset + at, mask);
  }
  CHECK(whole == pieces);
}

void check_level(stoker::CpuLevel level) {
  if (stoker::force_cpu_level(level) != level) {
    std::fprintf(stderr, "CPU level %d is not offered here: not tested\n", static_cast<int>(level));
    return;
  }
  const Bytes tile = random_bytes(stoker::kTileBytes, 1);
  const Bytes keys = random_bytes(8 * stoker::kTilePages, 2);
  std::uint64_t chance = 3;
  for (int round = 0; round < 200; ++round) {
    stoker::PageStream stream;
    stream.tile = tile.data();
    stream.pool_keys = keys.data();
    stream.base = next(chance);
    stream.phase = static_cast<double>(next(chance) % 1000) / 1000;
    stream.duplicate_ratio = static_cast<double>(next(chance) % 5) / 4;
    const std::size_t words[] = {512, 2, 253, 511};
    stream.random_bytes = 8 * words[next(chance) % 4];
    const std::uint64_t mask = next(chance) % 2 == 0 ? kAll : next(chance);
    check_range(stream, next(chance) % 65, next(chance) % (1U << 22), next(chance) % 200, mask);
    check_range(stream, next(chance) % 65, next(chance) % (std::uint64_t{1} << 50), next(chance) % 20000, mask);
  }
  check_large(tile, keys);
}

}  // namespace

int main() {
  using stoker::CpuLevel;
  for (const CpuLevel level : {CpuLevel::scalar, CpuLevel::sse42, CpuLevel::avx2, CpuLevel::avx512}) check_level(level);
  RETURN_RESULT();
}
