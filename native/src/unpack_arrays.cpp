// NPZ and NPY. Sources: PKWARE APPNOTE 6.3.10, sections 4.3; NumPy's NEP 1, versions 1.0 to 3.0.
#include <cstring>

#include "stoker/unpack.hpp"

namespace stoker {
namespace {

constexpr std::uint64_t end_bytes = 22;
constexpr std::uint64_t central_bytes = 46;
constexpr std::uint64_t local_bytes = 30;
constexpr std::uint64_t locator_bytes = 20;
constexpr std::uint64_t name_bytes = 5;
constexpr std::uint64_t header_bytes_max = 64 * 1024;
constexpr std::uint32_t full32 = 0xFFFFFFFF;
constexpr std::uint32_t encrypted_flags = 0x2041;
constexpr int side_digits_max = 18;

std::uint32_t u16(const std::uint8_t* at) { return static_cast<std::uint32_t>(at[0] | at[1] << 8); }
std::uint32_t u32(const std::uint8_t* at) { return u16(at) | u16(at + 2) << 16; }
bool is(const std::uint8_t* at, const char* text, std::size_t bytes) { return std::memcmp(at, text, bytes) == 0; }

struct Member {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  bool known = false;
};

// Enters the directory's entry at `at` into x or y; returns where the next one starts, 0 when it is unusual.
std::uint64_t read_entry(Bytes file, std::uint64_t at, std::uint64_t border, Member* members) {
  if (border - at < central_bytes + name_bytes) return 0;
  const std::uint8_t* entry = file.data + at;
  const std::uint32_t packed = u32(entry + 20);
  const std::uint32_t size = u32(entry + 24);
  const std::uint32_t offset = u32(entry + 42);
  const bool stored = u16(entry + 10) == 0 && (u16(entry + 8) & encrypted_flags) == 0 && packed == size;
  const std::uint64_t end = at + central_bytes + u16(entry + 28) + u16(entry + 30) + u16(entry + 32);
  if (!is(entry, "PK\1\2", 4) || !stored || size == full32 || offset == full32 || end > border) return 0;
  if (u16(entry + 28) != name_bytes || !is(entry + central_bytes + 1, ".npy", 4)) return 0;
  const std::uint8_t name = entry[central_bytes];
  if (name != 'x' && name != 'y') return 0;
  Member& member = members[name - 'x'];
  if (member.known) return 0;
  member = {offset, size, true};
  return end;
}

// Fills in x and y from the directory; false when anything about it is unusual, or members overlap.
bool read_directory(Bytes file, Member* members) {
  if (file.size < end_bytes) return false;
  const std::uint64_t border = file.size - end_bytes;
  const std::uint8_t* end = file.data + border;
  if (!is(end, "PK\5\6", 4) || u16(end + 4) != 0 || u16(end + 6) != 0 || u16(end + 20) != 0) return false;
  if (border >= locator_bytes && is(end - locator_bytes, "PK\6\7", 4)) return false;
  const std::uint32_t count = u16(end + 10);
  const std::uint64_t start = u32(end + 16);
  if (u16(end + 8) != count || count < 1 || count > 2 || start + u32(end + 12) != border) return false;
  std::uint64_t at = start;
  for (std::uint32_t index = 0; index < count; ++index) {
    at = read_entry(file, at, border, members);
    if (at == 0) return false;
  }
  if (at != border || !members[0].known) return false;
  const Member& x = members[0];
  const Member& y = members[1];
  if (!y.known) return x.offset + local_bytes + x.size <= start;
  // Of two that start at one place the smaller is taken to come first, as in the twin.
  const bool x_first = x.offset < y.offset || (x.offset == y.offset && x.size <= y.size);
  const Member& first = x_first ? x : y;
  const Member& last = x_first ? y : x;
  return first.offset + local_bytes + first.size <= last.offset && last.offset + local_bytes + last.size <= start;
}

struct Array {
  std::uint64_t at = 0;
  std::int64_t dtype = 0;
  std::int64_t fortran = 0;
  std::size_t sides = 0;
  std::int64_t side[array_sides_max] = {};
};

// A text that is read from the front; whatever is not there as asked makes it bad for good.
struct Text {
  const std::uint8_t* at;
  const std::uint8_t* end;
  bool good = true;

  bool next_is(const char* words) {
    const std::size_t bytes = std::strlen(words);
    if (!good || static_cast<std::size_t>(end - at) < bytes || !is(at, words, bytes)) return false;
    at += bytes;
    return true;
  }
  void expect(const char* words) { good = next_is(words); }
};

// A side: 1 to 18 digits, the first of them not 0.
std::int64_t read_side(Text& text) {
  std::int64_t value = 0;
  int digits = 0;
  while (text.at < text.end && *text.at >= '0' && *text.at <= '9' && digits <= side_digits_max) {
    if (digits == 0 && *text.at == '0') break;
    value = value * 10 + (*text.at++ - '0');
    if (++digits > side_digits_max) break;
  }
  text.good = text.good && digits >= 1 && digits <= side_digits_max;
  return value;
}

// An element type: order, kind and size, as the number that the columns hold.
std::int64_t read_dtype(Text& text) {
  if (!text.good || text.end - text.at < 3) {
    text.good = false;
    return 0;
  }
  const std::uint8_t order = text.at[0];
  const std::uint8_t kind = text.at[1];
  int size = text.at[2] - '0';
  text.at += 3;
  if (kind == 'c' && size == 1) {
    size = 16;
    text.expect("6");
  }
  const bool wide = kind == 'c' ? size == 8 || size == 16
                                : (kind == 'i' || kind == 'u' || kind == 'f') && (size == 2 || size == 4 || size == 8);
  const bool narrow = (kind == 'b' || kind == 'i' || kind == 'u') && size == 1;
  text.good = text.good && (order == '|' ? narrow : (order == '<' || order == '>') && wide);
  return static_cast<std::int64_t>(order) << 16 | static_cast<std::int64_t>(kind) << 8 | size;
}

// The header's words exactly as NumPy writes them.
bool read_words(Text text, Array* array) {
  text.expect("{'descr': '");
  array->dtype = read_dtype(text);
  text.expect("', 'fortran_order': ");
  array->fortran = text.next_is("True") ? 1 : 0;
  if (array->fortran == 0) text.expect("False");
  text.expect(", 'shape': (");
  array->side[0] = read_side(text);
  array->sides = 1;
  text.expect(",");
  while (text.good && array->sides < array_sides_max && text.next_is(" ")) {
    array->side[array->sides++] = read_side(text);
    if (!text.next_is(",")) break;
    // A comma promises another side: only one alone ends in one.
    if (array->sides == array_sides_max || text.at == text.end || *text.at != ' ') text.good = false;
  }
  text.expect("), }");
  while (text.good && text.at < text.end) {
    text.good = *text.at == ' ' || *text.at == '\n';
    ++text.at;
  }
  return text.good;
}

// Reads the array at `at`, `size` bytes with its header, all of them inside the file.
bool read_array(Bytes file, std::uint64_t at, std::uint64_t size, Array* array) {
  const std::uint8_t* lead = file.data + at;
  if (size < 12 || !is(lead, "\x93NUMPY", 6) || lead[6] < 1 || lead[6] > 3 || lead[7] != 0) return false;
  const std::uint64_t words_at = lead[6] == 1 ? 10 : 12;
  const std::uint64_t words_bytes = lead[6] == 1 ? u16(lead + 8) : u32(lead + 8);
  if (words_bytes > header_bytes_max || words_at + words_bytes > size) return false;
  if (!read_words({lead + words_at, lead + words_at + words_bytes}, array)) return false;
  std::int64_t bytes = array->dtype & 0xFF;
  for (std::size_t index = 0; index < array->sides; ++index) {
    if (__builtin_mul_overflow(bytes, array->side[index], &bytes)) return false;
  }
  array->at = at + words_at + words_bytes;
  return static_cast<std::uint64_t>(bytes) == size - words_at - words_bytes;
}

bool read_member(Bytes file, const Member& member, Array* array) {
  if (member.offset + local_bytes > file.size) return false;
  const std::uint8_t* local = file.data + member.offset;
  if (!is(local, "PK\3\4", 4) || u16(local + 8) != 0) return false;
  const std::uint64_t at = member.offset + local_bytes + u16(local + 26) + u16(local + 28);
  if (at > file.size || member.size > file.size - at) return false;
  return read_array(file, at, member.size, array);
}

void enter(const Array& array, std::int64_t start, std::int64_t* row) {
  row[array_status] = unpack_usual;
  row[array_dtype] = array.dtype;
  row[array_fortran] = array.fortran;
  row[array_sides] = static_cast<std::int64_t>(array.sides);
  for (std::size_t index = 0; index < array.sides; ++index) row[array_sides + 1 + index] = array.side[index];
  row[array_at] = start + static_cast<std::int64_t>(array.at);
}

}  // namespace

void npz_locate(Bytes file, std::int64_t start, std::int64_t* row) {
  Member members[2];
  if (!read_directory(file, members)) return;
  Array x;
  if (!read_member(file, members[0], &x)) return;
  Array y;
  if (members[1].known) {
    if (!read_member(file, members[1], &y) || y.sides != 1 || y.side[0] != x.side[x.sides - 1]) return;
    row[array_label_at] = start + static_cast<std::int64_t>(y.at);
    row[array_label_dtype] = y.dtype;
  }
  enter(x, start, row);
}

void npy_locate(Bytes file, std::int64_t start, std::int64_t* row) {
  Array array;
  if (read_array(file, 0, file.size, &array)) enter(array, start, row);
}

}  // namespace stoker
