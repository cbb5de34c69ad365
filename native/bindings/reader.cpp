#include "stoker/reader.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bindings.hpp"

namespace nb = nanobind;

namespace {

template <int Columns, typename Number>
using Table = nb::ndarray<Number, nb::shape<-1, Columns>, nb::c_contig, nb::device::cpu>;
using Ranges = Table<stoker::kRangeColumns, const std::int64_t>;
using RangesDone = Table<stoker::kDoneColumns, std::int64_t>;
using FilesDone = Table<stoker::kFileColumns, std::int64_t>;

constexpr int kBusy = -1;
constexpr int kColumnFault = -1;  // less the number of the fault

// The names of files as the kernel wants them, kept alive as long as this lives. To be made and ended with the GIL.
class Keys {
 public:
  explicit Keys(const nb::sequence& given) : held_(nb::tuple(given)) {
    names_.reserve(nb::len(held_));
    for (const nb::handle key : held_) add(key);
  }
  const char* const* names() const { return names_.data(); }
  std::size_t count() const { return names_.size(); }

 private:
  void add(nb::handle key) {
    if (!PyUnicode_Check(key.ptr())) throw nb::type_error("keys must be str");
    Py_ssize_t size = 0;
    const char* name = nullptr;
    if (PyUnicode_IS_ASCII(key.ptr())) {
      name = PyUnicode_AsUTF8AndSize(key.ptr(), &size);
      if (name == nullptr) throw nb::python_error();
    } else {
      nb::object bytes = nb::steal(PyUnicode_EncodeFSDefault(key.ptr()));
      if (!bytes.is_valid()) throw nb::python_error();
      name = PyBytes_AS_STRING(bytes.ptr());
      size = PyBytes_GET_SIZE(bytes.ptr());
      encoded_.push_back(std::move(bytes));
    }
    names_.push_back(std::memchr(name, 0, static_cast<std::size_t>(size)) == nullptr ? name : nullptr);
  }

  nb::tuple held_;
  std::vector<nb::object> encoded_;
  std::vector<const char*> names_;
};

// Results of reading: 0, an errno when the engine failed, or below 0: in use elsewhere (-1) or a fault of the columns.
class ReadEngine {
 public:
  ReadEngine(const std::string& kind, unsigned queue_depth, std::int64_t request_bytes)
      : kind(kind), queue_depth(queue_depth), request_bytes(request_bytes) {
    int error = 0;
    reader_ = kind == "threads" ? stoker::open_thread_reader(&error) : stoker::open_ring_reader(&error);
    if (reader_ == nullptr) {
      errno = -error;
      PyErr_SetFromErrno(PyExc_OSError);
      throw nb::python_error();
    }
  }

  int read_files(int folder, const nb::sequence& given, std::uint64_t flags, const Ranges& ranges, bool residency,
                 const FilesDone& files_done, const RangesDone& ranges_done) {
    const Keys keys(given);
    if (files_done.shape(0) != keys.count() || ranges_done.shape(0) != ranges.shape(0)) return fault_of(1);
    stoker::ReadCall call;
    call.folder = folder;
    call.keys = keys.names();
    call.files = keys.count();
    call.flags = flags;
    call.files_done = files_done.data();
    call.ranges_done = ranges_done.data();
    static const char* const none = nullptr;
    if (call.keys == nullptr) call.keys = &none;
    return read(&call, ranges, residency);
  }

  int read_open(const std::vector<int>& descriptors, const Ranges& ranges, bool residency,
                const RangesDone& ranges_done) {
    if (ranges_done.shape(0) != ranges.shape(0)) return fault_of(1);
    stoker::ReadCall call;
    call.descriptors = descriptors.data();
    call.files = descriptors.size();
    call.ranges_done = ranges_done.data();
    return read(&call, ranges, residency);
  }

  // Nothing is done while another thread reads: a registration is never needed.
  bool add_memory(std::uint64_t address, std::uint64_t size_bytes) {
    if (busy_.test_and_set()) return false;
    const bool taken = reader_ != nullptr && reader_->add_memory(address, size_bytes);
    busy_.clear();
    return taken;
  }
  // False when it is in use.
  bool remove_memory(std::uint64_t address) {
    if (busy_.test_and_set()) return false;
    if (reader_ != nullptr) reader_->remove_memory(address);
    busy_.clear();
    return true;
  }
  // False when it is in use.
  bool close() {
    if (busy_.test_and_set()) return false;
    {
      const nb::gil_scoped_release released;
      reader_.reset();
    }
    busy_.clear();
    return true;
  }

  std::string kind;
  unsigned queue_depth;
  std::int64_t request_bytes;

 private:
  static int fault_of(int fault) { return kColumnFault - fault; }

  int read(stoker::ReadCall* call, const Ranges& ranges, bool residency) {
    call->ranges = ranges.data();
    call->range_count = ranges.shape(0);
    call->residency = residency;
    call->queue_depth = queue_depth;
    call->request_bytes = request_bytes;
    if (busy_.test_and_set()) return kBusy;
    int result = EBADF;
    if (reader_ != nullptr) {
      const nb::gil_scoped_release released;
      const auto fault = stoker::check_ranges(*call);
      result = fault != stoker::ColumnFault::none ? fault_of(static_cast<int>(fault)) : -reader_->read(*call);
    }
    busy_.clear();
    return result;
  }

  std::unique_ptr<stoker::Reader> reader_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

}  // namespace

void bind_reader(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<ReadEngine>(module, "ReadEngine")
      .def(nb::init<const std::string&, unsigned, std::int64_t>(), "kind"_a, "queue_depth"_a, "request_bytes"_a)
      .def_ro("kind", &ReadEngine::kind)
      .def_rw("queue_depth", &ReadEngine::queue_depth)
      .def_rw("request_bytes", &ReadEngine::request_bytes)
      .def("read_files", &ReadEngine::read_files, "folder"_a, "keys"_a, "flags"_a, "ranges"_a.noconvert(),
           "residency"_a, "files_done"_a.noconvert(), "ranges_done"_a.noconvert())
      .def("read_open", &ReadEngine::read_open, "files"_a, "ranges"_a.noconvert(), "residency"_a,
           "ranges_done"_a.noconvert())
      .def("register", &ReadEngine::add_memory, "address"_a, "size_bytes"_a)
      .def("unregister", &ReadEngine::remove_memory, "address"_a)
      .def("close", &ReadEngine::close);
}
