#include "stoker/replay.hpp"

#include <cstring>
#include <initializer_list>
#include <vector>

#include "check.hpp"
#include "stoker/check.hpp"
#include "stoker/cpu.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::uint32_t kSalt = 77;

template <typename T>
void put(Bytes& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

Bytes frame(std::uint64_t lsn, std::uint64_t epoch, std::uint8_t type, std::uint8_t codec, const Bytes& payload) {
  Bytes made(56 + (payload.size() + 7) / 8 * 8);
  put(made, 0, static_cast<std::uint32_t>(made.size()));
  put(made, 8, lsn);
  put(made, 24, epoch);
  made[40] = type;
  made[41] = codec;
  put(made, 48, static_cast<std::uint32_t>(payload.size()));
  if (!payload.empty()) std::memcpy(made.data() + 56, payload.data(), payload.size());
  put(made, 4, stoker::crc32c(made.data() + 8, made.size() - 8, kSalt));
  return made;
}

Bytes run(std::uint64_t offset, std::uint64_t length, const Bytes& data) {
  Bytes made(16 + (data.size() + 7) / 8 * 8);
  put(made, 0, offset);
  put(made, 8, length);
  std::memcpy(made.data() + 16, data.data(), data.size());
  return made;
}

// Every log cut at every length, in memory of exactly that size: what reads beyond it stops the sanitized test.
void test_scan() {
  Bytes log;
  std::vector<std::size_t> ends{0};
  for (std::uint64_t lsn = 1; lsn <= 5; ++lsn) {
    const Bytes one = frame(lsn, lsn, 6, 0, Bytes(static_cast<std::size_t>(9 * lsn), 5));
    log.insert(log.end(), one.begin(), one.end());
    ends.push_back(log.size());
  }
  for (std::size_t cut = 0; cut <= log.size(); ++cut) {
    const Bytes part(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(cut));
    stoker::FrameRow rows[8];
    const auto found = stoker::scan_frames(part.data(), part.size(), {0, kSalt, 1, 0}, rows, 8);
    CHECK(found.end == ends[found.count]);
    CHECK(found.end <= cut && (found.count == 5 || ends[found.count + 1] > cut));
  }
  stoker::FrameRow few[2];
  CHECK(stoker::scan_frames(log.data(), log.size(), {0, kSalt, 1, 0}, few, 2).count == 2);
  CHECK(few[1].lsn == 2 && few[1].payload_bytes == 18 && (few[1].kinds & 0xFF) == 6);
}

bool replayed(Bytes& page, const Bytes& log) {
  stoker::FrameRow row[1];
  CHECK(stoker::scan_frames(log.data(), log.size(), {0, kSalt, 1, 0}, row, 1).count == 1);
  stoker::ReplayPage target{reinterpret_cast<std::uintptr_t>(page.data()), page.size(), 0, 0};
  const std::int64_t slot = 0;
  return stoker::replay_frames(log.data(), row, &slot, 1, &target) == 1;
}

void test_replay() {
  const Bytes before(100, 1);
  Bytes page = before;
  CHECK(replayed(page, frame(1, 1, 6, 0, Bytes(100, 2))) && page == Bytes(100, 2));
  CHECK(replayed(page, frame(1, 1, 5, 2, run(97, 3, {7, 8, 9}))) && page[99] == 9 && page[96] == 2);
  page = before;
  for (const Bytes& bad : {frame(1, 1, 6, 0, Bytes(99, 2)), frame(1, 2, 6, 0, Bytes(100, 2)),
                           frame(1, 1, 5, 2, run(98, 3, {7, 8, 9})), frame(1, 1, 5, 2, run(~0ULL, 2, {7, 8})),
                           frame(1, 1, 5, 2, run(0, ~0ULL, {7, 8})), frame(1, 1, 5, 2, run(0, 50, {7, 8})),
                           frame(1, 1, 5, 1, Bytes(16, 255)), frame(1, 1, 5, 3, {}), frame(1, 1, 2, 0, {})}) {
    CHECK(!replayed(page, bad) && page == before);
  }
}

}  // namespace

int main() {
  for (const auto level : {stoker::CpuLevel::scalar, stoker::CpuLevel::sse42, stoker::CpuLevel::avx2,
                           stoker::CpuLevel::avx512}) {
    if (stoker::force_cpu_level(level) != level) continue;
    test_scan();
    test_replay();
  }
  RETURN_RESULT();
}
