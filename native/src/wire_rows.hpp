// What a CPU level must offer to compare typed elements, and may offer beside: where a row is null, the plain code of
// delta_wire.cpp does the work.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// A byte of gaps that skips so many elements and names none.
constexpr std::size_t kGapSkip = 255;

// Which of 64 elements differ.
using ElementsMask = std::uint64_t (*)(const std::uint8_t* base, const std::uint8_t* fresh);

// Where the elements that differ go; everything moves on as it grows. The images are those from the first element on.
struct Emission {
  const std::uint8_t* base;
  const std::uint8_t* fresh;
  std::uint8_t* gaps;
  std::uint8_t* base_values;
  std::uint8_t* fresh_values;
  std::size_t next;  // index behind the last element that was emitted
};

// Emits the elements of a mask of 64 that begin at index `first`. There is room for 64 more of everything.
using EmitElements = void (*)(std::uint64_t mask, std::size_t first, Emission& to);

// The codes of the first elements of `count`, as many as come in whole vectors; returns how many were done. Plane p
// begins at planes + p * count.
using EncodePlanes = std::size_t (*)(const std::uint8_t* base, const std::uint8_t* fresh, std::size_t count, bool ulps,
                                     std::uint8_t* planes);
using ApplyPlanes = std::size_t (*)(std::uint8_t* values, std::size_t count, bool ulps, const std::uint8_t* planes);

// For elements of 1, 2, 4 and 8 bytes.
struct WireRows {
  ElementsMask masks[4];
  EmitElements emit[4];
  EncodePlanes encode[4];
  ApplyPlanes apply[4];
};

extern const WireRows kWireRowsScalar;
#if defined(__x86_64__)
extern const WireRows kWireRowsAvx2;
extern const WireRows kWireRowsAvx512;
#endif

}  // namespace stoker
