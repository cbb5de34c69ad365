#include "stoker/replay.hpp"

#include <nanobind/stl/pair.h>

#include <utility>

#include "bindings.hpp"
#include "byte_view.hpp"

namespace nb = nanobind;

namespace {

using stoker::FrameRow;
using stoker::ReplayPage;

void require(bool fits) {
  if (!fits) throw nb::value_error("memory of these sizes does not fit together");
}

// `rows` have room for as many frames as are read at most. Returns how many were, and the offset behind them.
std::pair<std::size_t, std::size_t> scan_frames(nb::handle buffer, std::size_t start, std::uint32_t salt,
                                                std::uint64_t first_lsn, std::uint64_t covers_lsn, nb::handle rows) {
  const ByteView data(buffer, false);
  const ByteView into(rows, true);
  require(start <= data.size_bytes());
  const nb::gil_scoped_release unlocked;
  const stoker::FramesFound found = stoker::scan_frames(
      data.data(), data.size_bytes(), {start, salt, first_lsn, covers_lsn},
      reinterpret_cast<FrameRow*>(into.writable_data()), into.size_bytes() / sizeof(FrameRow));
  return {found.count, found.end};
}

// `slots` are numbers of rows of `pages`, 64 bits each. Returns how many frames were done.
std::size_t replay_frames(nb::handle buffer, nb::handle rows, nb::handle slots, nb::handle pages) {
  const ByteView data(buffer, false);
  const ByteView asked(rows, false);
  const ByteView places(slots, false);
  const ByteView table(pages, true);
  const std::size_t count = asked.size_bytes() / sizeof(FrameRow);
  const auto page_count = static_cast<std::int64_t>(table.size_bytes() / sizeof(ReplayPage));
  require(places.size_bytes() == count * sizeof(std::int64_t));
  const auto* const row = reinterpret_cast<const FrameRow*>(asked.data());
  const auto* const slot = reinterpret_cast<const std::int64_t*>(places.data());
  constexpr std::size_t kHeaderBytes = 56;
  for (std::size_t index = 0; index < count; ++index) {
    const std::size_t size = data.size_bytes();
    require(slot[index] >= 0 && slot[index] < page_count && row[index].start <= size &&
            kHeaderBytes <= size - row[index].start &&
            row[index].payload_bytes <= size - row[index].start - kHeaderBytes);
  }
  const nb::gil_scoped_release unlocked;
  return stoker::replay_frames(data.data(), row, slot, count, reinterpret_cast<ReplayPage*>(table.writable_data()));
}

}  // namespace

void bind_replay(nb::module_& module) {
  module.def("scan_frames", scan_frames);
  module.def("replay_frames", replay_frames);
}
