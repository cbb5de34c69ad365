#include "stoker/rows.hpp"

#include <cstring>
#include <vector>

#include "check.hpp"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr stoker::RowKinds kRow{"ubu", 3};

struct Made {
  std::vector<std::uint64_t> numbers, places;
  Bytes blobs, message;
};

Made made() {
  Made rows;
  rows.blobs.resize(70000);
  for (std::size_t at = 0; at < rows.blobs.size(); ++at) rows.blobs[at] = static_cast<std::uint8_t>(at * 7);
  const std::uint64_t sizes[] = {0, 1, 255, 256, 65535, 65536};
  for (std::uint64_t row = 0; row < 6; ++row) {
    for (const std::uint64_t value : {std::uint64_t{1} << (11 * row), ~std::uint64_t{0} >> (9 * row)}) {
      rows.numbers.push_back(value);
    }
    rows.places.insert(rows.places.end(), {row, sizes[row]});
  }
  Bytes room(stoker::rows_bound(kRow, 6) + 131583);
  const std::size_t used =
      stoker::encode_rows(kRow, {rows.numbers.data(), rows.places.data(), rows.blobs.data(), rows.blobs.size()}, 6,
                          room.data());
  CHECK(used != 0 && used <= room.size());
  rows.message.assign(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(used));
  return rows;
}

// In memory of exactly the size, so that the sanitizers see a byte too many.
std::size_t read(const Bytes& message, std::size_t count, Made& into) {
  const Bytes alone(message);
  into.numbers.assign(2 * count, 0);
  into.places.assign(2 * count, 0);
  return stoker::decode_rows(
      kRow, {into.numbers.data(), into.places.data(), const_cast<std::uint8_t*>(alone.data()), alone.size()}, count, 0);
}

void check_round_trip(const Made& rows) {
  Made found;
  CHECK(read(rows.message, 6, found) == rows.message.size());
  CHECK(found.numbers == rows.numbers);
  for (std::size_t row = 0; row < 6; ++row) {
    const std::uint64_t at = found.places[2 * row], size = found.places[2 * row + 1];
    CHECK(size == rows.places[2 * row + 1]);
    CHECK(size == 0 ||
          std::memcmp(rows.message.data() + at, rows.blobs.data() + rows.places[2 * row], size) == 0);
  }
}

void check_damage(const Made& rows) {
  Made found;
  Bytes cut(rows.message);
  cut.resize(400);
  for (std::size_t size = 0; size < cut.size(); ++size) {
    CHECK(read(Bytes(cut.begin(), cut.begin() + static_cast<std::ptrdiff_t>(size)), 6, found) == 0);
  }
  for (std::size_t at = 0; at < cut.size(); ++at) {
    for (const int value : {0x00, 0x80, 0xC4, 0xC6, 0xCF, 0xD3, 0xFF}) {
      Bytes changed(rows.message);
      changed[at] = static_cast<std::uint8_t>(value);
      const std::size_t end = read(changed, 6, found);
      CHECK(end <= changed.size());
      for (std::size_t row = 0; end != 0 && row < 6; ++row) {
        CHECK(found.places[2 * row] + found.places[2 * row + 1] <= changed.size());
      }
    }
  }
}

void check_refused() {
  std::uint64_t numbers[2] = {1, 2};
  std::uint8_t data[4] = {}, out[64];
  for (const std::uint64_t at : {std::uint64_t{5}, ~std::uint64_t{0}, std::uint64_t{3}}) {
    std::uint64_t places[2] = {at, 2};
    CHECK(stoker::encode_rows(kRow, {numbers, places, data, 4}, 1, out) == 0);
  }
  CHECK((!stoker::RowKinds{"ux", 2}.sound()));
  CHECK((!stoker::RowKinds{"uuuuuuuuuuuuuuuu", 16}.sound()));
}

}  // namespace

int main() {
  const Made rows = made();
  check_round_trip(rows);
  check_damage(rows);
  check_refused();
  RETURN_RESULT();
}
