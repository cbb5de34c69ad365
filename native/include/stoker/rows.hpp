// Rows of MessagePack, each an array of the same kinds of fields, written from columns and read into them.
// The plain twin is stoker/kernels/plain_rows.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

// `kinds` has a letter a field: u for an unsigned number of 64 bits, b for bytes; up to 15 fields.
struct RowKinds {
  const char* kinds;
  std::size_t fields;

  std::size_t numbers() const { return count('u'); }
  std::size_t blobs() const { return count('b'); }
  bool sound() const { return fields <= 15 && numbers() + blobs() == fields; }

 private:
  std::size_t count(char kind) const {
    std::size_t found = 0;
    for (std::size_t field = 0; field < fields; ++field) found += kinds[field] == kind ? 1U : 0U;
    return found;
  }
};

// The columns, a row behind the other: numbers; and of each blob where it begins in `data` and its bytes.
struct RowColumns {
  std::uint64_t* numbers;
  std::uint64_t* places;
  const std::uint8_t* data;
  std::size_t data_bytes;
};

// The most bytes that so many rows take, without what is in their blobs.
std::size_t rows_bound(const RowKinds& kinds, std::size_t count);

// Writes the rows, every number as short as it goes, and returns their bytes. `out` has rows_bound bytes and those of
// all blobs. 0 where a blob leaves `data`, or is longer than 2^32 - 1.
std::size_t encode_rows(const RowKinds& kinds, const RowColumns& columns, std::size_t count, std::uint8_t* out);

// Reads as many rows from `data` on `start`; returns where they end, 0 where they are not whole, or of other kinds.
std::size_t decode_rows(const RowKinds& kinds, const RowColumns& columns, std::size_t count, std::size_t start);

}  // namespace stoker
