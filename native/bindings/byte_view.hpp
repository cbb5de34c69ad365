// Memory lent by a Python object through the buffer protocol, for as long as this lives.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <vector>

// Borrows contiguous memory; false, and an error, where there is none. NumPy says ValueError where others, and who asks
// here, say BufferError.
inline bool borrow_bytes(PyObject* object, Py_buffer& view) {
  if (PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS) == 0) return true;
  if (PyErr_ExceptionMatches(PyExc_ValueError) != 0) {
    PyErr_Clear();
    PyErr_SetString(PyExc_BufferError, "memory is not contiguous");
  }
  return false;
}

class ByteView {
 public:
  // Raises what Python raises: BufferError or TypeError unless the memory is contiguous and, if asked, writable.
  ByteView(nanobind::handle object, bool writable) {
    const bool lent = writable ? PyObject_GetBuffer(object.ptr(), &view_, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) == 0
                               : borrow_bytes(object.ptr(), view_);
    if (!lent) throw nanobind::python_error();
  }
  ~ByteView() { PyBuffer_Release(&view_); }
  ByteView(const ByteView&) = delete;
  ByteView& operator=(const ByteView&) = delete;

  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
  std::uint8_t* writable_data() const { return static_cast<std::uint8_t*>(view_.buf); }
  std::size_t size_bytes() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_{};
};

// The memory of many rows: of a sequence of objects, or of one whose rows are of one size.
class RowsView {
 public:
  struct Row {
    const std::uint8_t* data;
    std::size_t size_bytes;
  };

  // Of `count` rows those from `begin` to `end`. Raises what Python raises: BufferError or TypeError unless the memory
  // is contiguous, ValueError for another number of rows.
  RowsView(nanobind::handle object, std::size_t count, std::size_t begin, std::size_t end) {
    rows_.reserve(end - begin);
    if (PyObject_CheckBuffer(object.ptr()) != 0) {
      const Py_buffer& whole = lend(object);
      const std::size_t row_bytes = static_cast<std::size_t>(whole.len) / count;
      if (row_bytes * count != static_cast<std::size_t>(whole.len)) throw nanobind::value_error("rows are not of one size");
      const auto* const first = static_cast<const std::uint8_t*>(whole.buf);
      for (std::size_t row = begin; row < end; ++row) rows_.push_back({first + row * row_bytes, row_bytes});
      return;
    }
    const nanobind::object fast = nanobind::steal(PySequence_Fast(object.ptr(), "rows are no sequence"));
    if (!fast.is_valid()) throw nanobind::python_error();
    if (static_cast<std::size_t>(PySequence_Fast_GET_SIZE(fast.ptr())) != count) {
      throw nanobind::value_error("as many rows as pages are wanted");
    }
    for (std::size_t row = begin; row < end; ++row) {
      PyObject* const item = PySequence_Fast_GET_ITEM(fast.ptr(), static_cast<Py_ssize_t>(row));
      if (PyBytes_CheckExact(item) != 0) {  // to hold it does: it never changes
        Py_INCREF(item);
        held_.push_back(item);
        const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(item));
        rows_.push_back({reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(item)), size});
        continue;
      }
      const Py_buffer& one = lend(item);
      rows_.push_back({static_cast<const std::uint8_t*>(one.buf), static_cast<std::size_t>(one.len)});
    }
  }
  ~RowsView() { give_back(); }
  RowsView(const RowsView&) = delete;
  RowsView& operator=(const RowsView&) = delete;

  const std::vector<Row>& rows() const { return rows_; }

 private:
  const Py_buffer& lend(nanobind::handle object) {
    lent_.emplace_back();
    if (borrow_bytes(object.ptr(), lent_.back())) return lent_.back();
    lent_.pop_back();
    give_back();
    throw nanobind::python_error();
  }
  void give_back() {
    for (Py_buffer& one : lent_) PyBuffer_Release(&one);
    lent_.clear();
    for (PyObject* const one : held_) Py_DECREF(one);
    held_.clear();
  }

  std::vector<Py_buffer> lent_;
  std::vector<PyObject*> held_;
  std::vector<Row> rows_;
};
