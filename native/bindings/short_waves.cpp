// `stabilize` of a graph of pages, without a Python frame around the engine.
#include <nanobind/nanobind.h>

#include <exception>

#include "bindings.hpp"
#include "wave_engine.hpp"

namespace nb = nanobind;

namespace {

// Whether a dict or a list is empty, which is asked for before every wave.
bool is_empty(PyObject* container) {
  return PyDict_CheckExact(container) != 0 ? PyDict_GET_SIZE(container) == 0 : PyList_GET_SIZE(container) == 0;
}

// Does a wave where nothing is to be told or mended; everything rare, and every error, is the graph's own.
class ShortWaves {
 public:
  static constexpr std::size_t kStabilize = 0, kMended = 1, kTakeOver = 2;

  // `graph` is a weak reference: the graph holds this, not the other way round. `idle` are dicts and lists that must be
  // empty; `methods` are its class's functions, in this order. `lock` is what it holds while waves run,
  // `makers` its set of threads that make pages.
  ShortWaves(WaveEngine& engine, nb::object graph, nb::tuple idle, nb::tuple methods, nb::object lock, nb::set makers)
      : engine_(engine),
        graph_(std::move(graph)),
        idle_(std::move(idle)),
        methods_(std::move(methods)),
        acquire_(lock.attr("acquire")),
        release_(lock.attr("release")),
        makers_(std::move(makers)) {
    for (const nb::handle one : idle_) {
      if (!PyDict_CheckExact(one.ptr()) && !PyList_CheckExact(one.ptr())) throw nb::type_error("neither dict nor list");
    }
  }

  bool ready = false, calls = false;
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
    const int step = quick() ? engine_.quickly(writer, calls) : WaveEngine::kBusy;
    if (step == 0) return engine_.made();
    const nb::object graph = graph_.is_valid() ? graph_() : nb::none();
    if (graph.is_none()) {
      engine_.waves().abandon();
      PyErr_SetString(PyExc_TypeError, "graph of pages is gone");
      throw nb::python_error();
    }
    if (step == WaveEngine::kCall) {
      const Exclusive exclusive(*this);
      if (exclusive.held) return call(graph);
      engine_.waves().abandon();
    } else if (step == WaveEngine::kOwnerDead) {
      methods_[kMended](graph, step);
    }
    return methods_[kStabilize](graph);
  }

 private:
  // As the graph's own waves: its lock, the engine kept from others, this thread known as one that makes pages.
  struct Exclusive {
    explicit Exclusive(ShortWaves& waves) : short_waves(waves), thread(nb::int_(PyThread_get_thread_ident())) {
      PyObject* const now = Py_False;  // others are not waited for: the graph does that better
      held = nb::steal(PyObject_Vectorcall(waves.acquire_.ptr(), &now, 1, nullptr)).is(Py_True);
      if (!held) PyErr_Clear();
      if (held && PySet_Add(waves.makers_.ptr(), thread.ptr()) != 0) PyErr_Clear();  // no memory: it is made all the same
      waves.engine_.hold(held ? 1 : 0);
    }
    ~Exclusive() {
      if (!held) return;
      const nb::error_scope kept;
      short_waves.engine_.hold(-1);
      PySet_Discard(short_waves.makers_.ptr(), thread.ptr());
      Py_XDECREF(PyObject_CallNoArgs(short_waves.release_.ptr()));
    }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

    ShortWaves& short_waves;
    nb::object thread;
    bool held = false;
  };

  // Makes what the wave waits for, level by level; whatever is more than that is for the graph.
  nb::object call(const nb::object& graph) {
    try {
      while (true) {
        const nb::object left = engine_.make();
        if (!left.is_none()) return methods_[kTakeOver](graph, left, static_cast<int>(WaveEngine::kCall));
        const int step = engine_.advanced(writer, nullptr);
        if (step == WaveEngine::kCall) continue;
        if (step == 0 && quick()) return engine_.made();
        return methods_[kTakeOver](graph, nb::none(), step == 0 ? engine_.made() : nb::int_(step));
      }
    } catch (...) {
      engine_.waves().abandon();
      throw;
    }
  }

  bool quick() const {
    if (!ready) return false;
    for (Py_ssize_t item = 0; item < PyTuple_GET_SIZE(idle_.ptr()); ++item) {
      if (!is_empty(PyTuple_GET_ITEM(idle_.ptr(), item))) return false;
    }
    return true;
  }

  WaveEngine& engine_;
  nb::object graph_;
  nb::tuple idle_, methods_;
  nb::object acquire_, release_;
  nb::set makers_;
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
      .def(nb::init<WaveEngine&, nb::object, nb::tuple, nb::tuple, nb::object, nb::set>(), nb::keep_alive<1, 2>())
      .def_rw("ready", &ShortWaves::ready)
      .def_rw("calls", &ShortWaves::calls)
      .def_rw("writer", &ShortWaves::writer)
      .def_prop_ro("stabilize", [](nb::handle self) {
        return nb::steal(PyCFunction_NewEx(&kStabilize, self.ptr(), nullptr));
      });
}
