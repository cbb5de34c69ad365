// What the processor offers, and the level that kernels are told to use.
#pragma once

namespace stoker {

enum class CpuLevel : int { scalar = 0, sse42 = 1, avx2 = 2, avx512 = 3 };

// The highest level this processor and its operating system support.
CpuLevel cpu_level_supported();

// The level in use: the supported one, unless a lower one was forced.
CpuLevel cpu_level();

// Forces a level, to test the code of lesser processors; what is not supported is lowered to what is.
// Returns the level now in use. Not to be called while kernels run.
CpuLevel force_cpu_level(CpuLevel level);

}  // namespace stoker
