// The short ways through an arena: an arena is laid out here as stoker/pages/arena/layout.py does, and used by many
// threads at once, each through a view of its own as processes would.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "../src/arena_layout.hpp"
#include "check.hpp"
#include "stoker/arena.hpp"
#include "stoker/check.hpp"

using stoker::Arena;
using stoker::ArenaResult;
using stoker::ArenaStatus;
namespace layout = stoker::arena;

namespace {

constexpr std::size_t kSlots = 64, kSlotOffset = 4096, kRingOffset = 16384, kRingBytes = 1 << 18;
constexpr std::size_t kDataOffset = kRingOffset + kRingBytes, kDataBytes = 1 << 20;
constexpr std::size_t kArenaBytes = kDataOffset + kDataBytes;

struct Free {
  void operator()(std::uint8_t* memory) const { std::free(memory); }
};

// Memory with the header of a new arena.
class Memory {
 public:
  explicit Memory(bool keep_unflushed = false)
      : bytes_(static_cast<std::uint8_t*>(std::aligned_alloc(4096, kArenaBytes))) {
    std::memset(base(), 0, kArenaBytes);
    std::memcpy(base(), "STKPAGES", 8);
    layout::put<std::uint32_t>(base() + 8, 1);
    layout::put<std::uint32_t>(base() + 32, 0x5A17);
    layout::put<std::uint32_t>(base() + 36, keep_unflushed ? 1 : 0);
    layout::put<std::uint64_t>(base() + 40, kSlots);
    layout::put<std::uint64_t>(base() + 72, kSlotOffset);
    layout::put<std::uint64_t>(base() + 88, kRingOffset);
    layout::put<std::uint64_t>(base() + 96, kRingBytes);
    layout::put<std::uint64_t>(base() + 104, kDataOffset);
    layout::put<std::uint64_t>(base() + 112, kDataBytes);
    word(layout::kFloorLsn) = 1;
    word(layout::kBreak) = kDataOffset;
    word(layout::kBacked) = kArenaBytes;
    word(layout::kSlotsBacked) = kSlots;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(lock(), &kind);
    pthread_mutexattr_destroy(&kind);
  }
  ~Memory() { pthread_mutex_destroy(lock()); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  std::uint8_t* base() const { return bytes_.get(); }
  std::uint64_t& word(std::size_t index) const { return reinterpret_cast<std::uint64_t*>(base())[index]; }
  pthread_mutex_t* lock() const { return reinterpret_cast<pthread_mutex_t*>(&word(layout::kCommitLock)); }
  Arena arena() const { return Arena(base(), kArenaBytes); }

 private:
  std::unique_ptr<std::uint8_t, Free> bytes_;
};

// Does one thing with the lock held.
template <typename Work>
ArenaResult locked(Arena& arena, Work work) {
  while (arena.lock() != 0) {  // it waits a moment only
  }
  const ArenaResult result = work();
  arena.unlock();
  return result;
}

// Frames from the floor on: LSNs follow each other, checksums hold, and the last one ends a commit.
bool ring_is_sound(const Memory& memory) {
  std::uint64_t at = memory.word(layout::kFloorPos), lsn = memory.word(layout::kFloorLsn);
  const std::uint64_t end = memory.word(layout::kCommittedPos);
  bool last = true;
  while (at < end) {
    const std::uint8_t* const frame = memory.base() + kRingOffset + at % kRingBytes;
    const auto length = layout::get<std::uint32_t>(frame);
    if (length == layout::kSkip) {
      at += kRingBytes - at % kRingBytes;
      continue;
    }
    if (layout::get<std::uint64_t>(frame + 8) != lsn) return false;
    if (layout::get<std::uint32_t>(frame + 4) != stoker::crc32c(frame + 8, length - 8, 0x5A17)) return false;
    last = frame[43] == layout::kLast;
    at += length;
    ++lsn;
  }
  return last && at == end && lsn == memory.word(layout::kCommittedLsn) + 1;
}

void memory_that_is_no_arena_is_refused() {
  Memory memory;
  CHECK(Arena::fits(memory.base(), kArenaBytes));
  CHECK(!Arena::fits(memory.base(), kArenaBytes - 1));
  CHECK(!Arena::fits(memory.base(), 100));
  layout::put<std::uint32_t>(memory.base() + 8, 2);
  CHECK(!Arena::fits(memory.base(), kArenaBytes));
  layout::put<std::uint32_t>(memory.base() + 8, 1);
  layout::put<std::uint64_t>(memory.base() + 88, ~std::uint64_t{0});
  CHECK(!Arena::fits(memory.base(), kArenaBytes));
}

void one_page_is_written_read_and_removed() {
  Memory memory;
  Arena arena = memory.arena();
  const ArenaResult made = arena.allocate(300);
  CHECK(made.status == ArenaStatus::done && made.value == 1);
  CHECK(arena.page_bytes(made.value) == 300);
  std::vector<std::uint8_t> data(300, 7), out(300, 1);
  CHECK(arena.read(made.value, out.data(), 300).status == ArenaStatus::done);
  CHECK(std::count(out.begin(), out.end(), 0) == 300);
  CHECK(arena.write(made.value, data.data(), 300, 0, 0).value == 2);
  CHECK(arena.write(made.value, data.data(), 300, -1, 0).value == 2);  // nothing differs
  CHECK(arena.write(made.value, data.data(), 300, 0, 0).status == ArenaStatus::conflict);
  data[11] = 9;
  CHECK(arena.write_at(made.value, 11, data.data() + 11, 1, 1, 0).value == 3);
  CHECK(arena.write_at(made.value, 299, data.data(), 2, -1, 0).status == ArenaStatus::slow);
  CHECK(arena.read(made.value, out.data(), 300).value == 2);
  CHECK(out == data);
  CHECK(arena.read(made.value, out.data(), 299).status == ArenaStatus::slow);
  CHECK(arena.release(made.value).status == ArenaStatus::done);
  CHECK(arena.release(made.value).status == ArenaStatus::not_found);
  CHECK(arena.read(made.value, out.data(), 300).status == ArenaStatus::slow);
  const ArenaResult again = arena.allocate(300);
  CHECK(again.value == (std::uint64_t{1} << 32 | 1));
  CHECK(arena.read(again.value, out.data(), 300).status == ArenaStatus::done);
  CHECK(std::count(out.begin(), out.end(), 0) == 300);
  CHECK(ring_is_sound(memory));
}

void what_is_rare_is_left_to_the_long_way() {
  Memory memory;
  Arena arena = memory.arena();
  const std::uint64_t page = arena.allocate(64).value;
  std::vector<std::uint8_t> data(64, 1);
  memory.word(layout::kPinMax) = 2;  // a snapshot that sees the page as it is
  CHECK(arena.write(page, data.data(), 64, -1, 0).status == ArenaStatus::slow);
  CHECK(arena.release(page).status == ArenaStatus::slow);
  memory.word(layout::kPinMax) = 0;
  memory.word(layout::kPoison) = EIO;
  CHECK(arena.write(page, data.data(), 64, -1, 0).status == ArenaStatus::slow);
  CHECK(arena.allocate(64).status == ArenaStatus::slow);
  memory.word(layout::kPoison) = 0;
  memory.word(layout::kIntentPos) += 64;  // a commit that was begun and not ended
  CHECK(arena.write(page, data.data(), 64, -1, 0).status == ArenaStatus::slow);
}

// A reader that copies while a page is removed finds another SEQ afterwards; the extent is in its list.
void a_removed_page_is_seen_to_have_changed() {
  Memory memory;
  Arena arena = memory.arena();
  const std::uint64_t first = arena.allocate(64).value, page = arena.allocate(64).value;
  arena.release(first);
  const std::uint8_t* const slot = memory.base() + kSlotOffset + (page & layout::kSlotMask) * layout::kSlotBytes;
  const auto before = layout::get<std::uint64_t>(slot);
  arena.release(page);
  CHECK(layout::get<std::uint64_t>(slot) == before + 2);
  const auto offset = layout::get<std::uint64_t>(slot + 8 * layout::kOffset);
  CHECK(memory.word(layout::kFreeLists) == offset);
}

// Rows that do not differ must leave no border of the ring behind which no frame lies.
void an_update_without_a_change_leaves_the_ring_as_it_was() {
  Memory memory(true);
  Arena arena = memory.arena();
  constexpr std::size_t kRow = 3000;
  std::uint64_t pages[2] = {arena.allocate(kRow).value, arena.allocate(kRow).value};
  std::vector<std::uint8_t> rows(2 * kRow, 0);
  for (int round = 1; round < 400; ++round) {
    std::fill_n(rows.begin(), kRow, static_cast<std::uint8_t>(round));
    const std::uint64_t committed = memory.word(layout::kCommittedPos);
    memory.word(layout::kFlushedPos) = committed > kRingBytes / 2 ? committed - kRingBytes / 2 : 0;
    const std::uint64_t start = committed % kRingBytes;
    CHECK(arena.update_many(pages, 2, rows.data(), kRow, 0).status == ArenaStatus::done);
    const std::uint64_t end = memory.word(layout::kCommittedPos);
    CHECK(end % kRingBytes != 0 || start != 0);
    CHECK(end % kRingBytes > 0);
    CHECK(ring_is_sound(memory));
  }
}

struct Tally {
  std::atomic<std::uint64_t> torn{0}, reads{0}, commits{0};
};

// Every page is of one byte value throughout, whenever it is read.
void read_patterns(const Memory& memory, const std::vector<std::atomic<std::uint64_t>>& pages, std::atomic<bool>& stop,
                   Tally& tally) {
  const Arena arena = memory.arena();
  std::vector<std::uint8_t> out(2048);
  while (!stop) {
    for (const auto& shared : pages) {
      const std::uint64_t page = shared;
      const std::size_t size = arena.page_bytes(page);
      if (size == 0 || size > out.size() || arena.read(page, out.data(), size).status != ArenaStatus::done) continue;
      ++tally.reads;
      if (std::count(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(size), out[0]) !=
          static_cast<std::ptrdiff_t>(size)) {
        ++tally.torn;
      }
    }
  }
}

void write_patterns(const Memory& memory, std::vector<std::atomic<std::uint64_t>>& pages, unsigned seed, int rounds,
                    Tally& tally) {
  Arena arena = memory.arena();
  std::vector<std::uint8_t> data(2048);
  for (int round = 0; round < rounds; ++round) {
    seed = seed * 1664525U + 1013904223U;
    auto& shared = pages[(seed >> 8) % pages.size()];
    const std::uint64_t page = shared;
    std::fill(data.begin(), data.end(), static_cast<std::uint8_t>(seed >> 16));
    ArenaResult result = locked(arena, [&]() -> ArenaResult {
      const std::size_t size = arena.page_bytes(page);
      if (size == 0) return {ArenaStatus::not_found, 0};
      if (seed >> 28 != 0) return arena.write(page, data.data(), size, -1, 0);
      // Freed and made anew, of another size, out of the same extents.
      const ArenaResult freed = arena.release(page);
      if (freed.status == ArenaStatus::done) shared = arena.allocate(64 + (seed >> 4) % 1900).value;
      return freed;
    });
    if (result.status == ArenaStatus::done) ++tally.commits;
  }
}

void many_threads_read_no_torn_page() {
  Memory memory;
  Arena arena = memory.arena();
  std::vector<std::atomic<std::uint64_t>> pages(12);
  for (auto& page : pages) page = arena.allocate(700).value;
  Tally tally;
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers, writers;
  for (int index = 0; index < 3; ++index) {
    readers.emplace_back([&] { read_patterns(memory, pages, stop, tally); });
  }
  for (unsigned index = 0; index < 3; ++index) {
    writers.emplace_back([&, index] { write_patterns(memory, pages, index + 1, 3000, tally); });
  }
  for (auto& writer : writers) writer.join();
  stop = true;
  for (auto& reader : readers) reader.join();
  CHECK(tally.torn == 0);
  CHECK(tally.reads > 0 && tally.commits > 1000);
  CHECK(ring_is_sound(memory));
  CHECK(memory.word(layout::kLivePages) == pages.size());
}

void every_size_has_the_smallest_class_that_holds_it() {
  std::uint32_t kind = 0;
  for (std::size_t size_bytes = 1; size_bytes <= layout::kSmallBytesMax; ++size_bytes) {
    while (layout::class_bytes(kind) < size_bytes) ++kind;
    CHECK(layout::class_of(size_bytes) == kind);
  }
  CHECK(kind + 1 == layout::kSmallClasses);
}

void what_is_behind_a_payload_is_zero() {
  for (std::size_t payload_bytes = 1; payload_bytes <= 64; ++payload_bytes) {
    std::vector<std::uint8_t> memory(payload_bytes + layout::kPadRoom, 0xEE);
    layout::pad(memory.data(), payload_bytes);
    for (std::size_t at = 0; at < payload_bytes; ++at) CHECK(memory[at] == 0xEE);
    for (std::size_t at = payload_bytes; at < layout::padded(payload_bytes); ++at) CHECK(memory[at] == 0);
  }
}

// No frame, nor what pads it, leaves the ring.
void odd_sizes_up_to_the_ring_s_end_touch_nothing_behind_it() {
  Memory memory;
  Arena arena = memory.arena();
  arena.allocate(64);  // lies behind the ring, and stays as it is
  const std::uint64_t page = arena.allocate(61).value;
  std::vector<std::uint8_t> data(61), behind(64);
  std::uint8_t* const end = memory.base() + kRingOffset + kRingBytes;
  std::memcpy(behind.data(), end, behind.size());
  for (std::size_t turn = 0; turn < 4 * kRingBytes / 120; ++turn) {
    for (std::uint8_t& byte : data) byte = static_cast<std::uint8_t>(turn + 1);
    CHECK(arena.write(page, data.data(), data.size(), -1, 0).status == ArenaStatus::done);
    CHECK(std::memcmp(behind.data(), end, behind.size()) == 0);
  }
  CHECK(ring_is_sound(memory));
}

}  // namespace

int main() {
  every_size_has_the_smallest_class_that_holds_it();
  what_is_behind_a_payload_is_zero();
  odd_sizes_up_to_the_ring_s_end_touch_nothing_behind_it();
  memory_that_is_no_arena_is_refused();
  one_page_is_written_read_and_removed();
  what_is_rare_is_left_to_the_long_way();
  a_removed_page_is_seen_to_have_changed();
  an_update_without_a_change_leaves_the_ring_as_it_was();
  many_threads_read_no_torn_page();
  RETURN_RESULT();
}
