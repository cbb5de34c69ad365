#include "stoker/cpu.hpp"

#include "bindings.hpp"

void bind_cpu(nanobind::module_& module) {
  module.def("cpu_level", [] { return static_cast<int>(stoker::cpu_level()); });
  module.def("cpu_level_supported", [] { return static_cast<int>(stoker::cpu_level_supported()); });
  module.def("force_cpu_level",
             [](int level) { return static_cast<int>(stoker::force_cpu_level(static_cast<stoker::CpuLevel>(level))); });
}
