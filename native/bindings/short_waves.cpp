// `stabilize` of a graph of pages, without a Python frame around the engine.
#include <nanobind/nanobind.h>

#include <exception>

#include "bindings.hpp"
#include "wave_engine.hpp"

namespace nb = nanobind;

namespace {

// Does a wave where nothing is to be told, called or mended; everything rare, and every error, is the graph's own.
class ShortWaves {
 public:
  // `graph` is a weak reference: the graph holds this, not the other way round. `idle` are containers that must be
  // empty; `methods` are its class's functions stabilize, and what mends after a dead owner of the lock.
  ShortWaves(WaveEngine& engine, nb::object graph, nb::tuple idle, nb::tuple methods)
      : engine_(engine), graph_(std::move(graph)), idle_(std::move(idle)), methods_(std::move(methods)) {}

  bool ready = false;
  std::uint32_t writer = 0;

  // For the collector of cycles: errors may hold the graph, which holds this.
  int visit(visitproc visit, void* arg) const {
    Py_VISIT(graph_.ptr());
    Py_VISIT(idle_.ptr());
    Py_VISIT(methods_.ptr());
    return 0;
  }
  void clear() {
    ready = false;
    graph_.reset();
    idle_.reset();
    methods_.reset();
  }

  nb::object stabilize() {
    const int step = quick() ? engine_.quickly(writer) : WaveEngine::kBusy;
    if (step == 0) return engine_.made();
    const nb::object graph = graph_.is_valid() ? graph_() : nb::none();
    if (graph.is_none()) {
      PyErr_SetString(PyExc_TypeError, "graph of pages is gone");
      throw nb::python_error();
    }
    if (step == WaveEngine::kOwnerDead) methods_[1](graph, step);
    return methods_[0](graph);
  }

 private:
  bool quick() const {
    if (!ready) return false;
    for (Py_ssize_t item = 0; item < PyTuple_GET_SIZE(idle_.ptr()); ++item) {
      if (PyObject_Size(PyTuple_GET_ITEM(idle_.ptr(), item)) != 0) {
        PyErr_Clear();  // what has no size is asked for by the graph itself
        return false;
      }
    }
    return true;
  }

  WaveEngine& engine_;
  nb::object graph_;
  nb::tuple idle_, methods_;
};

PyObject* call_stabilize(PyObject* self, PyObject*) {
  try {
    return nb::inst_ptr<ShortWaves>(self)->stabilize().release().ptr();
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

PyMethodDef kStabilize = {"stabilize", call_stabilize, METH_NOARGS, nullptr};

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return nb::inst_ready(self) ? nb::inst_ptr<ShortWaves>(self)->visit(visit, arg) : 0;
}

int clear(PyObject* self) {
  if (nb::inst_ready(self)) nb::inst_ptr<ShortWaves>(self)->clear();
  return 0;
}

PyType_Slot kSlots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                        {Py_tp_clear, reinterpret_cast<void*>(clear)},
                        {0, nullptr}};

}  // namespace

void bind_short_waves(nb::module_& module) {
  nb::class_<ShortWaves>(module, "ShortWaves", nb::type_slots(kSlots))
      .def(nb::init<WaveEngine&, nb::object, nb::tuple, nb::tuple>(), nb::keep_alive<1, 2>())
      .def_rw("ready", &ShortWaves::ready)
      .def_rw("writer", &ShortWaves::writer)
      .def_prop_ro("stabilize", [](nb::handle self) {
        return nb::steal(PyCFunction_NewEx(&kStabilize, self.ptr(), nullptr));
      });
}
