#include "stoker/fill.hpp"

#include <nanobind/stl/tuple.h>

#include <tuple>

#include "bindings.hpp"
#include "byte_view.hpp"

namespace nb = nanobind;

namespace {

// Below this the lock costs more to drop than the fill.
constexpr std::size_t kKeepLockBytes = 4096;

using Knobs = std::tuple<std::size_t, std::uint64_t, double, double>;

void fill(nb::handle into, nb::handle tile, nb::handle pool_keys, Knobs knobs, std::uint64_t offset_bytes,
          std::uint64_t mask) {
  const ByteView out(into, true);
  const ByteView tile_view(tile, false);
  const ByteView keys_view(pool_keys, false);
  stoker::PageStream stream;
  std::size_t random_words = 0;
  std::tie(random_words, stream.base, stream.phase, stream.duplicate_ratio) = knobs;
  if (tile_view.size_bytes() != stoker::kTileBytes || keys_view.size_bytes() != 8 * stoker::kTilePages ||
      random_words > stoker::kPageBytes / 8 || offset_bytes + out.size_bytes() < offset_bytes) {
    throw nb::value_error("no such pages");
  }
  stream.tile = tile_view.data();
  stream.pool_keys = keys_view.data();
  stream.random_bytes = 8 * random_words;
  if (out.size_bytes() <= kKeepLockBytes) {
    stoker::fill_pages(out.writable_data(), out.size_bytes(), stream, offset_bytes, mask);
    return;
  }
  const nb::gil_scoped_release unlocked;
  stoker::fill_pages(out.writable_data(), out.size_bytes(), stream, offset_bytes, mask);
}

}  // namespace

void bind_fill(nb::module_& module) { module.def("fill_pages", fill); }
