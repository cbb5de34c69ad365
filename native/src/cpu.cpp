#include "stoker/cpu.hpp"

#include <atomic>

namespace stoker {
namespace {

std::atomic<int> level_in_use{-1};

}  // namespace

CpuLevel cpu_level_supported() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool sse42 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
  const bool avx2 = sse42 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512vbmi") &&
                      __builtin_cpu_supports("avx512vbmi2");
  if (avx512) return CpuLevel::avx512;
  if (avx2) return CpuLevel::avx2;
  if (sse42) return CpuLevel::sse42;
#endif
  return CpuLevel::scalar;
}

CpuLevel cpu_level() {
  const int level = level_in_use.load(std::memory_order_relaxed);
  return level < 0 ? force_cpu_level(CpuLevel::avx512) : static_cast<CpuLevel>(level);
}

CpuLevel force_cpu_level(CpuLevel level) {
  const CpuLevel supported = cpu_level_supported();
  const CpuLevel chosen = level < supported ? level : supported;
  level_in_use.store(static_cast<int>(chosen), std::memory_order_relaxed);
  return chosen;
}

}  // namespace stoker
