#include "stoker/writer.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <cerrno>
#include <string>
#include <vector>

#include "bindings.hpp"

namespace nb = nanobind;

namespace {

using Rows = nb::ndarray<const std::int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using DoneRows = nb::ndarray<std::int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::vector<std::string> strings(const nb::list& items) {
  std::vector<std::string> texts;
  texts.reserve(items.size());
  for (nb::handle item : items) {
    const auto text = nb::cast<nb::bytes>(item);
    texts.emplace_back(text.c_str(), text.size());
  }
  return texts;
}

// -1 tells of columns that cannot be, which is the caller's mistake and no answer of the kernel.
int write_open(stoker::WriteEngine& engine, int file, const Rows& rows, int fsync) {
  const stoker::Pieces pieces{rows.data(), rows.shape(0), 3};
  if (rows.shape(1) != 3 || !stoker::pieces_fit(pieces, 1)) return -1;
  nb::gil_scoped_release released;
  return engine.write_open(file, pieces, static_cast<stoker::Fsync>(fsync));
}


int begin_open(stoker::WriteEngine& engine, int file, const Rows& rows) {
  const stoker::Pieces pieces{rows.data(), rows.shape(0), 3};
  if (rows.shape(1) != 3 || !stoker::pieces_fit(pieces, 1)) return -1;
  nb::gil_scoped_release released;
  engine.begin_open(file, pieces);
  return 0;
}

int write_files(stoker::WriteEngine& engine, int folder, const nb::list& names, const nb::list& temporaries,
                const Rows& rows, const Numbers& sizes, const nb::tuple& policy, DoneRows& done) {
  const auto name_texts = strings(names);
  const auto temporary_texts = strings(temporaries);
  const std::size_t count = name_texts.size();
  const stoker::Pieces pieces{rows.data(), rows.shape(0), 4};
  const bool shaped = temporary_texts.size() == count && rows.shape(1) == 4 && sizes.shape(0) == count &&
                      done.shape(0) == count && done.shape(1) == 3;
  if (!shaped || !stoker::pieces_fit(pieces, count)) return -1;
  for (std::size_t index = 0; index < count; ++index) {
    if (sizes.data()[index] < 0) return -1;
  }
  const stoker::FileBatch batch{.folder = folder,
                                .names = name_texts,
                                .temporaries = temporary_texts,
                                .pieces = pieces,
                                .sizes = {sizes.data(), count},
                                .flags = nb::cast<int>(policy[0]),
                                .fsync = static_cast<stoker::Fsync>(nb::cast<int>(policy[1])),
                                .if_absent = nb::cast<bool>(policy[2]),
                                .done = done.data()};
  nb::gil_scoped_release released;
  return engine.write_files(batch);
}

}  // namespace

void bind_writer(nb::module_& module) {
  nb::class_<stoker::WriteEngine>(module, "WriteEngine")
      .def("__init__",
           [](stoker::WriteEngine* place, bool ring, bool buffered_in_turn) {
             new (place) stoker::WriteEngine(ring ? stoker::WriteKind::ring : stoker::WriteKind::threads,
                                             buffered_in_turn);
           })
      .def_rw("queue_depth", &stoker::WriteEngine::queue_depth)
      .def_rw("request_bytes", &stoker::WriteEngine::request_bytes)
      .def("write_open", &write_open)
      .def("begin_open", &begin_open)
      .def("finish_open", &stoker::WriteEngine::finish_open, nb::call_guard<nb::gil_scoped_release>())
      .def("write_files", &write_files)
      .def("close", &stoker::WriteEngine::close, nb::call_guard<nb::gil_scoped_release>());
  module.def("write_ring_error", &stoker::WriteEngine::ring_error);
}
