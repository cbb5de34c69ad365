#include "stoker/delta.hpp"

#include "delta_rows.hpp"
#include "stoker/cpu.hpp"
#include "stoker/delta_parts.hpp"

namespace stoker {
namespace {

// Bit i is set where byte i is not 0.
std::uint64_t nonzero_bytes(std::uint64_t word) {
  constexpr std::uint64_t low = 0x7F7F7F7F7F7F7F7FU;
  const std::uint64_t high = (((word & low) + low) | word) & ~low;
  return ((high >> 7) * 0x0102040810204080U) >> 56;
}

std::uint64_t compare_line(const std::uint8_t* base, const std::uint8_t* fresh) {
  std::uint64_t words[8];
  std::uint64_t any = 0;
  for (std::size_t i = 0; i < 8; ++i) any |= words[i] = load_u64(base + 8 * i) ^ load_u64(fresh + 8 * i);
  if (any == 0) return 0;
  std::uint64_t mask = 0;
  for (std::size_t i = 0; i < 8; ++i) mask |= nonzero_bytes(words[i]) << (8 * i);
  return mask;
}

std::uint64_t compare(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t lines) {
  std::uint64_t bitmap = 0;
  for (std::size_t line = 0; line < lines; ++line, base += kLineBytes, fresh += kLineBytes) {
    bitmap |= std::uint64_t{std::memcmp(base, fresh, kLineBytes) != 0} << line;
  }
  return bitmap;
}

DeltaOut compact(std::uint8_t* base, const std::uint8_t* fresh, std::uint64_t bitmap, bool update, DeltaOut out) {
  for (; bitmap != 0; bitmap &= bitmap - 1) {
    std::uint8_t* const was = base + kLineBytes * lowest_bit(bitmap);
    const std::uint8_t* const is = fresh + kLineBytes * lowest_bit(bitmap);
    const std::uint64_t mask = compare_line(was, is);
    store_u64(out.masks, mask);
    out.masks += kWordBytes;
    if (mask == kAllBytes) {
      std::memcpy(out.bytes, is, kLineBytes);
      out.bytes += kLineBytes;
    } else {
      out.bytes += compact_exactly(is, mask, out.bytes);
    }
    if (update) std::memcpy(was, is, kLineBytes);
  }
  return out;
}

std::uint64_t diff_block(std::uint8_t* base, const std::uint8_t* fresh, std::size_t lines, DiffHow how, DeltaOut& out) {
  const std::uint64_t bitmap = compare(base, fresh, lines);
  if (bitmap != 0) out = compact(base, fresh, bitmap, how.update, out);
  return bitmap;
}

void copy(std::uint8_t* page, const std::uint8_t* image, std::uint64_t bitmap) {
  for (; bitmap != 0; bitmap &= bitmap - 1) {
    const std::size_t at = kLineBytes * lowest_bit(bitmap);
    std::memcpy(page + at, image + at, kLineBytes);
  }
}

std::size_t expand(std::uint8_t* page, std::uint64_t bitmap, const std::uint8_t* masks, const std::uint8_t* bytes,
                   const std::uint8_t*) {
  const std::uint8_t* const begin = bytes;
  for (; bitmap != 0; bitmap &= bitmap - 1, masks += kWordBytes) {
    std::uint8_t* const line = page + kLineBytes * lowest_bit(bitmap);
    const std::uint64_t mask = load_u64(masks);
    if (mask == kAllBytes) {
      std::memcpy(line, bytes, kLineBytes);
      bytes += kLineBytes;
    } else {
      bytes += expand_exactly(line, mask, bytes);
    }
  }
  return static_cast<std::size_t>(bytes - begin);
}

const DeltaRows& rows() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::avx512) return kDeltaRowsAvx512;
  if (cpu_level() >= CpuLevel::avx2) return kDeltaRowsAvx2;
#endif
  return kDeltaRowsScalar;
}

// The parts of a page of some size.
struct Shape {
  std::size_t lines;      // the last may be short
  std::size_t words;      // of the bitmap
  std::size_t tail_bytes;  // of the short line, 0 where there is none

  explicit Shape(std::size_t page_bytes)
      : lines(page_bytes / kLineBytes + (page_bytes % kLineBytes != 0)),
        words(lines / 64 + (lines % 64 != 0)),
        tail_bytes(page_bytes % kLineBytes) {}

  std::size_t whole_lines() const { return lines - (tail_bytes != 0); }
  std::size_t bitmap_bytes() const { return kWordBytes * words; }
  std::uint64_t last_word_bits() const { return lines % 64 == 0 ? kAllBytes : (std::uint64_t{1} << (lines % 64)) - 1; }
  std::uint64_t tail_bits() const { return (std::uint64_t{1} << tail_bytes) - 1; }
};

std::size_t whole_lines_of_block(const Shape& shape, std::size_t word) {
  const std::size_t left = shape.whole_lines() - 64 * word;
  return left < 64 ? left : 64;
}

// The short line at a page's end; tells whether it differs. It is compared as a whole one, behind which there is nothing,
// and brought together aside: behind its bytes there need not be room for a whole one.
bool diff_tail(const DeltaRows& work, std::uint8_t* base, const std::uint8_t* fresh, std::size_t tail_bytes, bool update,
               DeltaOut& out) {
  alignas(kLineBytes) std::uint8_t was[kLineBytes] = {};
  alignas(kLineBytes) std::uint8_t is[kLineBytes] = {};
  alignas(kLineBytes) std::uint8_t aside[2 * kLineBytes];
  std::memcpy(was, base, tail_bytes);
  std::memcpy(is, fresh, tail_bytes);
  DeltaOut found{out.masks, aside};
  if (work.diff(was, is, 1, {false, false}, found) == 0) return false;
  const auto changed = static_cast<std::size_t>(found.bytes - aside);
  std::memcpy(out.bytes, aside, changed);
  out.masks = found.masks;
  out.bytes += changed;
  if (update) std::memcpy(base, is, tail_bytes);
  return true;
}

// Bytes of pages up to this size are brought together on the stack, which is in the cache.
constexpr std::size_t kAsideBytes = kBlockBytes;

// `base` is written only if `update`. Masks and bytes grow side by side, each with room for all; the bytes move to their
// place at last.
DeltaSize diff(std::uint8_t* base, const std::uint8_t* fresh, std::size_t page_bytes, std::uint8_t* payload,
               DiffHow how) {
  const Shape shape(page_bytes);
  const DeltaRows& work = rows();
  alignas(kLineBytes) std::uint8_t aside[kAsideBytes + kLineBytes];
  std::uint8_t* const first_byte =
      page_bytes <= kAsideBytes ? aside : payload + shape.bitmap_bytes() + kWordBytes * shape.lines;
  DeltaOut out{payload + shape.bitmap_bytes(), first_byte};
  for (std::size_t word = 0; word < shape.words; ++word) {
    std::uint8_t* const was = base + kBlockBytes * word;
    const std::uint8_t* const is = fresh + kBlockBytes * word;
    const std::size_t lines = whole_lines_of_block(shape, word);
    std::uint64_t bitmap = work.diff(was, is, lines, {how.update, how.more || word + 1 < shape.words}, out);
    if (word + 1 == shape.words && shape.tail_bytes != 0) {
      const std::size_t at = kLineBytes * lines;
      bitmap |= std::uint64_t{diff_tail(work, was + at, is + at, shape.tail_bytes, how.update, out)} << lines;
    }
    store_u64(payload + kWordBytes * word, bitmap);
  }
  const auto changed = static_cast<std::size_t>(out.bytes - first_byte);
  if (changed == 0) return {0, 0};
  std::memmove(out.masks, first_byte, changed);
  return {static_cast<std::size_t>(out.masks - payload) + changed, changed};
}

}  // namespace

const DeltaRows kDeltaRowsScalar = {diff_block, expand, copy, nullptr};

std::size_t two_level_bound(std::size_t page_bytes) {
  const Shape shape(page_bytes);
  return shape.bitmap_bytes() + kWordBytes * shape.lines + page_bytes;
}

DeltaSize two_level_diff(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t page_bytes,
                         std::uint8_t* payload, bool more) {
  return diff(const_cast<std::uint8_t*>(base), fresh, page_bytes, payload, {false, more});
}

DeltaSize two_level_diff_update(std::uint8_t* base, const std::uint8_t* fresh, std::size_t page_bytes,
                                std::uint8_t* payload) {
  return diff(base, fresh, page_bytes, payload, {true, false});
}

std::int64_t two_level_changed(std::size_t page_bytes, const std::uint8_t* payload, std::size_t payload_bytes) {
  if (payload_bytes == 0) return 0;
  const Shape shape(page_bytes);
  if (payload_bytes < shape.bitmap_bytes()) return -1;
  std::size_t dirty = 0;
  std::uint64_t last = 0;
  for (std::size_t word = 0; word < shape.words; ++word) {
    last = load_u64(payload + kWordBytes * word);
    dirty += count_bits(last);
  }
  if ((last & ~shape.last_word_bits()) != 0) return -1;
  const std::size_t left = payload_bytes - shape.bitmap_bytes();
  if (dirty > left / kWordBytes) return -1;
  const std::uint8_t* const masks = payload + shape.bitmap_bytes();
  std::size_t changed = 0;
  for (std::size_t index = 0; index < dirty; ++index) changed += count_bits(load_u64(masks + kWordBytes * index));
  const bool tail_dirty = shape.tail_bytes != 0 && (last >> ((shape.lines - 1) % 64) & 1) != 0;
  if (tail_dirty && (load_u64(masks + kWordBytes * (dirty - 1)) & ~shape.tail_bits()) != 0) return -1;
  return changed == left - kWordBytes * dirty ? static_cast<std::int64_t>(changed) : -1;
}

bool two_level_apply(std::uint8_t* page, std::size_t page_bytes, const std::uint8_t* payload,
                     std::size_t payload_bytes) {
  const std::int64_t changed = two_level_changed(page_bytes, payload, payload_bytes);
  if (changed <= 0) return changed == 0;
  const Shape shape(page_bytes);
  const DeltaRows& work = rows();
  const std::uint8_t* const end = payload + payload_bytes;
  const std::uint8_t* masks = payload + shape.bitmap_bytes();
  const std::uint8_t* bytes = end - changed;
  for (std::size_t word = 0; word < shape.words; ++word) {
    const std::size_t lines = whole_lines_of_block(shape, word);
    const std::uint64_t whole = lines == 64 ? kAllBytes : (std::uint64_t{1} << lines) - 1;
    const std::uint64_t bitmap = load_u64(payload + kWordBytes * word);
    std::uint8_t* const block = page + kBlockBytes * word;
    if ((bitmap & whole) != 0) bytes += work.expand(block, bitmap & whole, masks, bytes, end);
    masks += kWordBytes * count_bits(bitmap & whole);
    if ((bitmap & ~whole) != 0) expand_exactly(block + kLineBytes * lines, load_u64(masks), bytes);
  }
  return true;
}

namespace {

// The same from the payload alone.
void spread_all(const DeltaRows& work, std::uint8_t* page, const Shape& shape, const std::uint8_t* payload) {
  std::size_t dirty = 0;
  for (std::size_t word = 0; word < shape.words; ++word) dirty += count_bits(load_u64(payload + kWordBytes * word));
  const std::uint8_t* masks = payload + shape.bitmap_bytes();
  const std::uint8_t* bytes = masks + kWordBytes * dirty;
  for (std::size_t word = 0; word < shape.words; ++word) {
    const std::uint64_t bitmap = load_u64(payload + kWordBytes * word);
    bytes += work.spread(page + kBlockBytes * word, bitmap, masks, bytes);
    masks += kWordBytes * count_bits(bitmap);
  }
}

}  // namespace

void two_level_copy(std::uint8_t* page, const std::uint8_t* image, std::size_t page_bytes, const std::uint8_t* payload,
                    bool far) {
  const Shape shape(page_bytes);
  const DeltaRows& work = rows();
  if (far && work.spread != nullptr) return spread_all(work, page, shape, payload);
  for (std::size_t word = 0; word < shape.words; ++word) {
    const std::size_t lines = whole_lines_of_block(shape, word);
    const std::uint64_t whole = lines == 64 ? kAllBytes : (std::uint64_t{1} << lines) - 1;
    const std::uint64_t bitmap = load_u64(payload + kWordBytes * word);
    const std::size_t at = kBlockBytes * word;
    work.copy(page + at, image + at, bitmap & whole);
    if ((bitmap & ~whole) != 0) {
      std::memcpy(page + at + kLineBytes * lines, image + at + kLineBytes * lines, shape.tail_bytes);
    }
  }
}

std::size_t two_level_diff_many(const std::uint8_t* bases, const std::uint8_t* freshes, PagesShape shape,
                                std::uint8_t* payloads, std::int64_t* offsets, std::int64_t* changed) {
  std::size_t end = 0;
  offsets[0] = 0;
  for (std::size_t page = 0; page < shape.count; ++page) {
    const std::size_t at = shape.page_bytes * page;
    const DeltaSize found = two_level_diff(bases + at, freshes + at, shape.page_bytes, payloads + end, page + 1 < shape.count);
    end += found.payload_bytes;
    offsets[page + 1] = static_cast<std::int64_t>(end);
    changed[page] = static_cast<std::int64_t>(found.changed_bytes);
  }
  return end;
}

}  // namespace stoker
