// TFRecord and the tf.train.Example inside. Sources: TensorFlow's record_writer and example.proto, the protocol
// buffers encoding guide.
#include <array>
#include <cstring>

#include "stoker/unpack.hpp"

namespace stoker {
namespace {

constexpr std::uint64_t head_bytes = 12;
constexpr std::uint64_t frame_bytes = head_bytes + 4;
constexpr std::uint32_t checksum_mask = 0xA282EAD8;
constexpr int varint_bytes_max = 9;

constexpr std::array<std::uint32_t, 256> crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0u);
    table[byte] = crc;
  }
  return table;
}();

std::uint32_t u32(const std::uint8_t* at) {
  std::uint32_t value = 0;
  for (int index = 3; index >= 0; --index) value = value << 8 | at[index];
  return value;
}

std::uint64_t u64(const std::uint8_t* at) { return u32(at) | static_cast<std::uint64_t>(u32(at + 4)) << 32; }

// A message, or a field of one: where it starts and ends in the run.
struct Span {
  std::uint64_t at = 0;
  std::uint64_t end = 0;
};

struct Reader {
  const std::uint8_t* data;

  // Reads a number of at most 63 bits and moves past it.
  bool varint(Span* from, std::uint64_t* value) const {
    *value = 0;
    for (int index = 0; index < varint_bytes_max && from->at < from->end; ++index) {
      const std::uint8_t byte = data[from->at++];
      *value |= static_cast<std::uint64_t>(byte & 0x7F) << (7 * index);
      if (byte < 0x80) return true;
    }
    return false;
  }

  // Reads the length-delimited field tagged `tag` and moves past it.
  bool field(Span* from, std::uint8_t tag, Span* found) const {
    if (from->at >= from->end || data[from->at] != tag) return false;
    ++from->at;
    std::uint64_t length = 0;
    if (!varint(from, &length) || length > from->end - from->at) return false;
    *found = {from->at, from->at + length};
    from->at += length;
    return true;
  }

  // The same for a field that must end where its parent does.
  bool only(Span from, std::uint8_t tag, Span* found) const {
    return field(&from, tag, found) && from.at == from.end;
  }

  // Reads the only number of an int64 list, packed or not.
  bool number(Span feature, std::uint64_t* value) const {
    Span items;
    if (!only(feature, 0x1A, &items) || items.at >= items.end) return false;
    if (data[items.at] == 0x0A) {
      const Span list = items;
      if (!only(list, 0x0A, &items)) return false;
    } else if (data[items.at] == 0x08) {
      ++items.at;
    } else {
      return false;
    }
    return varint(&items, value) && items.at == items.end;
  }

  bool is(Span text, const char* word, std::uint64_t bytes) const {
    return text.end - text.at == bytes && std::memcmp(data + text.at, word, bytes) == 0;
  }

  // Finds the image in an Example.
  bool example(Span payload, Span* image) const {
    Span features;
    if (!only(payload, 0x0A, &features)) return false;
    bool has_image = false;
    bool has_size = false;
    std::uint64_t size = 0;
    while (features.at < features.end) {
      Span entry;
      Span key;
      Span value;
      if (!field(&features, 0x0A, &entry) || !field(&entry, 0x0A, &key) || !only(entry, 0x12, &value)) return false;
      if (is(key, "image", 5)) {
        Span items;
        if (has_image || !only(value, 0x0A, &items) || !only(items, 0x0A, image)) return false;
        has_image = true;
      } else if (is(key, "size", 4)) {
        if (has_size || !number(value, &size)) return false;
        has_size = true;
      }
    }
    return has_image && (!has_size || size == image->end - image->at);
  }
};

// Reads the length told at `at`; false when it is cut off or fails its checksum.
bool read_length(Bytes from, std::uint64_t at, std::uint64_t* length) {
  if (at > from.size || from.size - at < head_bytes) return false;
  *length = u64(from.data + at);
  return length_checksum(from.data + at) == u32(from.data + at + 8);
}

bool read_record(Bytes run, std::uint64_t at, std::int64_t start, std::int64_t* row, std::uint64_t* next) {
  std::uint64_t length = 0;
  if (!read_length(run, at, &length)) return false;
  const std::uint64_t left = run.size - at;
  if (left < frame_bytes || length > left - frame_bytes) return false;
  const Span payload{at + head_bytes, at + head_bytes + length};
  Span image;
  if (!Reader{run.data}.example(payload, &image)) return false;
  row[record_payload_at] = start + static_cast<std::int64_t>(payload.at);
  row[record_payload_bytes] = static_cast<std::int64_t>(length);
  row[record_checksum] = u32(run.data + payload.end);
  row[record_image_at] = start + static_cast<std::int64_t>(image.at);
  row[record_image_bytes] = static_cast<std::int64_t>(image.end - image.at);
  *next = payload.end + 4;
  return true;
}

}  // namespace

std::uint32_t length_checksum(const std::uint8_t* length) {
  std::uint32_t crc = 0xFFFFFFFF;
  for (int index = 0; index < 8; ++index) crc = crc >> 8 ^ crc_table[(crc ^ length[index]) & 0xFF];
  crc = ~crc;
  return (crc >> 15 | crc << 17) + checksum_mask;
}

std::int64_t examples_locate(Bytes run, std::int64_t start, std::uint64_t count, std::int64_t* rows) {
  std::uint64_t at = 0;
  std::uint64_t index = 0;
  while (index < count && read_record(run, at, start, rows + index * record_columns, &at)) ++index;
  if (index == count && at == run.size) return unpack_usual;
  std::memset(rows, 0, count * record_columns * sizeof(std::int64_t));
  return 0;
}

Scanned records_scan(Bytes window, std::uint64_t left_bytes, std::int64_t* offsets, std::int64_t* sizes,
                     std::uint64_t room) {
  std::uint64_t at = 0;
  std::uint64_t count = 0;
  const Bytes seen{window.data, window.size < left_bytes ? window.size : left_bytes};
  while (at != left_bytes) {
    if (count == room) return {count, at, scan_full};
    const std::uint64_t left = left_bytes - at;
    if (left < frame_bytes) return {count, at, scan_broken};
    if (at > seen.size || seen.size - at < head_bytes) return {count, at, scan_more};
    std::uint64_t length = 0;
    if (!read_length(seen, at, &length) || length > left - frame_bytes) return {count, at, scan_broken};
    offsets[count] = static_cast<std::int64_t>(at);
    sizes[count] = static_cast<std::int64_t>(frame_bytes + length);
    at += frame_bytes + length;
    ++count;
  }
  return {count, at, scan_end};
}

}  // namespace stoker
