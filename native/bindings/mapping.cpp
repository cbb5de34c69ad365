#include "stoker/mapping.hpp"

#include <nanobind/ndarray.h>

#include <memory>

#include "bindings.hpp"

namespace nb = nanobind;

namespace {

using Bytes = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>;

struct Watch {
  std::shared_ptr<stoker::MappingWatch> shared = std::make_shared<stoker::MappingWatch>();
};

// Returns a writable array of the range's bytes that unmaps when the last view of it is gone, or None.
nb::object map_file(const Watch& watch, int file, std::uint64_t offset_bytes, std::uint64_t size_bytes,
                    std::int64_t tag) {
  std::unique_ptr<stoker::Mapping> made;
  {
    const nb::gil_scoped_release unlocked;
    made = stoker::Mapping::make(file, offset_bytes, size_bytes, watch.shared, tag);
  }
  if (!made) return nb::none();
  stoker::Mapping* const mapping = made.get();
  const nb::capsule owner(mapping, [](void* held) noexcept { delete static_cast<stoker::Mapping*>(held); });
  (void)made.release();  // the capsule's now
  return nb::cast(Bytes(mapping->data(), {mapping->size_bytes()}, owner));
}

}  // namespace

void bind_mapping(nb::module_& module) {
  nb::class_<Watch>(module, "MappingWatch")
      .def(nb::init<>())
      .def("map_file", map_file)
      .def_prop_ro("torn_tag", [](const Watch& watch) { return watch.shared->torn_tag(); });
  module.def("mappings_held", stoker::mappings_held);
}
