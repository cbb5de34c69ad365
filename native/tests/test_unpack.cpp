// Right files are found, and no mutilated one makes a reader look outside the file: each lies in a block of its own,
// of exactly its size, so that AddressSanitizer sees the first byte too far.
#include <cstring>
#include <memory>
#include <string>

#include "check.hpp"
#include "stoker/unpack.hpp"

namespace {

std::string number(std::uint64_t value, int bytes) {
  std::string text;
  for (int index = 0; index < bytes; ++index) text.push_back(static_cast<char>(index < 8 ? value >> (8 * index) & 0xFF : 0));
  return text;
}

std::string npy(const std::string& words, const std::string& content, char version = 1) {
  const std::string padded = words + std::string(10, ' ') + "\n";
  const std::string lead = std::string("\x93NUMPY") + version + std::string(1, '\0');
  return lead + number(padded.size(), version == 1 ? 2 : 4) + padded + content;
}

std::string words(const std::string& descr, const std::string& shape, const std::string& order = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

std::string local_header(const std::string& name, std::size_t extra) {
  return std::string("PK\3\4") + number(45, 2) + number(0, 4) + number(0x21, 4) + number(0, 12) +
         number(name.size(), 2) + number(extra, 2) + name + std::string(extra, 'e');
}

std::string central_entry(const std::string& name, std::size_t size, std::size_t offset) {
  return std::string("PK\1\2") + number(45, 2) + number(45, 2) + number(0, 8) + number(7, 4) + number(size, 4) +
         number(size, 4) + number(name.size(), 2) + number(0, 12) + number(offset, 4) + name;
}

std::string npz(const std::string& x, const std::string& y) {
  std::string file = local_header("x.npy", 20) + x;
  const std::size_t second = file.size();
  if (!y.empty()) file += local_header("y.npy", 20) + y;
  const std::size_t start = file.size();
  file += central_entry("x.npy", x.size(), 0);
  if (!y.empty()) file += central_entry("y.npy", y.size(), second);
  const std::size_t count = y.empty() ? 1 : 2;
  return file + std::string("PK\5\6") + number(0, 4) + number(count, 2) + number(count, 2) +
         number(file.size() - start, 4) + number(start, 4) + number(0, 2);
}

std::string varint(std::size_t value) {
  std::string digits;
  for (; value > 0x7F; value >>= 7) digits.push_back(static_cast<char>((value & 0x7F) | 0x80));
  digits.push_back(static_cast<char>(value));
  return digits;
}

std::string field(char tag, const std::string& content) { return tag + varint(content.size()) + content; }

std::string feature(const std::string& key, const std::string& value) {
  return field('\x0a', field('\x0a', key) + field('\x12', value));
}

std::string record(const std::string& image) {
  const std::string size = field('\x1a', field('\x0a', varint(image.size())));
  const std::string features = feature("image", field('\x0a', field('\x0a', image))) + feature("size", size);
  const std::string payload = field('\x0a', features);
  const std::string length = number(payload.size(), 8);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(length.data());
  return length + number(stoker::length_checksum(bytes), 4) + payload + number(0, 4);
}

// A file in a block of exactly its size.
struct Block {
  explicit Block(const std::string& file) : held(new std::uint8_t[file.size()]), bytes{held.get(), file.size()} {
    std::memcpy(held.get(), file.data(), file.size());
  }
  std::unique_ptr<std::uint8_t[]> held;
  stoker::Bytes bytes;
};

using Locate = void (*)(stoker::Bytes, std::int64_t, std::int64_t*);

struct Row {
  std::int64_t cell[stoker::array_columns] = {};
};

Row locate(Locate kernel, const std::string& file, std::int64_t start = 0) {
  const Block block(file);
  Row row;
  kernel(block.bytes, start, row.cell);
  return row;
}

bool usual(const std::string& text, const std::string& content) {
  return locate(stoker::npy_locate, npy(text, content)).cell[stoker::array_status] == stoker::unpack_usual;
}

std::uint32_t chance_state = 12345;
std::size_t chance(std::size_t below) {
  chance_state = chance_state * 1664525u + 1013904223u;
  return static_cast<std::size_t>(chance_state >> 8) % below;
}

std::string mutilated(std::string file) {
  for (std::size_t edit = chance(3); edit < 3; ++edit) {
    if (file.empty()) break;
    const std::size_t at = chance(file.size());
    const char byte = chance(4) == 0 ? '\xff' : static_cast<char>(chance(256));
    switch (chance(4)) {
      case 0: file[at] = byte; break;
      case 1: file.resize(at); break;
      case 2: file.insert(at, chance(6), byte); break;
      default: file.erase(at, chance(6)); break;
    }
  }
  return file;
}

void test_arrays() {
  const std::string x = npy(words("<f4", "(2, 3, 1)"), std::string(24, 'd'));
  const std::string y = npy(words("<i8", "(1,)"), std::string(8, 'l'));
  const std::string file = npz(x, y);
  const Row row = locate(stoker::npz_locate, file, 1000);
  CHECK(row.cell[stoker::array_status] == stoker::unpack_usual);
  CHECK(row.cell[stoker::array_dtype] == ('<' << 16 | 'f' << 8 | 4));
  CHECK(row.cell[stoker::array_sides] == 3 && row.cell[stoker::array_sides + 2] == 3);
  CHECK(row.cell[stoker::array_at] == 1000 + static_cast<std::int64_t>(file.find("dddd")));
  CHECK(row.cell[stoker::array_label_at] == 1000 + static_cast<std::int64_t>(file.find("llll")));
  CHECK(locate(stoker::npz_locate, npz(x, "")).cell[stoker::array_label_dtype] == 0);
  CHECK(locate(stoker::npz_locate, npz(x, npy(words("<i8", "(2,)"), std::string(16, 'l')))).cell[0] == 0);
  for (const char version : {1, 2, 3}) {
    CHECK(locate(stoker::npy_locate, npy(words("|u1", "(3, 1)", "True"), "abc", version)).cell[2] == 1);
  }
}

void test_headers() {
  CHECK(usual(words("<c16", "(1,)"), std::string(16, 'd')));
  CHECK(usual(words("|b1", "(1, 1, 1, 1, 1, 1, 1, 2)"), "dd"));
  CHECK(!usual(words("|b1", "(1, 1, 1, 1, 1, 1, 1, 1, 2)"), "dd"));
  CHECK(!usual(words("|u1", "(3)"), "ddd"));
  CHECK(!usual(words("|u1", "(3, )"), "ddd"));
  CHECK(!usual(words("|u1", "(1, 3,)"), "ddd"));
  CHECK(!usual(words("|u1", "(0,)"), ""));
  CHECK(!usual(words("|u1", "()"), "d"));
  CHECK(!usual(words("|O1", "(3,)"), "ddd"));
  CHECK(!usual(words("<u1", "(3,)"), "ddd"));
  CHECK(!usual(words("<f8", "(1,)"), "ddd"));
  CHECK(!usual(words("<f8", "(999999999999999999, 999999999999999999, 999999999999999999)"), "d"));
  CHECK(!usual(words("|u1", "(1234567890123456789,)"), "d"));
  CHECK(!usual(words("|u1", "(3,)") + "x", "ddd"));
}

void test_records() {
  const std::string run = record("first image") + record("second");
  const Block block(run);
  std::int64_t rows[2 * stoker::record_columns] = {};
  CHECK(stoker::examples_locate(block.bytes, 500, 2, rows) == stoker::unpack_usual);
  CHECK(rows[stoker::record_image_at] == 500 + static_cast<std::int64_t>(run.find("first")));
  CHECK(rows[stoker::record_columns + stoker::record_image_bytes] == 6);
  CHECK(stoker::examples_locate(block.bytes, 0, 1, rows) == 0);
  CHECK(rows[stoker::record_image_bytes] == 0);
  std::int64_t offsets[3];
  std::int64_t sizes[3];
  const stoker::Scanned whole = stoker::records_scan(block.bytes, run.size(), offsets, sizes, 3);
  CHECK(whole.end == stoker::scan_end && whole.records == 2 && whole.next == run.size());
  CHECK(offsets[1] == sizes[0]);
  CHECK(stoker::records_scan(block.bytes, run.size(), offsets, sizes, 1).end == stoker::scan_full);
  CHECK(stoker::records_scan(block.bytes, run.size() + 100, offsets, sizes, 3).end == stoker::scan_more);
  CHECK(stoker::records_scan(block.bytes, run.size() - 1, offsets, sizes, 3).end == stoker::scan_broken);
}

void test_mutilated_files() {
  const std::string x = npy(words("|u1", "(4, 1)"), "dddd");
  const std::string archive = npz(x, npy(words("<i8", "(1,)"), std::string(8, 'l')));
  const std::string run = record("an image of some bytes") + record(std::string(200, 'i'));
  std::size_t arrays_found = 0;
  std::size_t runs_found = 0;
  for (int turn = 0; turn < 60000; ++turn) {
    const std::string file = mutilated(turn % 2 == 0 ? archive : x);
    const Row row = locate(turn % 2 == 0 ? stoker::npz_locate : stoker::npy_locate, file);
    if (row.cell[stoker::array_status] == stoker::unpack_usual) {
      std::int64_t bytes = row.cell[stoker::array_dtype] & 0xFF;
      for (std::size_t side = 1; side <= stoker::array_sides_max; ++side) {
        if (row.cell[stoker::array_sides + side] > 0) bytes *= row.cell[stoker::array_sides + side];
      }
      CHECK(row.cell[stoker::array_at] + bytes <= static_cast<std::int64_t>(file.size()));
      ++arrays_found;
    }
    const std::string records = mutilated(run);
    const Block block(records);
    std::int64_t rows[2 * stoker::record_columns] = {};
    if (stoker::examples_locate(block.bytes, 0, 2, rows) == stoker::unpack_usual) {
      for (std::size_t at = 0; at < 2 * stoker::record_columns; at += stoker::record_columns) {
        const std::int64_t end = rows[at + stoker::record_image_at] + rows[at + stoker::record_image_bytes];
        CHECK(end <= static_cast<std::int64_t>(records.size()));
      }
      ++runs_found;
    }
    std::int64_t offsets[4];
    std::int64_t sizes[4];
    stoker::records_scan(block.bytes, records.size() + chance(9), offsets, sizes, 4);
  }
  CHECK(arrays_found > 0 && runs_found > 0);
}

}  // namespace

int main() {
  test_arrays();
  test_headers();
  test_records();
  test_mutilated_files();
  RETURN_RESULT();
}
