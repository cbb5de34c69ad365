#include "stoker/wave.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <unordered_map>

#include "bindings.hpp"
#include "byte_view.hpp"

namespace nb = nanobind;

namespace {

using stoker::Arena;
using stoker::Waves;
using stoker::WaveStep;
using Pages = std::vector<std::uint64_t>;

constexpr int kOwnerDead = -2;
constexpr int kNoLock = -1;
constexpr int kBusy = 5;
// Graphs above this are worth dropping the GIL for.
constexpr std::size_t kManyNodes = 4096;

// Maps an arena for Python and runs waves in it. One thread at a time: the caller sees to that.
class WaveEngine {
 public:
  WaveEngine(std::uintptr_t address, std::size_t arena_bytes)
      : arena_(checked(reinterpret_cast<std::uint8_t*>(address), arena_bytes), arena_bytes), waves_(arena_) {}

  void derive(std::uint64_t page, int kind, int element, std::uint64_t offset, bool lazy, const Pages& inputs,
              const Pages& seen) {
    waves_.derive(page, static_cast<stoker::NodeKind>(kind), static_cast<stoker::Element>(element), offset, lazy,
                  inputs, seen);
  }
  void forget(std::uint64_t page) {
    waves_.forget(page);
    kept_.erase(page);
    outputs_.erase(page);
  }

  // The report of a wave that is done, else the number of what is to be done.
  nb::object advance(std::uint32_t source, const nb::object& only) {
    Pages pages;
    if (!only.is_none()) pages = nb::cast<Pages>(only);
    int error = arena_.try_lock();
    if (error == EBUSY) {
      const nb::gil_scoped_release unlocked;
      error = arena_.lock();
    }
    if (error != 0) return nb::int_(error == EOWNERDEAD ? kOwnerDead : kNoLock);
    WaveStep step{};
    {
      const Unlock unlock{arena_};
      if (waves_.size() > kManyNodes) {
        const nb::gil_scoped_release unlocked;
        step = waves_.advance(source, only.is_none() ? nullptr : &pages);
      } else {
        step = waves_.advance(source, only.is_none() ? nullptr : &pages);
      }
    }
    if (step != WaveStep::done) return nb::int_(static_cast<int>(step));
    return made();
  }

  // The same for all that is pushed, when nobody else is in the way and nothing is to be called; else nothing happens,
  // and it is for `advance`, with the caller's own lock held. The GIL is held throughout: that is all the lock it needs.
  nb::object quick(std::uint32_t source) {
    if (held_ != 0 || waves_.size() > kManyNodes) return nb::int_(kBusy);
    const int error = arena_.try_lock();
    if (error == EOWNERDEAD) return nb::int_(kOwnerDead);
    if (error != 0) return nb::int_(kBusy);
    const Unlock unlock{arena_};
    if (waves_.advance(source, nullptr) == WaveStep::done) return made();
    waves_.abandon();
    return nb::int_(kBusy);
  }
  void hold(int more) { held_ += more; }

  void mirror(std::uint64_t page, const nb::object& array) {
    ByteView view(array, true);
    waves_.mirror(page, view.writable_data(), view.size_bytes());
    kept_.insert_or_assign(page, array);
  }
  void output(std::uint64_t page, const nb::object& array) {
    ByteView view(array, true);
    waves_.output(page, view.writable_data(), view.size_bytes());
    outputs_.insert_or_assign(page, array);
  }
  int fill(std::uint64_t page) { return static_cast<int>(waves_.fill(page)); }
  void give(std::uint64_t page) { waves_.give(page); }
  void fail(std::uint64_t page) { waves_.fail(page); }

  // None where not all commits are known; else whether the input is made anew in this wave, and ring positions.
  nb::object changes(std::uint64_t page, std::uint64_t input) const {
    std::vector<Waves::Change> found;
    bool staged = false;
    if (!waves_.changes(page, input, found, staged)) return nb::none();
    Pages positions;
    for (const auto& change : found) positions.push_back(change.position);
    return nb::make_tuple(staged, positions);
  }

  nb::list staged() const {
    nb::list found;
    for (const auto& [page, bytes] : waves_.staged()) {
      found.append(nb::make_tuple(page, nb::bytes(bytes.first, bytes.second)));
    }
    return found;
  }

  Waves& waves() { return waves_; }

 private:
  struct Unlock {
    Arena& arena;
    ~Unlock() { arena.unlock(); }
  };

  // The report of the wave that ended, in the object of the one before when nobody kept that.
  nb::object made() {
    if (last_.is_valid() && Py_REFCNT(last_.ptr()) == 1) {
      waves_.report(*nb::inst_ptr<Waves::Report>(last_));
    } else {
      last_ = nb::cast(waves_.report());
    }
    return last_;
  }

  static std::uint8_t* checked(std::uint8_t* base, std::size_t arena_bytes) {
    if (!Arena::fits(base, arena_bytes)) throw nb::value_error("memory is no arena of pages");
    return base;
  }

  Arena arena_;
  Waves waves_;
  int held_ = 0;
  nb::object last_;
  std::unordered_map<std::uint64_t, nb::object> kept_, outputs_;  // the memory of mirrors and outputs
};

}  // namespace

void bind_wave(nb::module_& module) {
  nb::class_<Waves::Report>(module, "WaveReport")
      .def_ro("lsn", &Waves::Report::lsn)
      .def_ro("changed", &Waves::Report::changed)
      .def_ro("recomputed", &Waves::Report::recomputed)
      .def_ro("unchanged", &Waves::Report::unchanged)
      .def_ro("failed", &Waves::Report::failed)
      .def_ro("stale", &Waves::Report::stale)
      .def_ro("marked", &Waves::Report::marked);
  nb::class_<WaveEngine>(module, "WaveEngine")
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
      .def("fill", &WaveEngine::fill)
      .def("give", &WaveEngine::give)
      .def("fail", &WaveEngine::fail)
      .def("changes", &WaveEngine::changes)
      .def("steady", [](WaveEngine& self) { return self.waves().steady(); })
      .def("staged", &WaveEngine::staged)
      .def("states", [](WaveEngine& self) { return self.waves().states(); })
      .def("settle", [](WaveEngine& self, std::uint64_t lsn) { self.waves().settle(lsn); });
}
