// Shows Python's collector of cycles what an object holds: `Held` has visit(visitproc, void*) and clear().
#pragma once

#include <nanobind/nanobind.h>

template <typename Held>
int collected_traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return nanobind::inst_ready(self) ? nanobind::inst_ptr<Held>(self)->visit(visit, arg) : 0;
}

template <typename Held>
int collected_clear(PyObject* self) {
  if (nanobind::inst_ready(self)) nanobind::inst_ptr<Held>(self)->clear();
  return 0;
}

// For nanobind::type_slots.
template <typename Held>
const PyType_Slot* collected() {
  static const PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(collected_traverse<Held>)},
                                      {Py_tp_clear, reinterpret_cast<void*>(collected_clear<Held>)},
                                      {0, nullptr}};
  return slots;
}
