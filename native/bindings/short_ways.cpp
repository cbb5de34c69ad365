// The calls of a store that are made millions of times a second, without a Python frame around the arena.
#include <nanobind/nanobind.h>

#include <exception>
#include <vector>

#include "bindings.hpp"
#include "collected.hpp"
#include "page_arena.hpp"

namespace nb = nanobind;

namespace {

// One commit in so many looks whether the ring should be written out, though nobody waits for it.
constexpr std::int64_t kLookMask = 1023;
constexpr std::int64_t kOwnerDead = -2;

// Tries the arena's own way where nothing else is asked for; everything rare, and every error, is the store's.
class ShortWays {
 public:
  // `store` is a weak reference: the store holds this, not the other way round. `methods` are its class's functions
  // write, allocate_id, free_id and _went.
  ShortWays(PageArena& arena, nb::object store, nb::list listeners, nb::tuple methods)
      : arena_(arena), store_(std::move(store)), listeners_(std::move(listeners)), methods_(std::move(methods)) {}

  bool ready = true;

  // For the collector of cycles: listeners may hold the store, which holds this.
  int visit(visitproc visit, void* arg) const {
    Py_VISIT(store_.ptr());
    Py_VISIT(listeners_.ptr());
    Py_VISIT(methods_.ptr());
    return 0;
  }
  void clear() {
    ready = false;
    store_.reset();
    listeners_.reset();
    methods_.reset();
  }

  // What METH_FASTCALL | METH_KEYWORDS gives: the arguments in order, then those by name.
  PyObject* write(PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    std::int64_t lsn = 0;
    if (count == 2 && names == nullptr && quick(arguments[0]) && PyObject_CheckBuffer(arguments[1]) != 0) {
      try {
        lsn = arena_.write(number_, arguments[1], -1, 0);
      } catch (nb::python_error& error) {
        if (!error.matches(PyExc_BufferError)) throw;
      }
      if (lsn > 0) return done(lsn, arguments[0]);
    }
    const nb::object store = mended(lsn);
    const std::size_t named = names == nullptr ? 0 : static_cast<std::size_t>(PyTuple_GET_SIZE(names));
    std::vector<PyObject*> all{store.ptr()};
    all.insert(all.end(), arguments, arguments + count + static_cast<Py_ssize_t>(named));
    return PyObject_Vectorcall(nb::handle(methods_[0]).ptr(), all.data(), static_cast<std::size_t>(count) + 1, names);
  }

  PyObject* allocate_id(PyObject* size_bytes) {
    const std::int64_t page = quick(size_bytes) ? arena_.allocate(number_) : 0;
    if (page > 0) return PyLong_FromLongLong(page);
    return methods_[1](mended(page), nb::handle(size_bytes)).release().ptr();
  }

  PyObject* free_id(PyObject* page) {
    const std::int64_t lsn = quick(page) ? arena_.release(number_) : 0;
    if (lsn > 0) return done(lsn, page);
    return methods_[2](mended(lsn), nb::handle(page)).release().ptr();
  }

 private:
  // Whether nobody waits for a commit but the caller, and the number is one of 63 bits: then it is kept in `number_`.
  bool quick(PyObject* number) {
    if (!ready || PyList_GET_SIZE(listeners_.ptr()) != 0 || PyLong_CheckExact(number) == 0) return false;
    int overflow = 0;
    const long long found = PyLong_AsLongLongAndOverflow(number, &overflow);
    number_ = static_cast<std::uint64_t>(found);
    return found > 0 && overflow == 0;
  }

  PyObject* done(std::int64_t lsn, PyObject* page) {
    if ((lsn & kLookMask) == 0) methods_[3](store(), lsn, nb::handle(page));
    return PyLong_FromLongLong(lsn);
  }

  nb::object store() const {
    nb::object found = store_.is_valid() ? store_() : nb::none();
    if (found.is_none()) {
      PyErr_SetString(PyExc_TypeError, "store of pages is gone");
      throw nb::python_error();
    }
    return found;
  }

  // The store, after what a dead owner of the lock left was mended.
  nb::object mended(std::int64_t status) {
    nb::object found = store();
    if (status == kOwnerDead) methods_[3](found, status);
    return found;
  }

  PageArena& arena_;
  nb::object store_;
  nb::list listeners_;
  nb::tuple methods_;
  std::uint64_t number_ = 0;
};

// A function of C is called without the search for the right one among many that stands before others of a class.
template <typename Work>
PyObject* guarded(PyObject* self, Work work) {
  try {
    return work(*nb::inst_ptr<ShortWays>(self));
  } catch (nb::python_error& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}
PyObject* call_write(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
  return guarded(self, [&](ShortWays& ways) { return ways.write(arguments, count, names); });
}
PyObject* call_allocate_id(PyObject* self, PyObject* size_bytes) {
  return guarded(self, [&](ShortWays& ways) { return ways.allocate_id(size_bytes); });
}
PyObject* call_free_id(PyObject* self, PyObject* page) {
  return guarded(self, [&](ShortWays& ways) { return ways.free_id(page); });
}

PyMethodDef kWrite = {"write", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_write)),
                      METH_FASTCALL | METH_KEYWORDS, nullptr};
PyMethodDef kAllocateId = {"allocate_id", call_allocate_id, METH_O, nullptr};
PyMethodDef kFreeId = {"free_id", call_free_id, METH_O, nullptr};

nb::object bound(PyMethodDef& method, nb::handle self) {
  return nb::steal(PyCFunction_NewEx(&method, self.ptr(), nullptr));
}

}  // namespace

void bind_short_ways(nb::module_& module) {
  nb::class_<ShortWays>(module, "ShortWays", nb::type_slots(collected<ShortWays>()))
      .def(nb::init<PageArena&, nb::object, nb::list, nb::tuple>(), nb::keep_alive<1, 2>())
      .def_rw("ready", &ShortWays::ready)
      .def_prop_ro("write", [](nb::handle self) { return bound(kWrite, self); })
      .def_prop_ro("allocate_id", [](nb::handle self) { return bound(kAllocateId, self); })
      .def_prop_ro("free_id", [](nb::handle self) { return bound(kFreeId, self); });
}
