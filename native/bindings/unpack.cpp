#include "stoker/unpack.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>

#include <optional>
#include <tuple>

#include "bindings.hpp"

namespace nb = nanobind;

namespace {

using Buffer = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Column = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Filled = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<std::int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// Dropping the GIL costs more than it gives while the work takes a few microseconds: others may then keep it for
// milliseconds. A file or record takes a third of one.
constexpr std::size_t release_items_min = 64;
constexpr std::size_t release_window_bytes_min = 64 * 1024;

class MaybeReleased {
 public:
  explicit MaybeReleased(bool worth) {
    if (worth) released_.emplace();
  }

 private:
  std::optional<nb::gil_scoped_release> released_;
};

// Files in one buffer. The checks are the face's, made once more here, where a mistake would read foreign memory.
struct Files {
  stoker::Bytes buffer;
  const std::int64_t* starts;
  const std::int64_t* lengths;
  std::size_t count;

  Files(const Buffer& data, const Column& starts_told, const Column& lengths_told)
      : buffer{data.data(), data.size()},
        starts(starts_told.data()),
        lengths(lengths_told.data()),
        count(starts_told.shape(0)) {
    if (lengths_told.shape(0) != count) throw nb::value_error("columns differ in length");
    for (std::size_t index = 0; index < count; ++index) {
      const std::int64_t size = static_cast<std::int64_t>(buffer.size);
      const bool inside = starts[index] >= 0 && lengths[index] >= 0 && lengths[index] <= size &&
                          starts[index] <= size - lengths[index];
      if (!inside) throw nb::value_error("a file does not lie in its buffer");
    }
  }

  stoker::Bytes at(std::size_t index) const {
    return {buffer.data + starts[index], static_cast<std::uint64_t>(lengths[index])};
  }
};

template <void (*locate)(stoker::Bytes, std::int64_t, std::int64_t*)>
void locate_arrays(const Buffer& data, const Column& starts, const Column& lengths, const Rows& found) {
  const Files files(data, starts, lengths);
  if (found.shape(0) != files.count || found.shape(1) != stoker::array_columns) {
    throw nb::value_error("columns of the arrays have a wrong shape");
  }
  std::int64_t* rows = found.data();
  const MaybeReleased released(files.count >= release_items_min);
  for (std::size_t index = 0; index < files.count; ++index) {
    locate(files.at(index), files.starts[index], rows + index * stoker::array_columns);
  }
}

void examples_locate(const Buffer& data, const Column& starts, const Column& lengths, const Column& counts,
                     const Filled& statuses, const Rows& records) {
  const Files files(data, starts, lengths);
  if (counts.shape(0) != files.count || statuses.shape(0) != files.count ||
      records.shape(1) != stoker::record_columns) {
    throw nb::value_error("columns of the records have a wrong shape");
  }
  std::uint64_t total = 0;
  for (std::size_t index = 0; index < files.count; ++index) {
    const std::int64_t count = counts.data()[index];
    if (count < 0 || static_cast<std::uint64_t>(count) > records.shape(0) - total) {
      throw nb::value_error("there is no room for the records");
    }
    total += static_cast<std::uint64_t>(count);
  }
  const std::int64_t* wanted = counts.data();
  std::int64_t* status = statuses.data();
  std::int64_t* rows = records.data();
  const MaybeReleased released(total >= release_items_min);
  for (std::size_t index = 0; index < files.count; ++index) {
    const std::uint64_t count = static_cast<std::uint64_t>(wanted[index]);
    status[index] = stoker::examples_locate(files.at(index), files.starts[index], count, rows);
    rows += count * stoker::record_columns;
  }
}

std::tuple<std::uint64_t, std::uint64_t, int> records_scan(const Buffer& window, std::int64_t left_bytes,
                                                           const Filled& offsets, const Filled& sizes) {
  if (left_bytes < 0 || offsets.shape(0) != sizes.shape(0)) throw nb::value_error("columns do not fit together");
  const stoker::Bytes bytes{window.data(), window.size()};
  const MaybeReleased released(window.size() >= release_window_bytes_min);
  const stoker::Scanned scanned = stoker::records_scan(bytes, static_cast<std::uint64_t>(left_bytes), offsets.data(),
                                                       sizes.data(), offsets.shape(0));
  return {scanned.records, scanned.next, scanned.end};
}

}  // namespace

void bind_unpack(nb::module_& module) {
  module.def("npz_locate", &locate_arrays<stoker::npz_locate>);
  module.def("npy_locate", &locate_arrays<stoker::npy_locate>);
  module.def("examples_locate", &examples_locate);
  module.def("records_scan", &records_scan);
}
