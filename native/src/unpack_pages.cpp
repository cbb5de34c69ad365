// Sources: parquet.thrift and Encodings.md of Apache Parquet format 2.11, thrift-compact-protocol.md of Apache Thrift.
#include "stoker/unpack_pages.hpp"

#include <algorithm>
#include <cstring>

namespace stoker {
namespace {

constexpr int kind_true = 1, kind_false = 2, kind_i32 = 5, kind_i64 = 6, kind_binary = 8, kind_struct = 12;
constexpr std::uint64_t page_data = 0, page_dictionary = 2;
constexpr std::uint64_t plain = 0, plain_dictionary = 2, rle = 3, rle_dictionary = 8;
constexpr int varint_bytes_max = 9;
constexpr unsigned index_bits_max = 32;

struct Cursor {
  const std::uint8_t* at;
  const std::uint8_t* end;

  std::uint64_t left() const { return static_cast<std::uint64_t>(end - at); }

  bool byte(std::uint8_t* value) {
    if (at == end) return false;
    *value = *at++;
    return true;
  }

  bool varint(std::uint64_t* value) {
    *value = 0;
    std::uint8_t digit = 0;
    for (int index = 0; index < varint_bytes_max && byte(&digit); ++index) {
      *value |= static_cast<std::uint64_t>(digit & 0x7F) << (7 * index);
      if (digit < 0x80) return true;
    }
    return false;
  }

  // Reads a number that is not negative.
  bool number(std::uint64_t* value) {
    if (!varint(value) || *value & 1) return false;
    *value >>= 1;
    return true;
  }

  bool skip(std::uint64_t bytes) {
    if (bytes > left()) return false;
    at += bytes;
    return true;
  }

  // Splits off the next `bytes`.
  bool take(std::uint64_t bytes, Cursor* taken) {
    *taken = {at, at};
    if (!skip(bytes)) return false;
    taken->end = at;
    return true;
  }
};

// Reads the head of a field; `number` grows by what it tells. False at malformed ones; a kind of 0 ends the struct.
bool field(Cursor* from, std::uint64_t* number, int* kind) {
  std::uint8_t head = 0;
  if (!from->byte(&head)) return false;
  *kind = head & 15;
  *number += head >> 4;
  return head == 0 || (head >> 4 != 0 && *kind != 0);
}

// Skips what a page header may hold beside numbers: the checksum and flat statistics.
bool skip_flat(Cursor* from, int kind, bool structs) {
  std::uint64_t value = 0;
  if (kind == kind_true || kind == kind_false) return true;
  if (kind == kind_i32 || kind == kind_i64) return from->varint(&value);
  if (kind == kind_binary) return from->varint(&value) && from->skip(value);
  if (kind != kind_struct || !structs) return false;
  for (std::uint64_t number = 0; field(from, &number, &kind);) {
    if (kind == 0) return true;
    if (!skip_flat(from, kind, false)) return false;
  }
  return false;
}

struct Page {
  std::uint64_t type = 0;
  std::uint64_t unpacked_bytes = 0;
  std::uint64_t bytes = 0;
  std::uint64_t values = 0;
  std::uint64_t encoding = 0;
  std::uint64_t body = 0;  // which of the headers of kinds of page was there
};

bool parse_body(Cursor* from, Page* page) {
  bool values = false, encoding = false;
  int kind = 0;
  for (std::uint64_t number = 0; field(from, &number, &kind);) {
    if (kind == 0) return values && encoding;
    std::uint64_t levels = rle;
    bool read = true;
    if (number == 1 && kind == kind_i32) {
      read = values = from->number(&page->values);
    } else if (number == 2 && kind == kind_i32) {
      read = encoding = from->number(&page->encoding);
    } else if (page->body == 5 && (number == 3 || number == 4) && kind == kind_i32) {
      read = from->number(&levels) && levels == rle;
    } else {
      read = skip_flat(from, kind, true);
    }
    if (!read) return false;
  }
  return false;
}

bool parse_page(Cursor* from, Page* page) {
  unsigned seen = 0;
  int kind = 0;
  for (std::uint64_t number = 0; field(from, &number, &kind);) {
    if (kind == 0) {
      const std::uint64_t body = page->type == page_data ? 5 : 7;
      return (seen & 0xE) == 0xE && page->body == body && page->bytes == page->unpacked_bytes;
    }
    bool read = false;
    if (number <= 4 && kind == kind_i32) {
      std::uint64_t checksum = 0;
      std::uint64_t* const places[] = {&page->type, &page->unpacked_bytes, &page->bytes};
      read = number < 4 ? from->number(places[number - 1]) : from->varint(&checksum);
      seen |= 1u << number;
    } else if ((number == 5 || number == 7) && kind == kind_struct && page->body == 0) {
      page->body = number;
      read = parse_body(from, page);
    }
    if (!read) return false;
  }
  return false;
}

// Runs of the hybrid of run lengths and packed bits: so many of one `value`, or packed in `bits`.
struct Run {
  std::uint64_t count;
  std::uint64_t value;
  Cursor bits;
  bool packed;
};

bool next_run(Cursor* from, unsigned width, Run* run) {
  std::uint64_t head = 0;
  if (!from->varint(&head) || head < 2) return false;
  run->packed = head & 1;
  if (run->packed) {
    const std::uint64_t groups = head >> 1;
    if (groups > from->left()) return false;
    run->count = groups * 8;
    return from->take(groups * width, &run->bits);
  }
  run->count = head >> 1;
  run->value = 0;
  for (unsigned shift = 0; shift < width; shift += 8) {
    std::uint8_t digit = 0;
    if (!from->byte(&digit)) return false;
    run->value |= static_cast<std::uint64_t>(digit) << shift;
  }
  return true;
}

std::uint64_t packed_value(const Cursor& bits, std::uint64_t index, unsigned width) {
  const std::uint64_t bit = index * width;
  const std::uint8_t* at = bits.at + bit / 8;
  std::uint64_t word = 0;
  for (unsigned shift = 0; shift < width + bit % 8 && at < bits.end; shift += 8) {
    word |= static_cast<std::uint64_t>(*at++) << shift;
  }
  return word >> (bit % 8) & ((std::uint64_t{1} << width) - 1);
}

// Tells whether the levels of the next `count` values lie before the values, as `run_holds(run, count)` wants them.
template <class Holds>
bool levels_hold(Cursor* body, unsigned width, std::uint64_t count, Holds run_holds) {
  Cursor told{}, levels{};
  if (!body->take(4, &told)) return false;
  const std::uint64_t bytes = told.at[0] | told.at[1] << 8 | told.at[2] << 16 | std::uint64_t{told.at[3]} << 24;
  if (!body->take(bytes, &levels)) return false;
  while (count) {
    Run run{};
    if (!next_run(&levels, width, &run) || (!run.packed && run.count > count)) return false;
    const std::uint64_t own = std::min(run.count, count);
    if (!run_holds(run, own)) return false;
    count -= own;
  }
  return levels.at == levels.end;
}

bool all_are(std::uint64_t level, unsigned width, const Run& run, std::uint64_t count) {
  if (!run.packed) return run.value == level;
  for (std::uint64_t index = 0; index < count; ++index) {
    if (packed_value(run.bits, index, width) != level) return false;
  }
  return true;
}

// Tells whether a run goes on with lists of `size`, the first value standing at `*place` of its list.
bool lists_go_on(std::uint64_t size, std::uint64_t* place, const Run& run, std::uint64_t count) {
  if (!run.packed) {
    const bool fits = run.value == 1 ? *place > 0 && count <= size - *place
                                     : run.value == 0 && *place == 0 && (count == 1 || size == 1);
    *place = (*place + count) % size;
    return fits;
  }
  for (std::uint64_t index = 0; index < count; ++index) {
    const bool inside = run.bits.at[index / 8] >> (index % 8) & 1;
    if (inside != (*place > 0)) return false;
    if (++*place == size) *place = 0;
  }
  return true;
}

struct Dictionary {
  const std::uint8_t* entries = nullptr;
  std::uint64_t count = 0;
};

template <std::size_t bytes>
bool look_up(const Dictionary& dictionary, const ColumnJob& job, const Run& run, unsigned width, std::uint64_t count,
             std::uint8_t* out) {
  const std::size_t size = bytes ? bytes : job.out_width;
  for (std::uint64_t index = 0; index < count; ++index, out += size) {
    const std::uint64_t entry = !run.packed  ? run.value
                                : width == 8 ? run.bits.at[index]
                                             : packed_value(run.bits, index, width);
    if (entry >= dictionary.count) return false;
    std::memcpy(out, dictionary.entries + entry * job.width, size);
  }
  return true;
}

bool by_dictionary(Cursor body, const Dictionary& dictionary, const ColumnJob& job, std::uint64_t count,
                   std::uint8_t* out) {
  std::uint8_t width = 0;
  if (!dictionary.entries || !body.byte(&width) || width > index_bits_max) return false;
  while (count) {
    Run run{};
    if (!next_run(&body, width, &run) || (!run.packed && run.count > count)) return false;
    const std::uint64_t own = std::min(run.count, count);
    bool found = false;
    switch (job.out_width) {
      case 1: found = look_up<1>(dictionary, job, run, width, own, out); break;
      case 2: found = look_up<2>(dictionary, job, run, width, own, out); break;
      case 4: found = look_up<4>(dictionary, job, run, width, own, out); break;
      case 8: found = look_up<8>(dictionary, job, run, width, own, out); break;
      default: found = look_up<0>(dictionary, job, run, width, own, out);
    }
    if (!found) return false;
    out += own * job.out_width;
    count -= own;
  }
  return body.at == body.end;
}

bool plainly(Cursor body, const ColumnJob& job, std::uint64_t count, std::uint8_t* out) {
  if (body.left() != count * job.width) return false;
  if (job.width == job.out_width) {
    std::memcpy(out, body.at, body.left());
  } else if (job.out_width == 1) {
    for (std::uint64_t index = 0; index < count; ++index) out[index] = body.at[4 * index];
  } else {
    for (std::uint64_t index = 0; index < count; ++index) std::memcpy(out + 2 * index, body.at + 4 * index, 2);
  }
  return true;
}

unsigned bits_of(std::uint64_t value) {
  unsigned bits = 0;
  for (; value; value >>= 1) ++bits;
  return bits;
}

}  // namespace

bool unpack_column(Bytes chunk, const ColumnJob& job, std::uint8_t* out) {
  Cursor from{chunk.data, chunk.data + chunk.size};
  Dictionary dictionary;
  std::uint64_t done = 0, place = 0;
  while (from.at != from.end) {
    Page page;
    Cursor body{};
    if (!parse_page(&from, &page) || !from.take(page.bytes, &body)) return false;
    if (page.type == page_dictionary) {
      const bool fits = page.encoding == plain || page.encoding == plain_dictionary;
      if (!fits || dictionary.entries || done || page.values > body.left() / job.width) return false;
      if (body.left() != page.values * job.width) return false;
      dictionary = {body.at, page.values};
      continue;
    }
    if (page.type != page_data || page.values > job.values - done) return false;
    const unsigned width = bits_of(job.levels);
    const auto lists = [&](const Run& run, std::uint64_t count) { return lists_go_on(job.list_size, &place, run, count); };
    const auto there = [&](const Run& run, std::uint64_t count) { return all_are(job.levels, width, run, count); };
    if (job.list_size && !levels_hold(&body, 1, page.values, lists)) return false;
    if (job.levels && !levels_hold(&body, width, page.values, there)) return false;
    std::uint8_t* const into = out + done * job.out_width;
    const bool indexed = page.encoding == plain_dictionary || page.encoding == rle_dictionary;
    if (!indexed && page.encoding != plain) return false;
    if (!(indexed ? by_dictionary(body, dictionary, job, page.values, into) : plainly(body, job, page.values, into))) {
      return false;
    }
    done += page.values;
  }
  return done == job.values && place == 0;
}

}  // namespace stoker
