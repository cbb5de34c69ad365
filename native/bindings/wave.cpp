#include "stoker/wave.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "collected.hpp"
#include "wave_engine.hpp"

namespace nb = nanobind;

using Pages = std::vector<std::uint64_t>;
using stoker::Waves;

void bind_wave(nb::module_& module) {
  nb::class_<Waves::Report>(module, "WaveReport")
      .def_ro("lsn", &Waves::Report::lsn)
      .def_ro("changed", &Waves::Report::changed)
      .def_ro("recomputed", &Waves::Report::recomputed)
      .def_ro("unchanged", &Waves::Report::unchanged)
      .def_ro("failed", &Waves::Report::failed)
      .def_ro("stale", &Waves::Report::stale)
      .def_ro("marked", &Waves::Report::marked);
  nb::class_<WaveEngine>(module, "WaveEngine", nb::type_slots(collected<WaveEngine>()))
      .def(nb::init<std::uintptr_t, std::size_t>())
      .def("node", [](WaveEngine& self, std::uint64_t page, std::int32_t height) { self.waves().node(page, height); })
      .def("edges", [](WaveEngine& self, std::uint64_t page, const Pages& pushed,
                       const Pages& marked) { self.waves().edges(page, pushed, marked); })
      .def("derive", &WaveEngine::derive)
      .def("forget", &WaveEngine::forget)
      .def("seen", [](WaveEngine& self, std::uint64_t page) { return self.waves().seen(page); })
      .def("out_of_date", [](WaveEngine& self, std::uint64_t page) { return self.waves().out_of_date(page); })
      .def("catch_up", [](WaveEngine& self) { self.waves().catch_up(); })
      .def("advance", &WaveEngine::advance, nb::arg("source"), nb::arg("only").none())
      .def("quick", &WaveEngine::quick)
      .def("hold", &WaveEngine::hold)
      .def("abandon", [](WaveEngine& self) { self.waves().abandon(); })
      .def("calls", [](WaveEngine& self) { return self.waves().calls(); })
      .def("gone", [](WaveEngine& self) { return self.waves().gone(); })
      .def("report", [](WaveEngine& self) { return self.waves().report(); })
      .def("mirror", &WaveEngine::mirror)
      .def("output", &WaveEngine::output)
      .def("prepare", &WaveEngine::prepare)
      .def("unprepare", &WaveEngine::unprepare)
      .def("make", &WaveEngine::make)
      .def("maker", &WaveEngine::maker)
      .def("tell", &WaveEngine::tell)
      .def("fill", &WaveEngine::fill)
      .def("give", &WaveEngine::give)
      .def("fail", &WaveEngine::fail)
      .def("changes", &WaveEngine::changes)
      .def("steady", [](WaveEngine& self) { return self.waves().steady(); })
      .def("staged", &WaveEngine::staged)
      .def("states", [](WaveEngine& self) { return self.waves().states(); })
      .def("settle", [](WaveEngine& self, std::uint64_t lsn) { self.waves().settle(lsn); });
}
