// The calls of a store that are made millions of times a second, without a Python frame around the arena.
#include <nanobind/nanobind.h>

#include "bindings.hpp"
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

  nb::object write(nb::handle page, nb::handle data, nb::handle expect_epoch, nb::handle source) {
    std::int64_t lsn = 0;
    if (quick(page) && expect_epoch.is_none() && PyUnicode_CheckExact(source.ptr()) != 0 &&
        PyUnicode_GET_LENGTH(source.ptr()) == 0 && PyObject_CheckBuffer(data.ptr()) != 0) {
      try {
        lsn = arena_.write(nb::cast<std::uint64_t>(page), data, -1, 0);
      } catch (nb::python_error& error) {
        if (!error.matches(PyExc_BufferError)) throw;
      }
    }
    if (lsn > 0) return done(lsn, page);
    const nb::object store = mended(lsn);
    return methods_[0](store, page, data, nb::arg("expect_epoch") = expect_epoch, nb::arg("source") = source);
  }

  nb::object allocate_id(nb::handle size_bytes) {
    const std::int64_t page = quick(size_bytes) ? arena_.allocate(nb::cast<std::uint64_t>(size_bytes)) : 0;
    if (page > 0) return nb::int_(page);
    return methods_[1](mended(page), size_bytes);
  }

  nb::object free_id(nb::handle page) {
    const std::int64_t lsn = quick(page) ? arena_.release(nb::cast<std::uint64_t>(page)) : 0;
    if (lsn > 0) return done(lsn, page);
    return methods_[2](mended(lsn), page);
  }

 private:
  // Whether nobody waits for a commit but the caller, and the number is one of 64 bits.
  bool quick(nb::handle number) const {
    if (!ready || PyList_GET_SIZE(listeners_.ptr()) != 0 || PyLong_CheckExact(number.ptr()) == 0) return false;
    int overflow = 0;
    return PyLong_AsLongLongAndOverflow(number.ptr(), &overflow) > 0 && overflow == 0;
  }

  nb::object done(std::int64_t lsn, nb::handle page) {
    if ((lsn & kLookMask) == 0) methods_[3](store(), lsn, page);
    return nb::int_(lsn);
  }

  nb::object store() const {
    nb::object found = store_.is_valid() ? store_() : nb::none();
    if (found.is_none()) throw nb::type_error("store of pages is gone");
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
};

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return nb::inst_ready(self) ? nb::inst_ptr<ShortWays>(self)->visit(visit, arg) : 0;
}

int clear(PyObject* self) {
  if (nb::inst_ready(self)) nb::inst_ptr<ShortWays>(self)->clear();
  return 0;
}

PyType_Slot kSlots[] = {{Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                        {Py_tp_clear, reinterpret_cast<void*>(clear)},
                        {0, nullptr}};

}  // namespace

void bind_short_ways(nb::module_& module) {
  nb::class_<ShortWays>(module, "ShortWays", nb::type_slots(kSlots))
      .def(nb::init<PageArena&, nb::object, nb::list, nb::tuple>(), nb::keep_alive<1, 2>())
      .def_rw("ready", &ShortWays::ready)
      .def("write", &ShortWays::write, nb::arg("page"), nb::arg("data"), nb::kw_only(),
           nb::arg("expect_epoch") = nb::none(), nb::arg("source") = "")
      .def("allocate_id", &ShortWays::allocate_id, nb::arg("size_bytes"))
      .def("free_id", &ShortWays::free_id, nb::arg("page"));
}
