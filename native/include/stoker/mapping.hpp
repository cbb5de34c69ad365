// Files mapped instead of copied, guarded: a mapped page that the file no longer has becomes zeros, and is told.
//
// A mapping is private and writable: whoever holds it may write into it, and the file never changes by that. A file that
// shrinks, or a page that the device fails to give back, would end the process by SIGBUS; here the rest of the mapping
// is replaced by zeros instead, and the watch under which it was mapped remembers the first such mapping's tag.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace stoker {

// What is remembered of the mappings made under it. Outlives them by being shared.
class MappingWatch {
 public:
  static constexpr std::int64_t kNone = -1;
  // The tag of the first mapping that lost its file, or kNone.
  std::int64_t torn_tag() const { return torn_tag_.load(std::memory_order_acquire); }

 private:
  friend class Mapping;
  friend struct MappingSlot;
  std::atomic<std::int64_t> torn_tag_{kNone};
};

// One mapped range. Not copied; unmapped when it goes.
class Mapping {
 public:
  // Maps `size_bytes` of the open file from `offset_bytes`, pages made ready for reading. Null when it cannot be had
  // (too many mappings, a file that is shorter, a file system that maps nothing): then the caller copies.
  static std::unique_ptr<Mapping> make(int file, std::uint64_t offset_bytes, std::size_t size_bytes,
                                       std::shared_ptr<MappingWatch> watch, std::int64_t tag);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::uint8_t* data() const { return base_ + skew_bytes_; }
  std::size_t size_bytes() const { return size_bytes_; }

 private:
  Mapping() = default;
  std::uint8_t* base_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  std::size_t skew_bytes_ = 0;
  std::size_t size_bytes_ = 0;
  int slot_ = -1;
  std::shared_ptr<MappingWatch> watch_;
};

// How many mappings there are now.
std::size_t mappings_held();

}  // namespace stoker
