#include "stoker/rows.hpp"

#include <cstring>

namespace stoker {
namespace {

constexpr std::size_t kNumberBytesMax = 9;
constexpr std::size_t kBlobHeadBytesMax = 5;

// The lowest `bytes` bytes of a number behind its letter, the highest first.
std::uint8_t* put(std::uint8_t* out, int letter, std::uint64_t value, int bytes) {
  *out++ = static_cast<std::uint8_t>(letter);
  const std::uint64_t swapped = __builtin_bswap64(value << (64 - 8 * bytes));
  std::memcpy(out, &swapped, static_cast<std::size_t>(bytes));
  return out + bytes;
}

std::uint8_t* put_number(std::uint8_t* out, std::uint64_t value) {
  if (value < 0x80) {
    *out = static_cast<std::uint8_t>(value);
    return out + 1;
  }
  if (value <= 0xFF) return put(out, 0xCC, value, 1);
  if (value <= 0xFFFF) return put(out, 0xCD, value, 2);
  if (value <= 0xFFFFFFFF) return put(out, 0xCE, value, 4);
  return put(out, 0xCF, value, 8);
}

std::uint8_t* put_blob(std::uint8_t* out, const std::uint8_t* blob, std::uint64_t size) {
  out = size <= 0xFF ? put(out, 0xC4, size, 1) : size <= 0xFFFF ? put(out, 0xC5, size, 2) : put(out, 0xC6, size, 4);
  if (size != 0) std::memcpy(out, blob, size);
  return out + size;
}

// Reads forward, never beyond the end.
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size, std::size_t at) : data_(data), size_(size), at_(at) {}

  std::size_t at() const { return at_; }

  bool letter(std::uint8_t& found) {
    if (at_ >= size_) return false;
    found = data_[at_++];
    return true;
  }
  bool big_endian(std::size_t bytes, std::uint64_t& found) {
    if (size_ - at_ < bytes) return false;
    found = 0;
    for (std::size_t byte = 0; byte < bytes; ++byte) found = found << 8 | data_[at_++];
    return true;
  }
  bool number(std::uint64_t& found) {
    std::uint8_t first = 0;
    if (!letter(first)) return false;
    found = first;
    if (first < 0x80) return true;
    return first >= 0xCC && first <= 0xCF && big_endian(std::size_t{1} << (first - 0xCC), found);
  }
  bool blob(std::uint64_t* place) {
    std::uint8_t first = 0;
    if (!letter(first) || first < 0xC4 || first > 0xC6) return false;
    if (!big_endian(std::size_t{1} << (first - 0xC4), place[1]) || size_ - at_ < place[1]) return false;
    place[0] = at_;
    at_ += place[1];
    return true;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_;
};

}  // namespace

std::size_t rows_bound(const RowKinds& kinds, std::size_t count) {
  return count * (1 + kNumberBytesMax * kinds.numbers() + kBlobHeadBytesMax * kinds.blobs());
}

std::size_t encode_rows(const RowKinds& kinds, const RowColumns& columns, std::size_t count, std::uint8_t* out) {
  const std::uint64_t* number = columns.numbers;
  const std::uint64_t* place = columns.places;
  std::uint8_t* at = out;
  for (std::size_t row = 0; row < count; ++row) {
    *at++ = static_cast<std::uint8_t>(0x90 | kinds.fields);
    for (std::size_t field = 0; field < kinds.fields; ++field) {
      if (kinds.kinds[field] == 'u') {
        at = put_number(at, *number++);
        continue;
      }
      if (place[0] > columns.data_bytes || place[1] > columns.data_bytes - place[0] || place[1] > 0xFFFFFFFF) return 0;
      at = put_blob(at, columns.data + place[0], place[1]);
      place += 2;
    }
  }
  return static_cast<std::size_t>(at - out);
}

std::size_t decode_rows(const RowKinds& kinds, const RowColumns& columns, std::size_t count, std::size_t start) {
  if (start > columns.data_bytes) return 0;
  Reader reader(columns.data, columns.data_bytes, start);
  std::uint64_t* number = columns.numbers;
  std::uint64_t* place = columns.places;
  for (std::size_t row = 0; row < count; ++row) {
    std::uint8_t first = 0;
    if (!reader.letter(first) || first != (0x90 | kinds.fields)) return 0;
    for (std::size_t field = 0; field < kinds.fields; ++field) {
      if (kinds.kinds[field] == 'u' ? !reader.number(*number++) : !reader.blob(place)) return 0;
      place += kinds.kinds[field] == 'b' ? 2 : 0;
    }
  }
  return reader.at();
}

}  // namespace stoker
