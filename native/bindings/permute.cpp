#include "stoker/permute.hpp"

#include <nanobind/ndarray.h>

#include "bindings.hpp"

namespace nb = nanobind;

namespace {

using Numbers = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Filled = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::uint64_t size_max = std::uint64_t{1} << 62;

void permute(const Numbers& index, const Words& sizes, const Words& keys, const Numbers& repeats, unsigned rounds,
             const Filled& out) {
  const std::size_t count = index.shape(0), stretches = sizes.shape(0);
  if (keys.shape(0) != stretches || repeats.shape(0) != stretches || out.shape(0) != count || rounds % 2 ||
      rounds == 0 || rounds > 64) {
    throw nb::value_error("columns of the permutation do not fit together");
  }
  std::size_t total = 0;
  for (std::size_t stretch = 0; stretch < stretches; ++stretch) {
    const std::int64_t own = repeats.data()[stretch];
    const std::uint64_t size = sizes.data()[stretch];
    if (own < 0 || static_cast<std::size_t>(own) > count - total || size == 0 || size >= size_max) {
      throw nb::value_error("a stretch of the permutation is none");
    }
    // An index outside would walk on forever.
    for (std::size_t at = total; at < total + static_cast<std::size_t>(own); ++at) {
      if (index.data()[at] < 0 || static_cast<std::uint64_t>(index.data()[at]) >= size) {
        throw nb::value_error("an index is not below its size");
      }
    }
    total += static_cast<std::size_t>(own);
  }
  if (total != count) throw nb::value_error("the stretches do not cover the indices");
  const std::int64_t* from = index.data();
  std::int64_t* into = out.data();
  nb::gil_scoped_release released;
  for (std::size_t stretch = 0; stretch < stretches; ++stretch) {
    const std::size_t own = static_cast<std::size_t>(repeats.data()[stretch]);
    stoker::permute(from, own, sizes.data()[stretch], keys.data()[stretch], rounds, into);
    from += own;
    into += own;
  }
}

}  // namespace

void bind_permute(nb::module_& module) { module.def("permute", &permute); }
