// `stabilize` of a graph of pages, without a Python frame around the engine.
#include <nanobind/nanobind.h>

#include <exception>

#include "bindings.hpp"
#include "collected.hpp"
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
  // empty; `methods` are its class's functions, in this order. `lock` is what it holds while waves run.
  ShortWaves(nb::object engine, nb::object graph, nb::tuple idle, nb::tuple methods, nb::object lock)
      : engine_(nb::cast<WaveEngine&>(engine)),
        kept_(std::move(engine)),
        graph_(std::move(graph)),
        idle_(std::move(idle)),
        methods_(std::move(methods)),
        acquire_(lock.attr("acquire")),
        release_(lock.attr("release")) {
    for (const nb::handle one : idle_) {
      if (!PyDict_CheckExact(one.ptr()) && !PyList_CheckExact(one.ptr())) throw nb::type_error("neither dict nor list");
    }
  }

  bool ready = false, calls = false;
  std::uint32_t writer = 0;

  // For the collector of cycles: errors and functions may hold the graph, which holds this.
  int visit(visitproc visit, void* arg) const {
    Py_VISIT(kept_.ptr());
    Py_VISIT(graph_.ptr());
    Py_VISIT(idle_.ptr());
    Py_VISIT(methods_.ptr());
    return 0;
  }
  void clear() {
    ready = false;
    kept_.reset();
    graph_.reset();
    idle_.reset();
    methods_.reset();
  }

  nb::object stabilize() {
    int step = WaveEngine::kBusy;
    if (quick() && calls && engine_.has_functions()) {
      const Exclusive exclusive(*this);
      step = quick() ? engine_.quickly(writer, true) : WaveEngine::kBusy;
      if (step == WaveEngine::kCall) return call();
    } else if (quick()) {
      step = engine_.quickly(writer, false);
    }
    if (step == 0) return engine_.made();
    const nb::object found = graph();
    if (step == WaveEngine::kOwnerDead) methods_[kMended](found, step);
    return methods_[kStabilize](found);
  }

 private:
  // The lock that the graph's own waves hold.
  struct Exclusive {
    explicit Exclusive(ShortWaves& waves) : release(waves.release_) {
      if (!nb::steal(PyObject_CallNoArgs(waves.acquire_.ptr())).is_valid()) throw nb::python_error();
    }
    ~Exclusive() {
      const nb::error_scope kept;
      Py_XDECREF(PyObject_CallNoArgs(release.ptr()));
    }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

    const nb::object release;
  };

  // Keeps the engine from others, and says who makes pages.
  struct Making {
    explicit Making(WaveEngine& waves) : engine(waves) {
      engine.hold(1);
      engine.set_maker(PyThread_get_thread_ident());
    }
    ~Making() {
      engine.set_maker(0);
      engine.hold(-1);
    }
    Making(const Making&) = delete;
    Making& operator=(const Making&) = delete;

    WaveEngine& engine;
  };

  nb::object graph() const {
    nb::object found = graph_.is_valid() ? graph_() : nb::none();
    if (found.is_none()) {
      PyErr_SetString(PyExc_TypeError, "graph of pages is gone");
      throw nb::python_error();
    }
    return found;
  }

  // Makes what the wave waits for, level by level; whatever is more than that is for the graph.
  nb::object call() {
    const Making making(engine_);
    try {
      while (true) {
        const nb::object left = engine_.make();
        const int step = left.is_none() ? engine_.advanced(writer, nullptr) : 0;
        if (step == WaveEngine::kCall) continue;
        if (step == 0 && left.is_none() && quick()) return engine_.made();
        engine_.set_maker(0);
        return methods_[kTakeOver](graph(), left, step == 0 ? engine_.made() : nb::int_(step));
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
  nb::object kept_;  // the engine: used only while `ready`
  nb::object graph_;
  nb::tuple idle_, methods_;
  nb::object acquire_, release_;
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

}  // namespace

void bind_short_waves(nb::module_& module) {
  nb::class_<ShortWaves>(module, "ShortWaves", nb::type_slots(collected<ShortWaves>()))
      .def(nb::init<nb::object, nb::object, nb::tuple, nb::tuple, nb::object>())
      .def_rw("ready", &ShortWaves::ready)
      .def_rw("calls", &ShortWaves::calls)
      .def_rw("writer", &ShortWaves::writer)
      .def_prop_ro("stabilize", [](nb::handle self) {
        return nb::steal(PyCFunction_NewEx(&kStabilize, self.ptr(), nullptr));
      });
}
