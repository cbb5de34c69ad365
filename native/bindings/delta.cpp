#include "stoker/delta.hpp"

#include <nanobind/stl/pair.h>

#include <memory>
#include <utility>

#include "bindings.hpp"
#include "byte_view.hpp"
#include "stoker/delta_parts.hpp"
#include "stoker/delta_wire.hpp"

namespace nb = nanobind;

namespace {

// Below this the lock costs more to drop than the work.
constexpr std::size_t kKeepLockBytes = 65536;
// Payloads of pages up to this size are made on the stack.
constexpr std::size_t kStackBytes = 16384;

template <typename Work>
auto unlocked_if_long(std::size_t size_bytes, Work work) {
  if (size_bytes <= kKeepLockBytes) return work();
  const nb::gil_scoped_release unlocked;
  return work();
}

void require(bool fits) {
  if (!fits) throw nb::value_error("memory of these sizes does not fit together");
}

using Made = std::pair<nb::bytes, std::size_t>;

template <typename Diff>
Made diff(const ByteView& base, const ByteView& fresh, Diff make) {
  require(base.size_bytes() == fresh.size_bytes());
  const std::size_t bound = stoker::two_level_bound(base.size_bytes());
  std::uint8_t few[kStackBytes];
  std::unique_ptr<std::uint8_t[]> many;
  if (bound > kStackBytes) many.reset(new std::uint8_t[bound]);
  std::uint8_t* const payload = many ? many.get() : few;
  const stoker::DeltaSize size = unlocked_if_long(base.size_bytes(), [&] { return make(payload); });
  return {nb::bytes(payload, size.payload_bytes), size.changed_bytes};
}

Made two_level_diff(nb::handle base, nb::handle fresh) {
  const ByteView was(base, false);
  const ByteView is(fresh, false);
  return diff(was, is, [&](std::uint8_t* payload) {
    return stoker::two_level_diff(was.data(), is.data(), was.size_bytes(), payload);
  });
}

Made two_level_diff_update(nb::handle base, nb::handle fresh) {
  const ByteView was(base, true);
  const ByteView is(fresh, false);
  return diff(was, is, [&](std::uint8_t* payload) {
    return stoker::two_level_diff_update(was.writable_data(), is.data(), was.size_bytes(), payload);
  });
}

bool two_level_apply(nb::handle page, nb::handle payload) {
  const ByteView target(page, true);
  const ByteView given(payload, false);
  return unlocked_if_long(given.size_bytes(), [&] {
    return stoker::two_level_apply(target.writable_data(), target.size_bytes(), given.data(), given.size_bytes());
  });
}

std::int64_t two_level_changed(std::size_t page_bytes, nb::handle payload) {
  const ByteView given(payload, false);
  return stoker::two_level_changed(page_bytes, given.data(), given.size_bytes());
}

// `offsets` has one number of 64 bits more than there are pages, `changed` one a page.
std::size_t two_level_diff_many(nb::handle bases, nb::handle freshes, nb::handle payloads, nb::handle offsets,
                                nb::handle changed) {
  const ByteView was(bases, false);
  const ByteView is(freshes, false);
  const ByteView out(payloads, true);
  const ByteView starts(offsets, true);
  const ByteView counts(changed, true);
  const std::size_t count = counts.size_bytes() / 8;
  require(was.size_bytes() == is.size_bytes() && counts.size_bytes() == 8 * count);
  require(starts.size_bytes() == 8 * (count + 1) && count > 0 && was.size_bytes() % count == 0);
  const stoker::PagesShape shape{count, was.size_bytes() / count};
  require(out.size_bytes() / count >= stoker::two_level_bound(shape.page_bytes));
  return unlocked_if_long(was.size_bytes(), [&] {
    return stoker::two_level_diff_many(was.data(), is.data(), shape, out.writable_data(),
                                       reinterpret_cast<std::int64_t*>(starts.writable_data()),
                                       reinterpret_cast<std::int64_t*>(counts.writable_data()));
  });
}

stoker::ElementShape shape_of(std::size_t size_bytes, std::size_t width) {
  require((width == 1 || width == 2 || width == 4 || width == 8) && size_bytes % width == 0);
  return {size_bytes / width, width};
}

std::size_t mask_bytes(std::size_t count) { return (count / 64 + (count % 64 != 0)) * 8; }

std::pair<std::size_t, std::size_t> diff_elements(nb::handle base, nb::handle fresh, std::size_t width, nb::handle mask,
                                                  nb::handle gaps, nb::handle base_values, nb::handle fresh_values) {
  const ByteView was(base, false);
  const ByteView is(fresh, false);
  const ByteView mask_out(mask, true);
  const ByteView gaps_out(gaps, true);
  const ByteView was_out(base_values, true);
  const ByteView is_out(fresh_values, true);
  const stoker::ElementShape shape = shape_of(was.size_bytes(), width);
  const std::size_t values_max = was_out.size_bytes() / width;
  require(is.size_bytes() == was.size_bytes() && is_out.size_bytes() == was_out.size_bytes());
  require(mask_out.size_bytes() == mask_bytes(shape.count));
  require(gaps_out.size_bytes() >= values_max && gaps_out.size_bytes() - values_max >= shape.count / 255 + 1);
  const stoker::ElementsOut out{mask_out.writable_data(), gaps_out.writable_data(), was_out.writable_data(),
                                is_out.writable_data(), values_max};
  const stoker::ElementsFound found =
      unlocked_if_long(was.size_bytes(), [&] { return stoker::diff_elements(was.data(), is.data(), shape, out); });
  return {found.changed, found.gap_bytes};
}

stoker::DeltaCoding coding_of(int coding) {
  require(coding == 0 || coding == 1);
  return static_cast<stoker::DeltaCoding>(coding);
}

void encode_planes(nb::handle base, nb::handle fresh, std::size_t width, int coding, nb::handle planes) {
  const ByteView was(base, false);
  const ByteView is(fresh, false);
  const ByteView out(planes, true);
  const stoker::ElementShape shape = shape_of(was.size_bytes(), width);
  const stoker::DeltaCoding chosen = coding_of(coding);
  require(is.size_bytes() == was.size_bytes() && out.size_bytes() == was.size_bytes());
  unlocked_if_long(was.size_bytes(), [&] {
    stoker::encode_planes(was.data(), is.data(), shape, chosen, out.writable_data());
    return true;
  });
}

void apply_planes(nb::handle values, std::size_t width, int coding, nb::handle planes) {
  const ByteView target(values, true);
  const ByteView given(planes, false);
  const stoker::ElementShape shape = shape_of(target.size_bytes(), width);
  const stoker::DeltaCoding chosen = coding_of(coding);
  require(given.size_bytes() == target.size_bytes());
  unlocked_if_long(target.size_bytes(), [&] {
    stoker::apply_planes(target.writable_data(), shape, chosen, given.data());
    return true;
  });
}

// `by_gaps` tells whether `places` are gaps or a mask.
bool apply_places(nb::handle values, std::size_t width, int coding, nb::handle planes, nb::handle places,
                  bool by_gaps) {
  const ByteView target(values, true);
  const ByteView given(planes, false);
  const ByteView where(places, false);
  const stoker::ElementShape shape = shape_of(target.size_bytes(), width);
  const stoker::CodesView codes{given.data(), given.size_bytes() / width, coding_of(coding)};
  require(given.size_bytes() % width == 0 && (by_gaps || where.size_bytes() == mask_bytes(shape.count)));
  return unlocked_if_long(target.size_bytes(), [&] {
    return by_gaps
               ? stoker::apply_gaps(target.writable_data(), shape, where.data(), where.size_bytes(), codes)
               : stoker::apply_mask(target.writable_data(), shape, where.data(), codes);
  });
}

}  // namespace

void bind_delta(nb::module_& module) {
  module.def("two_level_diff", two_level_diff);
  module.def("two_level_diff_update", two_level_diff_update);
  module.def("two_level_apply", two_level_apply);
  module.def("two_level_changed", two_level_changed);
  module.def("two_level_diff_many", two_level_diff_many);
  module.def("diff_elements", diff_elements);
  module.def("encode_planes", encode_planes);
  module.def("apply_planes", apply_planes);
  module.def("apply_places", apply_places);
}
