#include "stoker/rows.hpp"

#include <memory>
#include <string>

#include "bindings.hpp"
#include "byte_view.hpp"

namespace nb = nanobind;

namespace {

void require(bool fits) {
  if (!fits) throw nb::value_error("columns of these sizes do not fit together");
}

// How many rows the columns are of.
std::size_t rows_of(const stoker::RowKinds& kinds, const ByteView& numbers, const ByteView& places) {
  require(kinds.sound() && kinds.numbers() != 0);
  const std::size_t count = numbers.size_bytes() / (8 * kinds.numbers());
  require(numbers.size_bytes() == 8 * kinds.numbers() * count && places.size_bytes() == 16 * kinds.blobs() * count);
  return count;
}

// Bytes that all blobs take together, where none leaves its memory (else it is found out when it is written).
std::size_t blob_bytes(const std::uint64_t* places, std::size_t count, std::size_t data_bytes) {
  std::size_t sum = 0;
  for (std::size_t blob = 0; blob < count; ++blob) {
    require(places[2 * blob + 1] <= data_bytes);
    sum += places[2 * blob + 1];
  }
  return sum;
}

nb::bytes encode_rows(nb::bytes kinds, nb::handle numbers, nb::handle places, nb::handle data) {
  const ByteView given(numbers, false), where(places, false), blobs(data, false);
  const stoker::RowKinds row{kinds.c_str(), kinds.size()};
  const std::size_t count = rows_of(row, given, where);
  const auto* place = reinterpret_cast<const std::uint64_t*>(where.data());
  const std::size_t bound =
      stoker::rows_bound(row, count) + blob_bytes(place, row.blobs() * count, blobs.size_bytes());
  const stoker::RowColumns columns{reinterpret_cast<std::uint64_t*>(const_cast<std::uint8_t*>(given.data())),
                                   const_cast<std::uint64_t*>(place), blobs.data(), blobs.size_bytes()};
  const std::unique_ptr<std::uint8_t[]> room(new std::uint8_t[bound]);
  std::size_t used = 0;
  {
    const nb::gil_scoped_release unlocked;
    used = stoker::encode_rows(row, columns, count, room.get());
  }
  require(used != 0 || count == 0);
  return nb::bytes(room.get(), used);
}

// Where the rows end; 0 where they are not whole, or of other kinds.
std::size_t decode_rows(nb::bytes kinds, nb::handle data, std::size_t start, nb::handle numbers, nb::handle places) {
  const ByteView given(data, false), found(numbers, true), where(places, true);
  const stoker::RowKinds row{kinds.c_str(), kinds.size()};
  const std::size_t count = rows_of(row, found, where);
  const stoker::RowColumns columns{reinterpret_cast<std::uint64_t*>(found.writable_data()),
                                   reinterpret_cast<std::uint64_t*>(where.writable_data()), given.data(),
                                   given.size_bytes()};
  const nb::gil_scoped_release unlocked;
  return stoker::decode_rows(row, columns, count, start);
}

}  // namespace

void bind_rows(nb::module_& module) {
  module.def("encode_rows", encode_rows);
  module.def("decode_rows", decode_rows);
}
