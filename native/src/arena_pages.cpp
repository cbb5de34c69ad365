// The short ways by which pages come and go; see stoker/arena.hpp.
#include <algorithm>

#include "arena_parts.hpp"

namespace stoker {

using namespace arena;  // NOLINT: the names of the layout are this file's vocabulary

// An extent of a small class, 0 where the lists and the backed memory have none.
std::uint64_t Arena::take_extent(std::uint32_t kind) {
  std::uint64_t& head = word(kFreeLists + kind);
  step();
  if (head != 0) {
    const std::uint64_t offset = head;
    if (offset % 8 != 0 || offset < data_offset_ || offset > arena_bytes_ - class_bytes(kind)) return 0;
    store(head, get<std::uint64_t>(base_ + offset));
    return offset;
  }
  const std::uint64_t offset = (word(kBreak) + 63) & ~std::uint64_t{63};
  if (offset + class_bytes(kind) > word(kBacked)) return 0;
  store(word(kBreak), offset + class_bytes(kind));
  return offset;
}

// Nothing may name the extent any more: its first bytes become the link of the list.
void Arena::give_extent(std::uint64_t offset, std::uint64_t kind) {
  std::uint8_t link[8];
  put<std::uint64_t>(link, word(kFreeLists + kind));
  copy_shared(base_ + offset, link, sizeof link);
  step();
  store(word(kFreeLists + kind), offset);
  step();
}

ArenaResult Arena::allocate(std::size_t size_bytes) {
  Writing writing;
  if (size_bytes == 0 || size_bytes > kSmallBytesMax || !begin(writing, 0)) return {ArenaStatus::slow, 0};
  const std::uint32_t kind = class_of(size_bytes);
  const bool recycled = word(kSlotFree) != 0;
  const std::uint64_t number = recycled ? word(kSlotFree) : word(kSlotsUsed) + 1;
  if (number > page_slots_ || (!recycled && number > word(kSlotsBacked))) return {ArenaStatus::slow, 0};
  auto* const at = reinterpret_cast<std::uint64_t*>(base_ + slot_offset_ + number * kSlotBytes);
  std::uint8_t* const frame_at = place(writing, kCreateRecordBytes);
  const std::uint64_t offset = frame_at == nullptr ? 0 : take_extent(kind);
  if (offset == 0) return {ArenaStatus::slow, 0};
  step();
  store(word(recycled ? kSlotFree : kSlotsUsed), recycled ? at[kNextFree] : number);
  std::uint64_t generation = word(kGeneration);
  if (at[kId] != 0) generation = std::max(generation, (at[kId] >> 32) + 1);
  const std::uint64_t page = generation << 32 | number;
  std::uint8_t* const record = frame_at + kFrameHeaderBytes;
  std::memset(record, 0, kCreateRecordBytes);
  put<std::uint64_t>(record, size_bytes);
  put<std::uint64_t>(record + 8, offset);
  put<std::uint32_t>(record + 16, kind);
  record[20] = static_cast<std::uint8_t>(kClean);
  frame(writing, page, 0, kCreate, kRaw, 1, kCreateRecordBytes);
  const std::uint64_t lsn = intend(writing);
  const std::uint64_t sequence = at[kSeq] | 1;
  store(at[kSeq], sequence);
  std::atomic_thread_fence(std::memory_order_release);
  step();
  zero_shared(base_ + offset, size_bytes);
  step();
  const auto say = [&](Slot index, std::uint64_t value) {
    store(at[index], value);
    step();
  };
  say(kEpoch, 0);
  say(kOffset, offset);
  say(kSize, size_bytes);
  say(kTraits, kClean | std::uint64_t{1} << 24);
  say(kExtent, kind);
  say(kMetaOffset, 0);
  say(kMeta, 0);
  say(kCreatedLsn, lsn);
  say(kId, page);
  say(kBytesLsn, lsn);
  say(kLsn, lsn);
  say(kSeq, sequence + 1);
  word(kLivePages) += 1;
  step();
  word(kLiveBytes) += size_bytes;
  publish(writing);
  count(kAllocations, 1);
  return {ArenaStatus::done, page};
}

ArenaResult Arena::release(std::uint64_t page) {
  std::uint64_t* const at = slot(page);
  if (at == nullptr) return {ArenaStatus::not_found, 0};
  Writing writing;
  const std::uint64_t kind = at[kExtent], size_bytes = at[kSize];
  if (load(word(kPinMax)) != 0 || at[kMeta] != 0 || kind >= kSmallClasses || !begin(writing, 0)) {
    return {ArenaStatus::slow, 0};
  }
  if (place(writing, 0) == nullptr) return {ArenaStatus::slow, 0};
  frame(writing, page, at[kEpoch], kFree, kRaw, static_cast<int>(at[kTraits] >> 24 & 0xFF), 0);
  const std::uint64_t lsn = intend(writing);
  const std::uint64_t sequence = at[kSeq] | 1;
  store(at[kSeq], sequence);
  std::atomic_thread_fence(std::memory_order_release);
  step();
  store(at[kTraits], kFreed);
  step();
  store(at[kLsn], lsn);
  step();
  store(at[kSeq], sequence + 1);
  step();
  store(at[kNextFree], word(kSlotFree));
  step();
  store(word(kSlotFree), page & kSlotMask);
  step();
  // Last: whoever still copies the bytes finds another SEQ afterwards.
  give_extent(at[kOffset], kind);
  word(kLivePages) -= 1;
  step();
  word(kLiveBytes) -= size_bytes;
  publish(writing);
  count(kFrees, 1);
  return {ArenaStatus::done, lsn};
}

}  // namespace stoker
