// What the files of the arena share; nobody else includes this.
#pragma once

#include "arena_layout.hpp"
#include "stoker/arena.hpp"

namespace stoker {

inline int kill_countdown = 0;
void die_here();

// Between any two of these the process may die; the tests make it so.
inline void step() {
  if (kill_countdown != 0) [[unlikely]] {
    if (--kill_countdown == 0) die_here();
  }
}

constexpr std::size_t kAheadBytes = 1024;  // of the ring, fetched before it is written

// Always in line: a compiler may take a function that only fetches for one that does nothing.
[[gnu::always_inline]] inline void fetch_to_write(const std::uint8_t* begin, std::size_t size_bytes) {
  for (std::size_t at = 0; at < size_bytes; at += 64) __builtin_prefetch(begin + at, 1);
}

// Holds readers off a slot; returns what `finish_overwrite` wants.
inline std::uint64_t begin_change(std::uint64_t* at) {
  const std::uint64_t sequence = at[arena::kSeq] | 1;
  arena::store(at[arena::kSeq], sequence);
  std::atomic_thread_fence(std::memory_order_release);
  step();
  return sequence;
}

// Ends a change of a page's bytes: the LSN comes last but one, for it tells whoever applies the frame again that it
// was done.
inline void finish_overwrite(std::uint64_t* at, std::uint64_t sequence, std::uint64_t epoch, std::uint64_t lsn) {
  using namespace arena;
  step();
  store(at[kTraits], (at[kTraits] & ~std::uint64_t{0xFF}) | kClean);
  step();
  store(at[kEpoch], epoch);
  step();
  store(at[kBytesLsn], lsn);
  step();
  store(at[kLsn], lsn);
  step();
  store(at[kSeq], sequence + 1);
  step();
}

// `begin` fills it in, word by word: to clear it as a whole takes as long as a short frame's checksum.
struct Arena::Writing {
  Writing() {}

  std::uint64_t end;      // position behind the frames so far
  std::uint64_t at;       // where that lies in the ring
  std::uint64_t lsn;      // of the last frame so far
  std::uint64_t time_ns;
  std::uint32_t source;
  bool wrapped;
  std::uint64_t wrap;     // where the lap before ended, when `wrapped`
  std::uint8_t* open;     // the frame that is not closed yet: it may be the last
  std::uint64_t frames, deltas, images, delta_bytes, changed_bytes;
};

// Where the slot of a page is or would be, null for an id that can have none.
inline std::uint64_t* Arena::seat(std::uint64_t page) const {
  const std::uint64_t number = page & arena::kSlotMask;
  if (number == 0 || number > page_slots_) return nullptr;
  return reinterpret_cast<std::uint64_t*>(base_ + slot_offset_ + number * arena::kSlotBytes);
}

// The slot of a live page whose bytes lie in the arena, else null.
inline std::uint64_t* Arena::slot(std::uint64_t page) const {
  std::uint64_t* const at = seat(page);
  if (at == nullptr) return nullptr;
  using namespace arena;
  const std::uint64_t state = load(at[kTraits]) & 0xFF, offset = load(at[kOffset]), size = load(at[kSize]);
  if (load(at[kId]) != page || state < kClean || state > kQuarantined) return nullptr;
  return offset <= arena_bytes_ && size <= arena_bytes_ - offset ? at : nullptr;
}

// The same, of a page whose bytes are trusted.
inline std::uint64_t* Arena::sound(std::uint64_t page) const {
  std::uint64_t* const at = slot(page);
  return at == nullptr || (arena::load(at[arena::kTraits]) & 0xFF) == arena::kQuarantined ? nullptr : at;
}

}  // namespace stoker
