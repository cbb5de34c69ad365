#include "stoker/delta_wire.hpp"

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "check.hpp"
#include "stoker/cpu.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint64_t next(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9E3779B97F4A7C15U);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

Bytes random_bytes(std::size_t size, std::uint64_t& state) {
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(next(state));
  return bytes;
}

struct Found {
  Bytes mask;
  Bytes gaps;
  Bytes was;
  Bytes is;
  std::size_t changed;
};

// Rooms of the very size that the interface asks for: the sanitizer sees what lies beyond.
Found find(const Bytes& base, const Bytes& fresh, stoker::ElementShape shape, std::size_t values_max) {
  Found found{Bytes((shape.count + 63) / 64 * 8), Bytes(values_max + shape.count / 255 + 1),
              Bytes(values_max * shape.width), Bytes(values_max * shape.width), 0};
  const stoker::ElementsOut out{found.mask.data(), found.gaps.data(), found.was.data(), found.is.data(), values_max};
  const auto sizes = stoker::diff_elements(base.data(), fresh.data(), shape, out);
  found.changed = sizes.changed;
  if (sizes.changed > values_max) return found;
  found.gaps.resize(sizes.gap_bytes);
  found.was.resize(sizes.changed * shape.width);
  found.is.resize(sizes.changed * shape.width);
  return found;
}

void check_pair(const Bytes& base, const Bytes& fresh, std::size_t width) {
  const stoker::ElementShape shape{base.size() / width, width};
  std::size_t differing = 0;
  for (std::size_t at = 0; at < base.size(); at += width) {
    const auto from = base.begin() + static_cast<std::ptrdiff_t>(at);
    differing += !std::equal(from, from + static_cast<std::ptrdiff_t>(width),
                             fresh.begin() + static_cast<std::ptrdiff_t>(at));
  }
  const Found found = find(base, fresh, shape, differing);
  CHECK(found.changed == differing);
  // With room to spare, whole vectors may be written.
  const Found roomy = find(base, fresh, shape, differing + 64);
  CHECK(roomy.changed == differing && roomy.gaps == found.gaps && roomy.was == found.was && roomy.is == found.is);
  CHECK(roomy.mask == found.mask);
  if (differing > 0) CHECK(find(base, fresh, shape, differing - 1).changed == differing);
  for (const auto coding : {stoker::DeltaCoding::bits, stoker::DeltaCoding::ulps}) {
    Bytes planes(found.was.size());
    stoker::encode_planes(found.was.data(), found.is.data(), {found.changed, width}, coding, planes.data());
    const stoker::CodesView codes{planes.data(), found.changed, coding};
    Bytes target = base;
    CHECK(stoker::apply_gaps(target.data(), shape, found.gaps.data(), found.gaps.size(), codes));
    CHECK(target == fresh);
    target = base;
    CHECK(stoker::apply_mask(target.data(), shape, found.mask.data(), codes));
    CHECK(target == fresh);
    target = base;
    Bytes all(base.size());
    stoker::encode_planes(base.data(), fresh.data(), shape, coding, all.data());
    stoker::apply_planes(target.data(), shape, coding, all.data());
    CHECK(target == fresh);
  }
}

void test_pairs() {
  std::uint64_t state = 1;
  for (const std::size_t width : {1, 2, 4, 8}) {
    for (std::size_t count : {0, 1, 2, 63, 64, 65, 127, 128, 129, 1000, 5000}) {
      for (const std::size_t one_in : {1, 3, 50, 700}) {
        const Bytes base = random_bytes(count * width, state);
        Bytes fresh = base;
        for (auto& byte : fresh) {
          if (next(state) % (one_in * width) == 0) byte = static_cast<std::uint8_t>(byte + 1 + next(state) % 3);
        }
        check_pair(base, fresh, width);
      }
    }
  }
}

// Values of exactly their size: what writes beyond them stops the sanitized test.
void test_hostile() {
  std::uint64_t state = 2;
  for (std::size_t round = 0; round < 20000; ++round) {
    const std::size_t width = std::size_t{1} << next(state) % 4;
    const std::size_t count = next(state) % 600;
    const Bytes values = random_bytes(count * width, state);
    const std::size_t changed = next(state) % 8;
    const Bytes planes = random_bytes(changed * width, state);
    const stoker::CodesView codes{planes.data(), changed, stoker::DeltaCoding::ulps};
    Bytes gaps = random_bytes(next(state) % 10, state);
    if (round % 2 == 0) std::for_each(gaps.begin(), gaps.end(), [](auto& gap) { gap = gap % 4 == 0 ? 255 : 60; });
    Bytes target = values;
    if (!stoker::apply_gaps(target.data(), {count, width}, gaps.data(), gaps.size(), codes)) CHECK(target == values);
    Bytes mask((count + 63) / 64 * 8);
    for (std::size_t bits = 0; bits < 4 && !mask.empty(); ++bits) {
      auto& byte = mask[next(state) % mask.size()];
      byte = static_cast<std::uint8_t>(byte | 1U << next(state) % 8);
    }
    target = values;
    if (!stoker::apply_mask(target.data(), {count, width}, mask.data(), codes)) CHECK(target == values);
  }
}

}  // namespace

int main() {
  for (const auto level : {stoker::CpuLevel::scalar, stoker::CpuLevel::sse42, stoker::CpuLevel::avx2,
                           stoker::CpuLevel::avx512}) {
    if (stoker::force_cpu_level(level) != level) continue;
    test_pairs();
    test_hostile();
  }
  RETURN_RESULT();
}
