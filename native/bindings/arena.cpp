#include "page_arena.hpp"

#include "bindings.hpp"

namespace nb = nanobind;

void bind_arena(nb::module_& module) {
  nb::class_<PageArena>(module, "PageArena")
      .def(nb::init<std::uintptr_t, std::size_t>())
      .def("write", &PageArena::write)
      .def("write_at", &PageArena::write_at)
      .def("update_many", &PageArena::update_many)
      .def("write_each", &PageArena::write_each)
      .def("allocate", &PageArena::allocate)
      .def("release", &PageArena::release)
      .def("page_bytes", &PageArena::page_bytes)
      .def("read", &PageArena::read);
  module.def("arena_kill_at", &stoker::arena_kill_at);
}
