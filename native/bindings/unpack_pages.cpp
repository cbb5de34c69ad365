#include "stoker/unpack_pages.hpp"

#include <nanobind/ndarray.h>

#include <optional>

#include "bindings.hpp"

namespace nb = nanobind;

namespace {

using Buffer = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Jobs = nb::ndarray<const std::int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Statuses = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Below it others would keep the GIL for longer than the work takes.
constexpr std::size_t release_bytes_min = 128 * 1024;
constexpr std::int64_t levels_max = 127;

// The checks are the face's, made once more here, where a mistake would read or write foreign memory.
bool fits(const std::int64_t* job, std::size_t data_bytes, std::size_t out_bytes) {
  const std::int64_t data = static_cast<std::int64_t>(data_bytes), out = static_cast<std::int64_t>(out_bytes);
  const std::int64_t width = job[stoker::job_width], out_width = job[stoker::job_out_width];
  const bool widths = width > 0 && (out_width == width || (width == 4 && (out_width == 1 || out_width == 2)));
  return widths && job[stoker::job_at] >= 0 && job[stoker::job_bytes] >= 0 && job[stoker::job_bytes] <= data &&
         job[stoker::job_at] <= data - job[stoker::job_bytes] && job[stoker::job_out_at] >= 0 &&
         job[stoker::job_out_at] <= out && job[stoker::job_values] >= 0 &&
         job[stoker::job_values] <= (out - job[stoker::job_out_at]) / out_width && job[stoker::job_list_size] >= 0 &&
         job[stoker::job_levels] >= 0 && job[stoker::job_levels] <= levels_max;
}

void unpack_columns(const Buffer& data, const Jobs& jobs, const Out& out, const Statuses& statuses) {
  const std::size_t count = jobs.shape(0);
  if (jobs.shape(1) != stoker::job_columns || statuses.shape(0) != count) {
    throw nb::value_error("jobs and statuses do not fit together");
  }
  const std::int64_t* const first = jobs.data();
  for (std::size_t index = 0; index < count; ++index) {
    if (!fits(first + index * stoker::job_columns, data.size(), out.size())) {
      throw nb::value_error("a job does not lie in its buffers");
    }
  }
  const std::uint8_t* const from = data.data();
  std::uint8_t* const into = out.data();
  std::int64_t* const status = statuses.data();
  std::optional<nb::gil_scoped_release> released;
  if (out.size() >= release_bytes_min) released.emplace();
  for (std::size_t index = 0; index < count; ++index) {
    const std::int64_t* const job = first + index * stoker::job_columns;
    const auto told = [&](std::size_t column) { return static_cast<std::uint64_t>(job[column]); };
    const stoker::ColumnJob wanted{told(stoker::job_values), told(stoker::job_width), told(stoker::job_out_width),
                                   told(stoker::job_list_size), told(stoker::job_levels)};
    const stoker::Bytes chunk{from + job[stoker::job_at], told(stoker::job_bytes)};
    status[index] = stoker::unpack_column(chunk, wanted, into + job[stoker::job_out_at]) ? stoker::unpack_usual : 0;
  }
}

}  // namespace

void bind_unpack_pages(nb::module_& module) { module.def("unpack_columns", &unpack_columns); }
