// Numbers of stoker/pages/arena/layout.py and stoker/pages/frames.py; a test holds them equal.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace stoker::arena {

enum Word : std::size_t {
  kCommitLock = 32,
  kCommittedPos = 48,
  kCommittedLsn = 49,
  kIntentPos = 50,
  kIntentLsn = 51,
  kReservedPos = 52,
  kFloorPos = 53,
  kFloorLsn = 54,
  kWrapPos = 55,
  kFlushedPos = 56,
  kPoison = 64,
  kGeneration = 65,
  kStructure = 66,
  kPinMax = 67,
  kSlotsUsed = 69,
  kSlotFree = 70,
  kBreak = 71,
  kBacked = 72,
  kSlotsBacked = 73,
  kLivePages = 74,
  kLiveBytes = 75,
  kFreeLists = 80,
  kCounters = 128,
};
enum Counter : std::size_t {
  kCommits = 0,
  kFrames = 1,
  kDeltas = 2,
  kDeltaBytes = 3,
  kChangedBytes = 4,
  kAllocations = 5,
  kFrees = 6,
  kConflicts = 10,
  kUnchanged = 11,
  kImages = 16,
};
enum Slot : std::size_t {
  kSeq = 0,
  kId = 1,
  kEpoch = 2,
  kLsn = 3,
  kOffset = 4,
  kSize = 5,
  kTraits = 6,
  kExtent = 7,
  kMetaOffset = 8,
  kMeta = 9,
  kCreatedLsn = 10,
  kNextFree = 11,
  kBytesLsn = 12,
};
enum FrameType : int { kCreate = 1, kFree = 2, kResize = 3, kDelta = 5, kImage = 6, kState = 8, kWave = 13 };
enum Codec : int { kRaw = 0, kTwoLevel = 1, kRuns = 2 };
enum State : std::uint64_t { kClean = 1, kStale = 3, kQuarantined = 5, kFreed = 6 };

constexpr std::uint64_t kSlotBytes = 128;
constexpr std::uint64_t kSlotMask = 0xFFFFFFFF;
constexpr std::uint32_t kSkip = 0xFFFFFFFF;
constexpr std::size_t kFrameHeaderBytes = 56;
constexpr std::size_t kCreateRecordBytes = 32;
constexpr std::size_t kRunRecordBytes = 16;
constexpr std::size_t kWaveRecordBytes = 24;
constexpr std::size_t kStateRecordBytes = 8;
constexpr std::size_t kWholeBytes = 64;  // a page of a wave up to this size goes whole
constexpr std::size_t kSmallClasses = 21;
constexpr std::size_t kSmallBytesMax = 65536;
constexpr int kLast = 1;

constexpr std::size_t padded(std::size_t size_bytes) { return (size_bytes + 7) & ~std::size_t{7}; }

inline std::uint64_t load(const std::uint64_t& word) {
  return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(word)).load(std::memory_order_acquire);
}
inline void store(std::uint64_t& word, std::uint64_t value) {
  std::atomic_ref<std::uint64_t>(word).store(value, std::memory_order_release);
}
template <typename T>
T get(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <typename T>
void put(std::uint8_t* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

// Zeroes behind a payload up to the next eight bytes, and a few more: there is room for kPadRoom. To look at what the
// payload left there would wait until that is in the ring, which is mostly out of the caches.
constexpr std::size_t kPadRoom = 8;
inline void pad(std::uint8_t* payload, std::size_t payload_bytes) {
  if (payload_bytes % 8 != 0) put<std::uint64_t>(payload + payload_bytes, 0);
}

// Bytes of pages are copied while others may change them: the reader compares SEQ afterwards and throws torn bytes away,
// so a plain copy does. The thread sanitizer, which knows nothing of SEQ, is shown a copy of atomic bytes.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STOKER_ATOMIC_COPIES 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define STOKER_ATOMIC_COPIES 1
#endif
inline void copy_shared(std::uint8_t* to, const std::uint8_t* from, std::size_t size_bytes) {
#ifdef STOKER_ATOMIC_COPIES
  for (std::size_t index = 0; index < size_bytes; ++index) {
    auto& source = const_cast<std::uint8_t&>(from[index]);
    const auto value = std::atomic_ref<std::uint8_t>(source).load(std::memory_order_relaxed);
    std::atomic_ref<std::uint8_t>(to[index]).store(value, std::memory_order_relaxed);
  }
#else
  std::memcpy(to, from, size_bytes);
#endif
}
inline void zero_shared(std::uint8_t* to, std::size_t size_bytes) {
#ifdef STOKER_ATOMIC_COPIES
  for (std::size_t index = 0; index < size_bytes; ++index) {
    std::atomic_ref<std::uint8_t>(to[index]).store(0, std::memory_order_relaxed);
  }
#else
  std::memset(to, 0, size_bytes);
#endif
}

// 64, 96, 128, 192 … 65536.
constexpr std::size_t class_bytes(std::size_t kind) {
  return (kind % 2 == 0 ? std::size_t{64} : std::size_t{96}) << (kind / 2);
}
// The smallest class that holds so many bytes.
constexpr std::uint32_t class_of(std::size_t size_bytes) {
  if (size_bytes <= 64) return 0;
  const auto doublings = static_cast<std::uint32_t>(std::bit_width(size_bytes - 1)) - 6;
  return 2 * doublings - (class_bytes(2 * doublings - 1) >= size_bytes ? 1 : 0);
}

}  // namespace stoker::arena
