// Deltas of typed elements, for disk and network: which elements of 1, 2, 4 or 8 bytes differ, how far each lies behind
// the one before, and codes of their change that compress well. The plain twin is stoker/kernels/plain_wire.py.
//
// Gaps: each element that differs is one byte, the count of equal elements before it; 255 skips 255 elements and names
// none. Mask: one bit an element, lowest bit first, the last word of 64 bits padded with zeros. Planes: the lowest bytes
// of all codes, then the second bytes, and so on. Nothing needs alignment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// Bitwise difference, or the difference as whole numbers (units in the last place of a float), small ones of either
// sign near 0.
enum class DeltaCoding : int { bits = 0, ulps = 1 };

// `count` elements of `width` bytes each.
struct ElementShape {
  std::size_t count;
  std::size_t width;
};

// The mask has 8 bytes for each 64 elements begun. Values and gaps are given up once more than `values_max` elements
// differ; the values have room for so many, the gaps for values_max + count / 255 + 1.
struct ElementsOut {
  std::uint8_t* mask;
  std::uint8_t* gaps;
  std::uint8_t* base_values;
  std::uint8_t* fresh_values;
  std::size_t values_max;
};

struct ElementsFound {
  std::size_t changed;
  std::size_t gap_bytes;  // means nothing where more changed than `values_max`
};

// Reads both images once.
ElementsFound diff_elements(const std::uint8_t* base, const std::uint8_t* fresh, ElementShape shape,
                            const ElementsOut& out);

// Planes of the codes that lead from `base` to `fresh`; `planes` has count * width bytes.
void encode_planes(const std::uint8_t* base, const std::uint8_t* fresh, ElementShape shape, DeltaCoding coding,
                   std::uint8_t* planes);

// Changes every element by its code.
void apply_planes(std::uint8_t* values, ElementShape shape, DeltaCoding coding, const std::uint8_t* planes);

// Codes of `changed` elements.
struct CodesView {
  const std::uint8_t* planes;
  std::size_t changed;
  DeltaCoding coding;
};

// Changes the elements that the gaps name. False, and untouched values, where the gaps name another number of elements
// than there are codes, or elements beyond the end.
bool apply_gaps(std::uint8_t* values, ElementShape shape, const std::uint8_t* gaps, std::size_t gap_bytes,
                const CodesView& codes);

// The same by a mask, which has 8 bytes for each 64 elements begun.
bool apply_mask(std::uint8_t* values, ElementShape shape, const std::uint8_t* mask, const CodesView& codes);

}  // namespace stoker
