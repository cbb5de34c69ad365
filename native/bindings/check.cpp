#include "stoker/check.hpp"

#include <nanobind/stl/optional.h>

#include <cstring>
#include <functional>
#include <optional>

#include "bindings.hpp"
#include "byte_view.hpp"

namespace nb = nanobind;

namespace {

// Below this the lock costs more to drop than the work.
constexpr std::size_t kKeepLockBytes = 16384;

template <typename Work>
auto unlocked_if_long(std::size_t size_bytes, Work work) {
  if (size_bytes <= kKeepLockBytes) return work();
  const nb::gil_scoped_release unlocked;
  return work();
}

// Of one size, and apart from each other.
bool fit_for_copy(const ByteView& source, const ByteView& target) {
  const std::less_equal<const std::uint8_t*> before;
  const bool apart = before(source.data() + source.size_bytes(), target.data()) ||
                     before(target.data() + target.size_bytes(), source.data());
  return source.size_bytes() == target.size_bytes() && (apart || source.size_bytes() == 0);
}

std::uint32_t crc32c(nb::handle data, std::uint32_t value) {
  const ByteView view(data, false);
  return unlocked_if_long(view.size_bytes(), [&] { return stoker::crc32c(view.data(), view.size_bytes(), value); });
}

// None where the memory does not fit.
std::optional<std::uint32_t> copy_crc32c(nb::handle source, nb::handle target, std::uint32_t value) {
  const ByteView from(source, false);
  const ByteView to(target, true);
  if (!fit_for_copy(from, to)) return std::nullopt;
  return unlocked_if_long(from.size_bytes(), [&] {
    return stoker::copy_crc32c(from.data(), to.writable_data(), from.size_bytes(), value);
  });
}

std::optional<std::uint64_t> copy_xxh3(nb::handle source, nb::handle target) {
  const ByteView from(source, false);
  const ByteView to(target, true);
  if (!fit_for_copy(from, to) || from.size_bytes() <= stoker::kXxh3ShortBytes) return std::nullopt;
  return unlocked_if_long(
      from.size_bytes(), [&] { return stoker::copy_xxh3(from.data(), to.writable_data(), from.size_bytes()); });
}

// `ranges` are starts, then as many lengths, of 64 bits; a value of each, of value_bytes, goes to `values`. Returns the
// first range that leaves the buffer, or how many there are.
template <typename Check>
std::size_t many(nb::handle buffer, nb::handle ranges, nb::handle values, std::size_t value_bytes, Check check) {
  const ByteView data(buffer, false);
  const ByteView asked(ranges, false);
  const ByteView found(values, true);
  const std::size_t count = found.size_bytes() / value_bytes;
  if (asked.size_bytes() != 2 * count * sizeof(std::uint64_t)) throw nb::value_error("as many ranges as values");
  const auto* starts = reinterpret_cast<const std::uint64_t*>(asked.data());
  const nb::gil_scoped_release unlocked;
  for (std::size_t index = 0; index < count; ++index) {
    const std::uint64_t start = starts[index];
    const std::uint64_t length = starts[count + index];
    if (start > data.size_bytes() || length > data.size_bytes() - start) return index;
    check(data.data() + start, length, found.writable_data() + index * value_bytes);
  }
  return count;
}

std::size_t crc32c_many(nb::handle buffer, nb::handle ranges, nb::handle values) {
  return many(buffer, ranges, values, sizeof(std::uint32_t),
              [](const std::uint8_t* data, std::size_t size_bytes, std::uint8_t* value) {
                const std::uint32_t crc = stoker::crc32c(data, size_bytes, 0);
                std::memcpy(value, &crc, sizeof crc);
              });
}

std::size_t xxh3_128_many(nb::handle buffer, nb::handle ranges, nb::handle digests) {
  return many(buffer, ranges, digests, sizeof(stoker::Hash128),
              [](const std::uint8_t* data, std::size_t size_bytes, std::uint8_t* digest) {
                stoker::write_digest(stoker::xxh3_128(data, size_bytes), digest);
              });
}

}  // namespace

void bind_check(nb::module_& module) {
  module.def("crc32c", crc32c);
  module.def("copy_crc32c", copy_crc32c);
  module.def("copy_xxh3", copy_xxh3);
  module.def("crc32c_many", crc32c_many);
  module.def("xxh3_128_many", xxh3_128_many);
}
