#include "stoker/arena.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "arena_parts.hpp"
#include "stoker/check.hpp"
#include "stoker/delta.hpp"

namespace stoker {

using namespace arena;  // NOLINT: the names of the layout are this file's vocabulary

namespace {

// The time of the kernel's last tick, up to 4 ms ago: a commit is too short for a better one.
std::uint64_t tick_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

void arena_kill_at(int count) { kill_countdown = count; }

void die_here() { kill(getpid(), SIGKILL); }

bool Arena::fits(const std::uint8_t* base, std::size_t arena_bytes) {
  if (arena_bytes < 4096 || std::memcmp(base, "STKPAGES", 8) != 0 || get<std::uint32_t>(base + 8) != 1) return false;
  const std::uint64_t slots = get<std::uint64_t>(base + 40), slot_offset = get<std::uint64_t>(base + 72);
  const std::uint64_t ring_offset = get<std::uint64_t>(base + 88), ring_bytes = get<std::uint64_t>(base + 96);
  const std::uint64_t data_offset = get<std::uint64_t>(base + 104), data_bytes = get<std::uint64_t>(base + 112);
  const auto within = [&](std::uint64_t offset, std::uint64_t size) {
    return offset <= arena_bytes && size <= arena_bytes - offset;
  };
  return slots < (1U << 31) && within(slot_offset, (slots + 1) * kSlotBytes) && within(ring_offset, ring_bytes) &&
         ring_bytes % 4096 == 0 && ring_bytes != 0 && within(data_offset, data_bytes);
}

Arena::Arena(std::uint8_t* base, std::size_t arena_bytes)
    : base_(base),
      words_(reinterpret_cast<std::uint64_t*>(base)),
      arena_bytes_(arena_bytes),
      page_slots_(get<std::uint64_t>(base + 40)),
      slot_offset_(get<std::uint64_t>(base + 72)),
      ring_offset_(get<std::uint64_t>(base + 88)),
      ring_bytes_(get<std::uint64_t>(base + 96)),
      data_offset_(get<std::uint64_t>(base + 104)),
      salt_(get<std::uint32_t>(base + 32)),
      keep_unflushed_((get<std::uint32_t>(base + 36) & 1) != 0) {}

int Arena::try_lock() { return pthread_mutex_trylock(reinterpret_cast<pthread_mutex_t*>(words_ + kCommitLock)); }
int Arena::lock() {
  constexpr std::int64_t kWaitNs = 200'000'000;
  timespec until{};
  clock_gettime(CLOCK_REALTIME, &until);
  const std::int64_t nanoseconds = until.tv_nsec + kWaitNs;
  until.tv_sec += nanoseconds / 1'000'000'000;
  until.tv_nsec = nanoseconds % 1'000'000'000;
  return pthread_mutex_timedlock(reinterpret_cast<pthread_mutex_t*>(words_ + kCommitLock), &until);
}
void Arena::unlock() { pthread_mutex_unlock(reinterpret_cast<pthread_mutex_t*>(words_ + kCommitLock)); }

void Arena::count(std::size_t counter, std::uint64_t more) const { words_[kCounters + counter] += more; }

void Arena::fetch(std::uint64_t page) const {
  const std::uint64_t* const at = seat(page);
  if (at == nullptr) return;
  __builtin_prefetch(at, 1);
  __builtin_prefetch(at + kBytesLsn, 1);
}

void Arena::fetch_bytes(std::uint64_t page) const {
  constexpr std::size_t kMost = 1024;  // the processor goes on by itself with what is longer
  const std::uint64_t* const at = slot(page);
  if (at != nullptr) fetch_to_write(base_ + load(at[kOffset]), std::min<std::size_t>(load(at[kSize]), kMost));
}

std::size_t Arena::page_bytes(std::uint64_t page) const {
  const std::uint64_t* const at = slot(page);
  return at == nullptr ? 0 : load(at[kSize]);
}

ArenaResult Arena::read(std::uint64_t page, std::uint8_t* out, std::size_t size_bytes) const {
  constexpr int kTries = 200;
  const std::uint64_t* const at = seat(page);
  if (at == nullptr) return {ArenaStatus::slow, 0};
  for (int tries = 0; tries < kTries; ++tries) {
    // SEQ comes first: a page that was seen to live before it may have been freed since.
    const std::uint64_t before = load(at[kSeq]);
    if ((before & 1) != 0) continue;
    if (sound(page) == nullptr) return {ArenaStatus::slow, 0};
    const std::uint64_t offset = load(at[kOffset]), epoch = load(at[kEpoch]);
    if (load(at[kSize]) != size_bytes || offset > arena_bytes_ || size_bytes > arena_bytes_ - offset) {
      return {ArenaStatus::slow, 0};
    }
    copy_shared(out, base_ + offset, size_bytes);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load(at[kSeq]) == before) return {ArenaStatus::done, epoch};
  }
  return {ArenaStatus::slow, 0};
}

// -- the ring ---------------------------------------------------------------------------------------------------------

namespace {

// The ring is large and mostly out of the caches. What the floor steps over next, and frames overwrite soon after, is
// fetched some frames ahead: as many bytes as a frame takes, so that frame by frame nothing is left out. Who writes a
// long one fetches what it needs by itself.
[[gnu::always_inline]] inline void fetch_ahead(const std::uint8_t* frame, std::size_t length) {
  constexpr std::size_t kLongBytes = 4096;
  if (length <= kLongBytes) fetch_to_write(frame + kAheadBytes, length);
}

}  // namespace

bool Arena::begin(Writing& writing, std::uint32_t source) const {
  const std::uint64_t committed = load(word(kCommittedPos));
  if (load(word(kPoison)) != 0 || load(word(kIntentPos)) != committed) return false;
  writing.end = committed;
  writing.at = ring_at(committed);
  writing.lsn = load(word(kCommittedLsn));
  writing.time_ns = tick_ns();
  writing.source = source;
  writing.wrapped = false;
  writing.open = nullptr;
  writing.wrap = 0;
  writing.frames = writing.deltas = writing.images = writing.delta_bytes = writing.changed_bytes = 0;
  return true;
}

// Room for a frame with a payload of up to so many bytes, null where the ring has none for it now.
std::uint8_t* Arena::place(Writing& writing, std::size_t payload_bound) {
  const std::uint64_t bound = kFrameHeaderBytes + padded(payload_bound);
  const bool laps = writing.at + bound > ring_bytes_;
  const std::uint64_t at = laps ? 0 : writing.at;
  const std::uint64_t begin = laps ? writing.end + ring_bytes_ - writing.at : writing.end;
  const std::uint64_t end = begin + bound;
  if (end - load(word(kCommittedPos)) > ring_bytes_ / 2) return nullptr;
  if (keep_unflushed_ && end - load(word(kFlushedPos)) > ring_bytes_) return nullptr;
  step();
  if (end > load(word(kReservedPos))) store(word(kReservedPos), end);
  step();
  if (end > mapped_) map_ahead(end);
  if (end > ring_bytes_) raise_floor(end - ring_bytes_);
  if (laps) put<std::uint32_t>(base_ + ring_offset_ + writing.at, kSkip);
  if (at == 0 && !writing.wrapped) {
    writing.wrap = writing.end;
    writing.wrapped = true;
  }
  writing.end = begin;
  writing.at = at;
  return base_ + ring_offset_ + at;
}

// Has the kernel map the ring's memory some way ahead of its first use here: one call for many pages costs a fraction
// of a fault for each of them. Where the kernel knows no such call, each page is mapped by a fault of its own.
void Arena::map_ahead(std::uint64_t end) {
  constexpr std::uint64_t kMapBytes = 256 << 10;
  const std::uint64_t begin = end / kMapBytes * kMapBytes, at = begin % ring_bytes_;
  if (unmapped_ == ~std::uint64_t{0}) unmapped_ = ring_bytes_ + kMapBytes;  // a lap, wherever it begins
  mapped_ = unmapped_ == 0 ? ~std::uint64_t{0} : begin + kMapBytes;
  unmapped_ -= std::min(unmapped_, kMapBytes);
#ifdef MADV_POPULATE_WRITE
  madvise(base_ + ring_offset_ + at, std::min(kMapBytes, ring_bytes_ - at), MADV_POPULATE_WRITE);
#endif
}

// Where a position lies in the ring; mostly it is that of the last commit.
std::uint64_t Arena::ring_at(std::uint64_t position) const {
  if (position != end_) {
    end_at_ = position % ring_bytes_;
    end_ = position;
  }
  return end_at_;
}

void Arena::raise_floor(std::uint64_t least) {
  std::uint64_t floor = word(kFloorPos), lsn = word(kFloorLsn);
  if (floor >= least) return;
  std::uint64_t at = floor == floor_ ? floor_at_ : floor % ring_bytes_;
  const std::uint8_t* const ring = base_ + ring_offset_;
  while (floor < least) {
    const auto length = get<std::uint32_t>(ring + at);
    if (length == kSkip) {
      floor += ring_bytes_ - at;
      at = 0;
    } else {
      fetch_ahead(ring + at, length);
      floor += length;
      at += length;
      if (at >= ring_bytes_) at %= ring_bytes_;
      ++lsn;
    }
  }
  floor_ = floor;
  floor_at_ = at;
  store(word(kFloorLsn), lsn);
  step();
  store(word(kFloorPos), floor);
  step();
}

namespace {

void close_frame(std::uint8_t* frame, bool last, std::uint32_t salt) {
  frame[43] = last ? kLast : 0;
  const auto length = get<std::uint32_t>(frame);
  put<std::uint32_t>(frame + 4, crc32c(frame + 8, length - 8, salt));
}

}  // namespace

// Fills in the header of the frame that begins at writing.end, behind which its payload lies already.
void Arena::frame(Writing& writing, std::uint64_t page, std::uint64_t epoch, int type, int codec, int elem_width,
                  std::size_t payload_bytes) {
  if (writing.open != nullptr) close_frame(writing.open, false, salt_);
  std::uint8_t* const at = base_ + ring_offset_ + writing.at;
  const std::size_t length = kFrameHeaderBytes + padded(payload_bytes);
  pad(at + kFrameHeaderBytes, payload_bytes);
  put<std::uint32_t>(at, static_cast<std::uint32_t>(length));
  put<std::uint64_t>(at + 8, ++writing.lsn);
  put<std::uint64_t>(at + 16, page);
  put<std::uint64_t>(at + 24, epoch);
  put<std::uint64_t>(at + 32, writing.time_ns);
  at[40] = static_cast<std::uint8_t>(type);
  at[41] = static_cast<std::uint8_t>(codec);
  at[42] = static_cast<std::uint8_t>(elem_width);
  put<std::uint32_t>(at + 44, writing.source);
  put<std::uint32_t>(at + 48, static_cast<std::uint32_t>(payload_bytes));
  put<std::uint32_t>(at + 52, 0);
  if (writing.end < ring_bytes_) fetch_ahead(at, length);  // later laps fetch as the floor rises
  writing.open = at;
  writing.end += length;
  writing.at = writing.at + length == ring_bytes_ ? 0 : writing.at + length;
  ++writing.frames;
}

// From here on the commit happens, whoever dies. Returns the LSN of its first frame.
std::uint64_t Arena::intend(Writing& writing) {
  close_frame(writing.open, true, salt_);
  step();
  if (writing.wrapped) store(word(kWrapPos), writing.wrap);
  step();
  store(word(kIntentLsn), writing.lsn);
  step();
  store(word(kIntentPos), writing.end);
  step();
  return writing.lsn - writing.frames + 1;
}

void Arena::publish(const Writing& writing) {
  step();
  store(word(kCommittedLsn), writing.lsn);
  step();
  store(word(kCommittedPos), writing.end);
  step();
  end_ = writing.end;
  end_at_ = writing.at;
  count(kCommits, 1);
  count(kFrames, writing.frames);
  count(kDeltas, writing.deltas);
  count(kImages, writing.images);
  count(kDeltaBytes, writing.delta_bytes);
  count(kChangedBytes, writing.changed_bytes);
}

// -- writing ----------------------------------------------------------------------------------------------------------

std::uint64_t* Arena::writable(std::uint64_t page, std::size_t size_bytes, std::int64_t expect_epoch,
                               ArenaStatus& status) {
  std::uint64_t* const at = slot(page);
  status = ArenaStatus::not_found;
  if (at == nullptr) return nullptr;
  status = ArenaStatus::slow;
  // A page that a snapshot holds goes on in another extent: the long way.
  if ((load(at[kTraits]) & 0xFF) == kQuarantined) return nullptr;
  if (load(at[kSize]) < size_bytes || load(at[kBytesLsn]) < load(word(kPinMax)) || (load(at[kSeq]) & 1) != 0) return nullptr;
  if (expect_epoch >= 0 && load(at[kEpoch]) != static_cast<std::uint64_t>(expect_epoch)) {
    count(kConflicts, 1);
    status = ArenaStatus::conflict;
    return nullptr;
  }
  status = ArenaStatus::done;
  return at;
}

// Adds a frame that makes the page equal to `data`; false where nothing differs or the ring has no room (then `open`
// is as it was and writing.end tells: it is 0 for no room).
bool Arena::diff_frame(Writing& writing, std::uint64_t page, const std::uint64_t* at, const std::uint8_t* data,
                       bool more) {
  const std::size_t size_bytes = at[kSize];
  const std::uint64_t end = writing.end, ring_place = writing.at, wrap = writing.wrap;
  const bool wrapped = writing.wrapped;
  std::uint8_t* const frame_at = place(writing, std::max(two_level_bound(size_bytes), size_bytes));
  if (frame_at == nullptr) {
    writing.end = 0;
    return false;
  }
  std::uint8_t* const payload = frame_at + kFrameHeaderBytes;
  const DeltaSize size = two_level_diff(base_ + at[kOffset], data, size_bytes, payload, more);
  if (size.payload_bytes == 0) {
    // A lap that no frame began would leave the log with a false border.
    writing.end = end;
    writing.at = ring_place;
    writing.wrap = wrap;
    writing.wrapped = wrapped;
    count(kUnchanged, 1);
    return false;
  }
  std::size_t payload_bytes = size.payload_bytes;
  const bool image = payload_bytes >= size_bytes;
  if (image) {
    std::memcpy(payload, data, size_bytes);
    payload_bytes = size_bytes;
  }
  frame(writing, page, at[kEpoch] + 1, image ? kImage : kDelta, image ? kRaw : kTwoLevel,
        static_cast<int>(at[kTraits] >> 24 & 0xFF), payload_bytes);
  ++(image ? writing.images : writing.deltas);
  writing.delta_bytes += payload_bytes;
  writing.changed_bytes += size.changed_bytes;
  return true;
}

// Does to a page what a frame of ours says; `image` is what the page becomes, for frames made by diff_frame.
void Arena::overwrite(std::uint64_t* at, std::uint64_t lsn, const std::uint8_t* frame_at, const std::uint8_t* image,
                      bool far) {
  const std::uint64_t sequence = begin_change(at);
  const std::uint8_t* const payload = frame_at + kFrameHeaderBytes;
  const std::size_t payload_bytes = get<std::uint32_t>(frame_at + 48);
  std::uint8_t* const page = base_ + at[kOffset];
  if (frame_at[40] == kImage) {
    copy_shared(page, payload, payload_bytes);
  } else if (frame_at[41] == kTwoLevel) {
    two_level_copy(page, image, at[kSize], payload, far);
  } else {
    copy_shared(page + get<std::uint64_t>(payload), payload + kRunRecordBytes, get<std::uint64_t>(payload + 8));
  }
  finish_overwrite(at, sequence, get<std::uint64_t>(frame_at + 24), lsn);
}

ArenaResult Arena::write(std::uint64_t page, const std::uint8_t* data, std::size_t size_bytes,
                         std::int64_t expect_epoch, std::uint32_t source) {
  ArenaStatus status{};
  std::uint64_t* const at = writable(page, size_bytes, expect_epoch, status);
  if (at == nullptr) return {status, 0};
  Writing writing;
  if (at[kSize] != size_bytes || !begin(writing, source)) return {ArenaStatus::slow, 0};
  if (!diff_frame(writing, page, at, data, false)) {
    return {writing.end == 0 ? ArenaStatus::slow : ArenaStatus::done, load(word(kCommittedLsn))};
  }
  const std::uint8_t* const made = writing.open;
  const std::uint64_t lsn = intend(writing);
  overwrite(at, lsn, made, data);
  publish(writing);
  return {ArenaStatus::done, lsn};
}

ArenaResult Arena::write_at(std::uint64_t page, std::uint64_t offset, const std::uint8_t* data,
                            std::size_t size_bytes, std::int64_t expect_epoch, std::uint32_t source) {
  ArenaStatus status{};
  std::uint64_t* const at = writable(page, size_bytes, expect_epoch, status);
  if (at == nullptr) return {status, 0};
  Writing writing;
  if (offset > at[kSize] - size_bytes || !begin(writing, source)) return {ArenaStatus::slow, 0};
  const std::uint8_t* const now = base_ + at[kOffset] + offset;
  std::size_t first = 0, end = size_bytes;
  while (first < end && now[first] == data[first]) ++first;
  while (end > first && now[end - 1] == data[end - 1]) --end;
  if (first == end) {
    count(kUnchanged, 1);
    return {ArenaStatus::done, load(word(kCommittedLsn))};
  }
  const std::size_t payload_bytes = kRunRecordBytes + padded(end - first);
  std::uint8_t* const frame_at = place(writing, payload_bytes);
  if (frame_at == nullptr) return {ArenaStatus::slow, 0};
  std::uint8_t* const payload = frame_at + kFrameHeaderBytes;
  std::memset(payload + payload_bytes - 8, 0, 8);
  put<std::uint64_t>(payload, offset + first);
  put<std::uint64_t>(payload + 8, end - first);
  std::memcpy(payload + kRunRecordBytes, data + first, end - first);
  frame(writing, page, at[kEpoch] + 1, kDelta, kRuns, static_cast<int>(at[kTraits] >> 24 & 0xFF), payload_bytes);
  ++writing.deltas;
  writing.delta_bytes += payload_bytes;
  writing.changed_bytes += end - first;
  const std::uint64_t lsn = intend(writing);
  overwrite(at, lsn, frame_at, nullptr);
  publish(writing);
  return {ArenaStatus::done, lsn};
}

ArenaResult Arena::update_many(const std::uint64_t* pages, std::size_t count_pages, const std::uint8_t* rows,
                               std::size_t row_bytes, std::uint32_t source) {
  Writing writing;
  if (!begin(writing, source)) return {ArenaStatus::slow, 0};
  std::vector<bool> met(page_slots_ + 1, false);
  struct Change {
    std::uint64_t* at;
    const std::uint8_t* frame;
    const std::uint8_t* image;
  };
  std::vector<Change> changes;
  changes.reserve(count_pages);
  for (std::size_t index = 0; index < count_pages; ++index) {
    ArenaStatus status{};
    std::uint64_t* const at = writable(pages[index], row_bytes, -1, status);
    if (at == nullptr) return {status, 0};
    // A page that is there twice would be compared with what it was before the first.
    if (at[kSize] != row_bytes || met[pages[index] & kSlotMask]) return {ArenaStatus::slow, 0};
    met[pages[index] & kSlotMask] = true;
    if (diff_frame(writing, pages[index], at, rows + index * row_bytes, index + 1 < count_pages)) {
      changes.push_back({at, writing.open, rows + index * row_bytes});
    } else if (writing.end == 0) {
      return {ArenaStatus::slow, 0};
    }
  }
  if (changes.empty()) return {ArenaStatus::done, load(word(kCommittedLsn))};
  std::uint64_t lsn = intend(writing);
  // Pages and rows were read once from the first to the last: then the first are out of the nearer caches.
  constexpr std::size_t kNearBytes = 512 << 10;
  const bool far = count_pages * row_bytes > kNearBytes;
  for (const Change& change : changes) overwrite(change.at, lsn++, change.frame, change.image, far);
  publish(writing);
  return {ArenaStatus::done, writing.lsn};
}

}  // namespace stoker
