#include "stoker/delta_wire.hpp"

#include "delta_rows.hpp"
#include "stoker/cpu.hpp"
#include "wire_rows.hpp"

namespace stoker {
namespace {

template <typename Element>
Element load_element(const std::uint8_t* from) {
  Element element;
  std::memcpy(&element, from, sizeof(element));
  return element;
}

template <typename Element>
std::uint64_t mask_of(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t count) {
  std::uint64_t mask = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = sizeof(Element) * i;
    mask |= std::uint64_t{load_element<Element>(base + at) != load_element<Element>(fresh + at)} << i;
  }
  return mask;
}

template <typename Element>
std::uint64_t mask_of_64(const std::uint8_t* base, const std::uint8_t* fresh) {
  return std::memcmp(base, fresh, 64 * sizeof(Element)) == 0 ? 0 : mask_of<Element>(base, fresh, 64);
}

const WireRows& rows() {
#if defined(__x86_64__)
  if (cpu_level() >= CpuLevel::avx512) return kWireRowsAvx512;
  if (cpu_level() >= CpuLevel::avx2) return kWireRowsAvx2;
#endif
  return kWireRowsScalar;
}

// Calls `work` with an element of the width: 1, 2, 4 or 8.
template <typename Work>
auto by_width(std::size_t width, Work work) {
  if (width == 1) return work(std::uint8_t{});
  if (width == 2) return work(std::uint16_t{});
  if (width == 4) return work(std::uint32_t{});
  return work(std::uint64_t{});
}

template <typename Element>
void emit_plainly(std::uint64_t mask, std::size_t first, Emission& to) {
  for (; mask != 0; mask &= mask - 1) {
    const std::size_t index = first + lowest_bit(mask);
    std::size_t gap = index - to.next;
    for (; gap >= kGapSkip; gap -= kGapSkip) *to.gaps++ = kGapSkip;
    *to.gaps++ = static_cast<std::uint8_t>(gap);
    to.next = index + 1;
    std::memcpy(to.base_values, to.base + sizeof(Element) * index, sizeof(Element));
    std::memcpy(to.fresh_values, to.fresh + sizeof(Element) * index, sizeof(Element));
    to.base_values += sizeof(Element);
    to.fresh_values += sizeof(Element);
  }
}

template <typename Element>
ElementsFound diff(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t count, const ElementsOut& out) {
  const ElementsMask mask_of_whole = rows().masks[lowest_bit(sizeof(Element))];
  const EmitElements emit_quickly = rows().emit[lowest_bit(sizeof(Element))];
  Emission to{base, fresh, out.gaps, out.base_values, out.fresh_values, 0};
  std::size_t changed = 0;
  for (std::size_t first = 0; first < count; first += 64) {
    const std::uint8_t* const was = base + sizeof(Element) * first;
    const std::uint8_t* const is = fresh + sizeof(Element) * first;
    const std::size_t left = count - first;
    const std::uint64_t mask = left < 64 ? mask_of<Element>(was, is, left) : mask_of_whole(was, is);
    store_u64(out.mask + first / 8, mask);
    if (mask == 0) continue;
    const std::size_t before = changed;
    changed += count_bits(mask);
    if (changed > out.values_max) continue;
    if (emit_quickly != nullptr && left >= 64 && out.values_max - before >= 64) {
      emit_quickly(mask, first, to);
    } else {
      emit_plainly<Element>(mask, first, to);
    }
  }
  return {changed, static_cast<std::size_t>(to.gaps - out.gaps)};
}

template <typename Element>
Element encoded(Element base, Element fresh, DeltaCoding coding) {
  if (coding == DeltaCoding::bits) return static_cast<Element>(base ^ fresh);
  const auto moved = static_cast<Element>(fresh - base);
  const auto sign = static_cast<Element>(moved >> (8 * sizeof(Element) - 1));
  return static_cast<Element>(static_cast<Element>(moved << 1) ^ static_cast<Element>(0 - sign));
}

template <typename Element>
Element decoded(Element base, Element code, DeltaCoding coding) {
  if (coding == DeltaCoding::bits) return static_cast<Element>(base ^ code);
  const auto moved = static_cast<Element>((code >> 1) ^ static_cast<Element>(0 - (code & 1)));
  return static_cast<Element>(base + moved);
}

template <typename Element>
Element code_at(const std::uint8_t* planes, std::size_t count, std::size_t index) {
  std::uint64_t code = 0;
  for (std::size_t plane = 0; plane < sizeof(Element); ++plane) {
    code |= std::uint64_t{planes[plane * count + index]} << (8 * plane);
  }
  return static_cast<Element>(code);
}

template <typename Element>
void change(std::uint8_t* value, Element code, DeltaCoding coding) {
  const Element fresh = decoded(load_element<Element>(value), code, coding);
  std::memcpy(value, &fresh, sizeof(fresh));
}

template <typename Element>
void apply_all(std::uint8_t* values, std::size_t count, DeltaCoding coding, const std::uint8_t* planes) {
  const ApplyPlanes quick = rows().apply[lowest_bit(sizeof(Element))];
  std::size_t index = quick == nullptr ? 0 : quick(values, count, coding == DeltaCoding::ulps, planes);
  for (; index < count; ++index) {
    change(values + sizeof(Element) * index, code_at<Element>(planes, count, index), coding);
  }
}

template <typename Element>
void encode_all(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t count, DeltaCoding coding,
                std::uint8_t* planes) {
  const EncodePlanes quick = rows().encode[lowest_bit(sizeof(Element))];
  std::size_t index = quick == nullptr ? 0 : quick(base, fresh, count, coding == DeltaCoding::ulps, planes);
  for (; index < count; ++index) {
    const std::size_t at = sizeof(Element) * index;
    const Element code = encoded(load_element<Element>(base + at), load_element<Element>(fresh + at), coding);
    for (std::size_t plane = 0; plane < sizeof(Element); ++plane) {
      planes[plane * count + index] = static_cast<std::uint8_t>(std::uint64_t{code} >> (8 * plane));
    }
  }
}

bool gaps_fit(const std::uint8_t* gaps, std::size_t gap_bytes, std::size_t count, std::size_t changed) {
  std::size_t named = 0;
  std::size_t skipped = 0;
  for (std::size_t index = 0; index < gap_bytes; ++index) {
    named += gaps[index] != kGapSkip;
    skipped += gaps[index];
  }
  return named == changed && changed <= count && skipped <= count - changed;
}

bool mask_fits(const std::uint8_t* mask, std::size_t count, std::size_t changed) {
  const std::size_t words = count / 64 + (count % 64 != 0);
  std::size_t named = 0;
  for (std::size_t word = 0; word < words; ++word) named += count_bits(load_u64(mask + 8 * word));
  const bool beyond = count % 64 != 0 && load_u64(mask + 8 * (words - 1)) >> (count % 64) != 0;
  return named == changed && !beyond;
}

}  // namespace

const WireRows kWireRowsScalar = {{mask_of_64<std::uint8_t>, mask_of_64<std::uint16_t>, mask_of_64<std::uint32_t>,
                                   mask_of_64<std::uint64_t>},
                                  {},
                                  {},
                                  {}};

ElementsFound diff_elements(const std::uint8_t* base, const std::uint8_t* fresh, ElementShape shape,
                            const ElementsOut& out) {
  return by_width(shape.width, [&](auto element) { return diff<decltype(element)>(base, fresh, shape.count, out); });
}

void encode_planes(const std::uint8_t* base, const std::uint8_t* fresh, ElementShape shape, DeltaCoding coding,
                   std::uint8_t* planes) {
  by_width(shape.width,
           [&](auto element) { encode_all<decltype(element)>(base, fresh, shape.count, coding, planes); });
}

void apply_planes(std::uint8_t* values, ElementShape shape, DeltaCoding coding, const std::uint8_t* planes) {
  by_width(shape.width,
           [&](auto element) { apply_all<decltype(element)>(values, shape.count, coding, planes); });
}

bool apply_gaps(std::uint8_t* values, ElementShape shape, const std::uint8_t* gaps, std::size_t gap_bytes,
                const CodesView& codes) {
  if (!gaps_fit(gaps, gap_bytes, shape.count, codes.changed)) return false;
  by_width(shape.width, [&](auto element) {
    using Element = decltype(element);
    std::size_t index = 0;
    std::size_t code = 0;
    for (std::size_t byte = 0; byte < gap_bytes; ++byte) {
      index += gaps[byte];
      if (gaps[byte] == kGapSkip) continue;
      change(values + sizeof(Element) * index, code_at<Element>(codes.planes, codes.changed, code), codes.coding);
      ++index;
      ++code;
    }
  });
  return true;
}

bool apply_mask(std::uint8_t* values, ElementShape shape, const std::uint8_t* mask, const CodesView& codes) {
  if (!mask_fits(mask, shape.count, codes.changed)) return false;
  by_width(shape.width, [&](auto element) {
    using Element = decltype(element);
    std::size_t code = 0;
    for (std::size_t first = 0; first < shape.count; first += 64) {
      for (std::uint64_t bits = load_u64(mask + first / 8); bits != 0; bits &= bits - 1, ++code) {
        const std::size_t index = first + lowest_bit(bits);
        change(values + sizeof(Element) * index, code_at<Element>(codes.planes, codes.changed, code), codes.coding);
      }
    }
  });
  return true;
}

}  // namespace stoker
