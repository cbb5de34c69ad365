#include "stoker/delta.hpp"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

#include "check.hpp"
#include "stoker/cpu.hpp"
#include "stoker/delta_parts.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::uint8_t kGuard = 0xA5;

struct Chance {
  std::uint64_t state;

  std::uint64_t next() {
    std::uint64_t z = (state += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(next() % bound); }
  Bytes bytes(std::size_t size) {
    Bytes made(size);
    for (auto& byte : made) byte = static_cast<std::uint8_t>(next());
    return made;
  }
};

// The payload, made by the book.
Bytes wanted_payload(const Bytes& base, const Bytes& fresh) {
  const std::size_t lines = (base.size() + 63) / 64;
  Bytes bitmap((lines + 63) / 64 * 8);
  Bytes masks;
  Bytes changed;
  for (std::size_t line = 0; line < lines; ++line) {
    Bytes mask(8);
    for (std::size_t at = 64 * line; at < std::min(base.size(), 64 * line + 64); ++at) {
      if (base[at] == fresh[at]) continue;
      mask[at % 64 / 8] = static_cast<std::uint8_t>(mask[at % 64 / 8] | 1U << at % 8);
      changed.push_back(fresh[at]);
    }
    if (mask == Bytes(8)) continue;
    bitmap[line / 8] = static_cast<std::uint8_t>(bitmap[line / 8] | 1U << line % 8);
    masks.insert(masks.end(), mask.begin(), mask.end());
  }
  if (changed.empty()) return {};
  bitmap.insert(bitmap.end(), masks.begin(), masks.end());
  bitmap.insert(bitmap.end(), changed.begin(), changed.end());
  return bitmap;
}

// Memory of exactly the size, so that the sanitizer sees every byte beyond it; `shift` unaligns it.
struct Room {
  std::unique_ptr<std::uint8_t[]> memory;
  std::uint8_t* data;
  std::size_t size;

  Room(std::size_t size_bytes, std::size_t shift)
      : memory(new std::uint8_t[size_bytes + shift]), data(memory.get() + shift), size(size_bytes) {
    std::memset(memory.get(), kGuard, size_bytes + shift);
  }
  Room(const Bytes& from, std::size_t shift) : Room(from.size(), shift) {
    std::copy(from.begin(), from.end(), data);
  }
  Bytes bytes(std::size_t count) const { return Bytes(data, data + count); }
};

void check_pair(const Bytes& base, const Bytes& fresh, std::size_t shift) {
  const std::size_t size = base.size();
  const Bytes wanted = wanted_payload(base, fresh);
  Room was(base, shift);
  const Room is(fresh, shift / 2);
  Room payload(stoker::two_level_bound(size), shift / 3);
  const stoker::DeltaSize found = stoker::two_level_diff(was.data, is.data, size, payload.data);
  CHECK(payload.bytes(found.payload_bytes) == wanted);
  CHECK(was.bytes(size) == base);
  CHECK(stoker::two_level_changed(size, payload.data, found.payload_bytes) ==
        static_cast<std::int64_t>(found.changed_bytes));

  const Room exact(wanted, 1);
  CHECK(stoker::two_level_apply(was.data, size, exact.data, wanted.size()));
  CHECK(was.bytes(size) == fresh);
  CHECK(stoker::two_level_apply(was.data, size, exact.data, wanted.size()));
  CHECK(was.bytes(size) == fresh);

  if (!wanted.empty()) {
    Room copied(base, shift);
    stoker::two_level_copy(copied.data, is.data, size, exact.data);
    CHECK(copied.bytes(size) == fresh);
    Room spread(base, shift);
    stoker::two_level_copy(spread.data, is.data, size, exact.data, true);
    CHECK(spread.bytes(size) == fresh);
  }

  Room updated(base, shift);
  const stoker::DeltaSize again = stoker::two_level_diff_update(updated.data, is.data, size, payload.data);
  CHECK(payload.bytes(again.payload_bytes) == wanted && again.changed_bytes == found.changed_bytes);
  CHECK(updated.bytes(size) == fresh);
}

Bytes changed(Chance& chance, const Bytes& base, std::size_t one_in) {
  Bytes fresh = base;
  for (auto& byte : fresh) {
    if (chance.below(one_in) == 0) byte = static_cast<std::uint8_t>(byte ^ (1 + chance.below(255)));
  }
  return fresh;
}

void test_pairs() {
  Chance chance{1};
  std::vector<std::size_t> sizes;
  for (std::size_t size = 1; size <= 200; ++size) sizes.push_back(size);
  for (std::size_t size : {4031, 4032, 4033, 4095, 4096, 4097, 4160, 8192, 8255, 20000}) sizes.push_back(size);
  for (const std::size_t size : sizes) {
    const Bytes base = chance.bytes(size);
    for (const std::size_t one_in : {1, 2, 8, 30, 100, 1000}) {
      check_pair(base, changed(chance, base, one_in), chance.below(64));
    }
    check_pair(base, base, 3);
    for (const std::size_t at : {std::size_t{0}, size / 2, size - 1}) {
      Bytes fresh = base;
      fresh[at] = static_cast<std::uint8_t>(fresh[at] ^ 0x80);
      check_pair(base, fresh, 5);
    }
  }
}

// Whatever the payload says, the page's neighbours stay as they are, and a refusal leaves the page as it was.
void check_hostile(const Bytes& page, const Bytes& payload) {
  Room room(page.size() + 128, 0);
  std::copy(page.begin(), page.end(), room.data + 64);
  const Room given(payload, 0);
  const bool taken = stoker::two_level_apply(room.data + 64, page.size(), given.data, payload.size());
  CHECK(taken == (stoker::two_level_changed(page.size(), given.data, payload.size()) >= 0));
  const Bytes after = room.bytes(room.size);
  for (std::size_t at = 0; at < 64; ++at) {
    CHECK(after[at] == kGuard && after[after.size() - 1 - at] == kGuard);
  }
  if (!taken) CHECK(std::equal(page.begin(), page.end(), after.begin() + 64));
}

void test_hostile() {
  Chance chance{2};
  for (std::size_t round = 0; round < 3000; ++round) {
    const Bytes page = chance.bytes(1 + chance.below(round % 10 == 0 ? 9000 : 300));
    Bytes payload = wanted_payload(page, changed(chance, page, 1 + chance.below(40)));
    for (std::size_t flips = chance.below(4); flips > 0 && !payload.empty(); --flips) {
      auto& byte = payload[chance.below(std::min<std::size_t>(payload.size(), 1 + chance.below(64)))];
      byte = static_cast<std::uint8_t>(byte ^ (1U << chance.below(8)));
    }
    if (round % 3 == 0) payload.resize(chance.below(payload.size() + 9));
    check_hostile(page, payload);
    check_hostile(page, chance.bytes(chance.below(100)));
    check_hostile(page, Bytes(chance.below(600), 0xFF));
  }
}

void test_refusals() {
  const Bytes page(70, 7);
  Bytes payload(8 + 8 + 2);
  payload[0] = 2;
  payload[8] = 0x60;  // bytes 5 and 6 of the short line, which ends at 5
  Room room(page, 0);
  CHECK(!stoker::two_level_apply(room.data, 70, payload.data(), payload.size()));
  payload[8] = 0x30;
  CHECK(stoker::two_level_apply(room.data, 70, payload.data(), payload.size()));
  CHECK(!stoker::two_level_apply(room.data, 70, payload.data(), payload.size() - 1));
  payload[0] = 4;  // a third line, of a page of two
  CHECK(!stoker::two_level_apply(room.data, 70, payload.data(), payload.size()));
  CHECK(!stoker::two_level_apply(room.data, 70, payload.data(), 7));
  CHECK(stoker::two_level_apply(room.data, 70, payload.data(), 0));
  CHECK(room.data[68] == 0 && room.data[69] == 0 && room.data[67] == 7);
}

}  // namespace

int main() {
  for (const auto level : {stoker::CpuLevel::scalar, stoker::CpuLevel::sse42, stoker::CpuLevel::avx2,
                           stoker::CpuLevel::avx512}) {
    if (stoker::force_cpu_level(level) != level) continue;
    test_pairs();
    test_hostile();
    test_refusals();
  }
  RETURN_RESULT();
}
