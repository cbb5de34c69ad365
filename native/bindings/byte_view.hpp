// Memory lent by a Python object through the buffer protocol, for as long as this lives.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>

class ByteView {
 public:
  // Raises what Python raises: BufferError or TypeError unless the memory is contiguous and, if asked, writable.
  ByteView(nanobind::handle object, bool writable) {
    const int flags = PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nanobind::python_error();
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
