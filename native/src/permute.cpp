#include "stoker/permute.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace stoker {
namespace {

constexpr std::uint64_t golden = 0x9E3779B97F4A7C15;
constexpr std::uint64_t mix_one = 0xBF58476D1CE4E5B9;
constexpr std::uint64_t mix_two = 0x94D049BB133111EB;
constexpr unsigned rounds_max = 64;
// So many indices go through the network side by side: a processor multiplies several at a time.
constexpr std::size_t lanes = 8;

std::uint64_t mix(std::uint64_t word) {
  word = (word ^ word >> 30) * mix_one;
  word = (word ^ word >> 27) * mix_two;
  return word ^ word >> 31;
}

std::uint64_t below(std::uint64_t word, std::uint64_t key, std::uint64_t limit) {
  word = (word + key) * mix_one;
  word = (word ^ word >> 32) * mix_two;
  return (word >> 32) * limit >> 32;
}

std::uint64_t add_below(std::uint64_t one, std::uint64_t other, std::uint64_t limit) {
  const std::uint64_t total = one + other;
  return total - (total >= limit ? limit : 0);
}

struct Network {
  std::uint64_t rows;
  std::uint64_t columns;
  unsigned rounds;
  std::array<std::uint64_t, rounds_max> keys;

  // Both halves are below 2^32, and nearly always the value is, too: then a division takes half the time.
  void split(std::uint64_t value, std::uint64_t* left, std::uint64_t* right) const {
    if (value <= std::numeric_limits<std::uint32_t>::max()) {
      *left = static_cast<std::uint32_t>(value) / static_cast<std::uint32_t>(columns);
    } else {
      *left = value / columns;
    }
    *right = value - *left * columns;
  }

  template <std::size_t count>
  void move(std::uint64_t* values) const {
    std::array<std::uint64_t, count> left, right;
    for (std::size_t lane = 0; lane < count; ++lane) split(values[lane], &left[lane], &right[lane]);
    for (unsigned number = 0; number < rounds; number += 2) {
      for (std::size_t lane = 0; lane < count; ++lane) {
        left[lane] = add_below(left[lane], below(right[lane], keys[number], rows), rows);
        right[lane] = add_below(right[lane], below(left[lane], keys[number + 1], columns), columns);
      }
    }
    for (std::size_t lane = 0; lane < count; ++lane) values[lane] = left[lane] * columns + right[lane];
  }
};

}  // namespace

void permute(const std::int64_t* index, std::size_t count, std::uint64_t size, std::uint64_t key, unsigned rounds,
             std::int64_t* out) {
  Network network{};
  network.rows = static_cast<std::uint64_t>(std::ceil(std::sqrt(static_cast<double>(size))));
  network.columns = (size + network.rows - 1) / network.rows;
  network.rounds = std::min(rounds, rounds_max);
  for (unsigned number = 0; number < network.rounds; ++number) network.keys[number] = mix(key + golden * (number + 1));
  for (std::size_t start = 0; start < count; start += lanes) {
    const std::size_t here = std::min(lanes, count - start);
    std::array<std::uint64_t, lanes> values{};
    for (std::size_t lane = 0; lane < here; ++lane) values[lane] = static_cast<std::uint64_t>(index[start + lane]);
    network.move<lanes>(values.data());
    for (std::size_t lane = 0; lane < here; ++lane) {
      while (values[lane] >= size) network.move<1>(&values[lane]);
      out[start + lane] = static_cast<std::int64_t>(values[lane]);
    }
  }
}

}  // namespace stoker
