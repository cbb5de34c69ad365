// What a CPU level must offer to compare typed elements.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// Which of 64 elements differ.
using ElementsMask = std::uint64_t (*)(const std::uint8_t* base, const std::uint8_t* fresh);

// For elements of 1, 2, 4 and 8 bytes.
struct WireRows {
  ElementsMask masks[4];
};

extern const WireRows kWireRowsScalar;
#if defined(__x86_64__)
extern const WireRows kWireRowsAvx2;
#endif

}  // namespace stoker
