#include "check.hpp"
#include "stoker/cpu.hpp"

int main() {
  using stoker::CpuLevel;
  const CpuLevel supported = stoker::cpu_level_supported();
  CHECK(stoker::cpu_level() == supported);
  CHECK(stoker::force_cpu_level(CpuLevel::scalar) == CpuLevel::scalar);
  CHECK(stoker::cpu_level() == CpuLevel::scalar);
  CHECK(stoker::force_cpu_level(CpuLevel::avx512) == supported);
  RETURN_RESULT();
}
