// Usual chunks come apart, and no mutilated one makes the kernel look outside it or write outside its output: both lie in
// blocks of exactly their size, so that AddressSanitizer sees the first byte too far.
#include "check.hpp"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "stoker/unpack_pages.hpp"

namespace {

std::string varint(std::uint64_t value) {
  std::string digits;
  for (; value > 0x7F; value >>= 7) digits.push_back(static_cast<char>((value & 0x7F) | 0x80));
  digits.push_back(static_cast<char>(value));
  return digits;
}

std::string i32(std::uint64_t value) { return std::string("\x15") + varint(value << 1); }

std::string page(int type, std::size_t values, int encoding, const std::string& body) {
  const std::string sizes = i32(static_cast<std::uint64_t>(type)) + i32(body.size()) + i32(body.size());
  const std::string head = i32(values) + i32(static_cast<std::uint64_t>(encoding));
  const std::string stop(1, '\0');
  if (type == 2) return sizes + '\x4c' + head + stop + stop + body;
  const std::string statistics = std::string("\x1c\x36") + varint(4) + "\x28\x03" "abc" + stop;
  return sizes + '\x2c' + head + i32(3) + i32(3) + statistics + stop + stop + body;
}

std::string with_length(const std::string& levels) {
  std::string length(4, '\0');
  for (std::size_t index = 0; index < 4; ++index) length[index] = static_cast<char>(levels.size() >> (8 * index) & 0xFF);
  return length + levels;
}

std::string floats(std::size_t count) {
  std::string bytes;
  for (std::size_t index = 0; index < 4 * count; ++index) bytes.push_back(static_cast<char>(index * 37 + 11));
  return bytes;
}

// What a chunk unpacks to, from a block of exactly its size; empty where it is unusual.
std::string unpacked(const std::string& chunk, const stoker::ColumnJob& job) {
  const std::unique_ptr<std::uint8_t[]> from(new std::uint8_t[chunk.size()]);
  const std::size_t bytes = job.values * job.out_width;
  const std::unique_ptr<std::uint8_t[]> out(new std::uint8_t[bytes]);
  std::memcpy(from.get(), chunk.data(), chunk.size());
  if (!stoker::unpack_column({from.get(), chunk.size()}, job, out.get())) return "";
  return std::string(reinterpret_cast<const char*>(out.get()), bytes);
}

struct Case {
  std::string chunk;
  stoker::ColumnJob job;
  std::string wanted;
};

std::vector<Case> usual_cases() {
  std::vector<Case> cases;
  const std::string seven = floats(7), twelve = floats(12);
  cases.push_back({page(0, 7, 0, seven), {7, 4, 4, 0, 0}, seven});
  cases.push_back({page(0, 3, 0, seven.substr(0, 12)) + page(0, 4, 0, seven.substr(12)), {7, 4, 4, 0, 0}, seven});
  // Lists of six, the first in one run, the second in packed bits; one definition level for all.
  const std::string lists = with_length(std::string("\x02\x00\x0a\x01\x03\x3e", 6));
  const std::string there = with_length(std::string("\x18\x01", 2));
  cases.push_back({page(0, 12, 0, lists + there + twelve), {12, 4, 4, 6, 1}, twelve});
  // 8 bits kept in 4 bytes, by a dictionary of three: a run of two, then eight indices of two bits, six of them used.
  const std::string dictionary("\x05\0\0\0\x07\0\0\0\xff\xff\xff\xff", 12);
  const std::string indices("\x02\x04\x02\x03\x24\x01", 6);
  cases.push_back({page(2, 3, 0, dictionary) + page(0, 8, 8, indices), {8, 4, 1, 0, 0}, "\xff\xff\x05\x07\xff\x05\x07\x05"});
  std::string narrow;
  for (std::size_t index = 0; index < 7; ++index) narrow += seven.substr(4 * index, 2);
  cases.push_back({page(0, 7, 0, seven), {7, 4, 2, 0, 0}, narrow});
  return cases;
}

void check_mutilated(const Case& one) {
  for (std::size_t size = 0; size < one.chunk.size(); ++size) CHECK(unpacked(one.chunk.substr(0, size), one.job).empty());
  for (std::size_t at = 0; at < one.chunk.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      std::string chunk = one.chunk;
      chunk[at] = static_cast<char>(value);
      unpacked(chunk, one.job);
    }
  }
}

}  // namespace

int main() {
  for (const Case& one : usual_cases()) {
    CHECK(unpacked(one.chunk, one.job) == one.wanted);
    CHECK(unpacked(one.chunk + '\0', one.job).empty());
    stoker::ColumnJob other = one.job;
    other.values += 1;
    CHECK(unpacked(one.chunk, other).empty());
    other = one.job;
    other.list_size = one.job.list_size ? one.job.list_size - 1 : 1;
    CHECK(unpacked(one.chunk, other).empty());
    check_mutilated(one);
  }
  CHECK(unpacked(page(0, 2, 8, std::string("\x01\x04\x01", 3)), {2, 4, 4, 0, 0}).empty());
  CHECK(unpacked(page(1, 7, 0, floats(7)), {7, 4, 4, 0, 0}).empty());
  RETURN_RESULT();
}
