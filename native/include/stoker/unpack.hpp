// Where samples lie in files that are in memory: found by headers alone, without touching a payload byte.
// The files may hold anything. What is not exactly in the form of its common writers is called unusual, and somebody
// else judges it. The columns are those of stoker/kernels/unpack_columns.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stoker {

constexpr std::int64_t unpack_usual = 1;
constexpr std::size_t array_sides_max = 8;

enum ArrayColumn : std::size_t {
  array_status = 0,
  array_dtype = 1,
  array_fortran = 2,
  array_sides = 3,
  array_label_dtype = array_sides + array_sides_max + 1,
  array_at = array_label_dtype + 1,
  array_label_at = array_at + 1,
  array_columns = array_label_at + 1,
};

enum RecordColumn : std::size_t {
  record_payload_at = 0,
  record_payload_bytes = 1,
  record_checksum = 2,
  record_image_at = 3,
  record_image_bytes = 4,
  record_columns = 5,
};

enum ScanEnd : int { scan_end = 0, scan_more = 1, scan_full = 2, scan_broken = 3 };

// Bytes somewhere in memory: what every reader here checks its offsets against.
struct Bytes {
  const std::uint8_t* data;
  std::uint64_t size;
};

// Finds the array of one .npz or .npy file and fills its row, array_columns numbers that are 0 on entry. Offsets in
// the row count from the file's start, plus `start`.
void npz_locate(Bytes file, std::int64_t start, std::int64_t* row);
void npy_locate(Bytes file, std::int64_t start, std::int64_t* row);

// Finds the images of a run of exactly `count` TFRecords and fills `count` rows of record_columns numbers. Returns
// unpack_usual, or 0 and rows of zeros.
std::int64_t examples_locate(Bytes run, std::int64_t start, std::uint64_t count, std::int64_t* rows);

struct Scanned {
  std::uint64_t records;
  std::uint64_t next;
  int end;
};

// Walks along TFRecords from the start of `window`; the file goes on for `left_bytes` from there. Fills in at most
// `room` offsets and sizes.
Scanned records_scan(Bytes window, std::uint64_t left_bytes, std::int64_t* offsets, std::int64_t* sizes,
                     std::uint64_t room);

// The CRC-32C of 8 bytes, as TFRecord masks it.
std::uint32_t length_checksum(const std::uint8_t* length);

}  // namespace stoker
