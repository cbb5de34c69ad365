// Every size is permuted onto itself, whatever the key, and equal keys give equal orders.
#include "check.hpp"

#include <cstdint>
#include <vector>

#include "stoker/permute.hpp"

namespace {

std::vector<std::int64_t> permuted(std::size_t size, std::uint64_t key, unsigned rounds) {
  std::vector<std::int64_t> index(size), out(size, -1);
  for (std::size_t at = 0; at < size; ++at) index[at] = static_cast<std::int64_t>(at);
  stoker::permute(index.data(), size, size, key, rounds, out.data());
  return out;
}

bool takes_each_once(const std::vector<std::int64_t>& out) {
  std::vector<bool> seen(out.size());
  for (const std::int64_t value : out) {
    if (value < 0 || static_cast<std::size_t>(value) >= out.size() || seen[static_cast<std::size_t>(value)]) return false;
    seen[static_cast<std::size_t>(value)] = true;
  }
  return true;
}

}  // namespace

int main() {
  for (std::size_t size = 1; size < 300; ++size) CHECK(takes_each_once(permuted(size, 7 * size, 12)));
  CHECK(takes_each_once(permuted(50'021, ~std::uint64_t{0}, 6)));
  CHECK(permuted(6144, 1, 12) == permuted(6144, 1, 12));
  CHECK(permuted(6144, 1, 12) != permuted(6144, 2, 12));
  const std::int64_t last = (std::int64_t{1} << 40) - 1;
  std::int64_t moved = -1;
  stoker::permute(&last, 1, std::uint64_t{1} << 40, 3, 6, &moved);
  CHECK(moved >= 0 && moved <= last);
  RETURN_RESULT();
}
