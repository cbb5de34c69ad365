// Plain pages of Parquet columns in memory, taken apart into arrays: values of a fixed width, uncompressed, stored plainly
// or by a dictionary, none of them null, in lists of equal length or none. The pages may hold anything: whatever is not
// exactly so is called unusual, and somebody else judges it. The columns of a job are those of
// stoker/kernels/page_jobs.py.
#pragma once

#include <cstddef>
#include <cstdint>

#include "stoker/unpack.hpp"

namespace stoker {

enum JobColumn : std::size_t {
  job_at = 0,
  job_bytes = 1,
  job_values = 2,
  job_width = 3,
  job_out_width = 4,
  job_list_size = 5,
  job_levels = 6,
  job_out_at = 7,
  job_columns = 8,
};

// What a column chunk must hold: `values` of `width` bytes each, of which the lower `out_width` are wanted; in lists of
// `list_size` (0: none), every definition level being `levels` (0: there are none).
struct ColumnJob {
  std::uint64_t values;
  std::uint64_t width;
  std::uint64_t out_width;
  std::uint64_t list_size;
  std::uint64_t levels;
};

// Fills `out`, which has room for all values; its content is undefined where false is returned: the chunk is unusual.
// Widths are positive, and differ only where 4 bytes are cut to 1 or 2; levels are below 128.
bool unpack_column(Bytes chunk, const ColumnJob& job, std::uint8_t* out);

}  // namespace stoker
