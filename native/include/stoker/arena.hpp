// The short ways through an arena of pages: one page, or many of one size, read and written under the same layout,
// lock and crash protocol as stoker/pages/arena (layout.py, redo.py), which remains the long way for everything rare.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// What an operation came to; nothing was changed unless it is `done`.
enum class ArenaStatus : int {
  done = 0,
  slow = -1,        // not for here: the long way decides
  owner_dead = -2,  // the lock is held, and its last owner died in it: the caller mends
  conflict = -3,    // another epoch than expected
  not_found = -4,   // no live page of this id, or of another size
};

struct ArenaResult {
  ArenaStatus status;
  std::uint64_t value;  // LSN, or id of a page
};

// A view of an arena; the memory belongs to the caller and outlives it.
class Arena {
 public:
  // False where the memory does not look like an arena of this size.
  static bool fits(const std::uint8_t* base, std::size_t arena_bytes);
  Arena(std::uint8_t* base, std::size_t arena_bytes);

  // 0, EBUSY (only try_lock), ETIMEDOUT (only lock: it waits a moment, lest a signal is left unheard), EOWNERDEAD
  // (held), or another error of pthread_mutex_lock.
  int try_lock();
  int lock();
  void unlock();

  // All below but read want the lock.
  ArenaResult write(std::uint64_t page, const std::uint8_t* data, std::size_t size_bytes, std::int64_t expect_epoch,
                    std::uint32_t source);
  ArenaResult write_at(std::uint64_t page, std::uint64_t offset, const std::uint8_t* data, std::size_t size_bytes,
                       std::int64_t expect_epoch, std::uint32_t source);
  // One commit; `rows` holds count images of row_bytes.
  ArenaResult update_many(const std::uint64_t* pages, std::size_t count, const std::uint8_t* rows,
                          std::size_t row_bytes, std::uint32_t source);
  ArenaResult allocate(std::size_t size_bytes);
  ArenaResult release(std::uint64_t page);

  // Has what tells of a page brought near, and then, when that is here, its bytes: for a write that follows soon.
  void fetch(std::uint64_t page) const;
  void fetch_bytes(std::uint64_t page) const;

  // Size of a live page, 0 where there is none.
  std::size_t page_bytes(std::uint64_t page) const;
  // A copy of one moment: `slow` when writers were in the way too often. The value is the epoch.
  ArenaResult read(std::uint64_t page, std::uint8_t* out, std::size_t size_bytes) const;

 private:
  friend class Waves;  // stoker/wave.hpp: a wave of derived pages is one commit
  struct Writing;  // a commit being written to the ring
  inline std::uint64_t* seat(std::uint64_t page) const;  // all three in arena_parts.hpp
  inline std::uint64_t* slot(std::uint64_t page) const;
  inline std::uint64_t* sound(std::uint64_t page) const;
  std::uint64_t* writable(std::uint64_t page, std::size_t size_bytes, std::int64_t expect_epoch, ArenaStatus& status);
  bool begin(Writing& writing, std::uint32_t source) const;
  std::uint8_t* place(Writing& writing, std::size_t payload_bound);
  void frame(Writing& writing, std::uint64_t page, std::uint64_t epoch, int type, int codec, int elem_width,
             std::size_t payload_bytes);
  std::uint64_t intend(Writing& writing);
  void publish(const Writing& writing);
  void overwrite(std::uint64_t* at, std::uint64_t lsn, const std::uint8_t* frame, const std::uint8_t* image,
                 bool far = false);
  bool diff_frame(Writing& writing, std::uint64_t page, const std::uint64_t* at, const std::uint8_t* data,
                  bool more);
  void raise_floor(std::uint64_t least);
  void map_ahead(std::uint64_t end);
  std::uint64_t ring_at(std::uint64_t position) const;
  std::uint64_t take_extent(std::uint32_t kind);
  void give_extent(std::uint64_t offset, std::uint64_t kind);
  std::uint64_t& word(std::size_t index) const { return words_[index]; }
  void count(std::size_t counter, std::uint64_t more) const;

  std::uint8_t* base_;
  std::uint64_t* words_;
  std::size_t arena_bytes_;
  std::uint64_t page_slots_, slot_offset_, ring_offset_, ring_bytes_, data_offset_;
  std::uint32_t salt_;
  bool keep_unflushed_;
  // Where the last commit and the floor lie in the ring: a division for each frame would cost as much as its checksum.
  mutable std::uint64_t end_ = 0, end_at_ = 0, floor_ = 0, floor_at_ = 0;
  // Up to which position the ring is mapped, and how much of it was not when last looked.
  std::uint64_t mapped_ = 0, unmapped_ = ~std::uint64_t{0};
};

// Has this process killed at the count-th step from now, 0 for never: for tests.
void arena_kill_at(int count);

}  // namespace stoker
