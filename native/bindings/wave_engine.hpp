// An engine of waves over an arena as its memory is mapped, for what is bound to Python.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "byte_view.hpp"
#include "stoker/wave.hpp"
#include "wave_functions.hpp"

// Graphs above this are worth dropping the GIL for.
constexpr std::size_t kManyNodes = 4096;

// Maps an arena for Python and runs waves in it. One thread at a time: the caller sees to that.
class WaveEngine {
 public:
  using Pages = std::vector<std::uint64_t>;
  static constexpr int kOwnerDead = -2, kNoLock = -1, kCall = 1, kBusy = 5;

  WaveEngine(std::uintptr_t address, std::size_t arena_bytes)
      : arena_(checked(reinterpret_cast<std::uint8_t*>(address), arena_bytes), arena_bytes),
        waves_(arena_),
        base_(reinterpret_cast<std::uint8_t*>(address)),
        words_(arena_bytes / sizeof(std::uint64_t)) {}

  void derive(std::uint64_t page, int kind, int element, std::uint64_t offset, bool lazy, const Pages& inputs,
              const Pages& seen) {
    waves_.derive(page, static_cast<stoker::NodeKind>(kind), static_cast<stoker::Element>(element), offset, lazy,
                  inputs, seen);
  }
  void forget(std::uint64_t page) {
    waves_.forget(page);
    functions_.drop(page);
    kept_.erase(page);
    outputs_.erase(page);
  }

  // The report of a wave that is done, else the number of what is to be done.
  nanobind::object advance(std::uint32_t source, const nanobind::object& only) {
    Pages pages;
    if (!only.is_none()) pages = nanobind::cast<Pages>(only);
    const int step = advanced(source, only.is_none() ? nullptr : &pages);
    return step == 0 ? made() : nanobind::int_(step);
  }
  // The number of what is to be done, 0 when it is done: then `made` is the report.
  int advanced(std::uint32_t source, const Pages* only) {
    int error = arena_.try_lock();
    if (error == EBUSY) {
      const nanobind::gil_scoped_release unlocked;
      error = arena_.lock();
    }
    if (error != 0) return error == EOWNERDEAD ? kOwnerDead : kNoLock;
    const Unlock unlock{arena_};
    if (waves_.size() <= kManyNodes) return static_cast<int>(waves_.advance(source, only));
    const nanobind::gil_scoped_release unlocked;
    return static_cast<int>(waves_.advance(source, only));
  }

  // The same for all that is pushed, when nobody else is in the way and nothing is to be called; else nothing happens,
  // and it is for `advance`, with the caller's own lock held. The GIL is held throughout: that is all the lock it needs.
  nanobind::object quick(std::uint32_t source) {
    const int error = quickly(source, false);
    return error == 0 ? made() : nanobind::int_(error);
  }
  // 0 when it is done: then `made` is its report. With `may_call`, kCall leaves the wave under way: `make` comes next,
  // and the caller's own lock, before anybody else can run.
  int quickly(std::uint32_t source, bool may_call) {
    if (held_ != 0 || waves_.size() > kManyNodes) return kBusy;
    const int error = arena_.try_lock();
    if (error != 0) return error == EOWNERDEAD ? kOwnerDead : kBusy;
    const Unlock unlock{arena_};
    const stoker::WaveStep step = waves_.advance(source, nullptr);
    if (step == stoker::WaveStep::done) return 0;
    if (may_call && step == stoker::WaveStep::call) return kCall;
    waves_.abandon();
    return kBusy;
  }

  // Makes what the wave waits for, as far as it was prepared. None when that was all; else a list of pairs: pages that
  // are not prepared or could not be filled, with None, and those whose function raised, with the exception.
  nanobind::object make() {
    nanobind::object left = nanobind::none();
    const auto leave = [&](std::uint64_t page, const nanobind::object& error) {
      if (left.is_none()) left = nanobind::list();
      nanobind::cast<nanobind::list>(left).append(nanobind::make_tuple(page, error));
    };
    for (const std::uint64_t page : waves_.calls()) {
      const WaveFunctions::Call* const call = functions_.find(page);
      if (call == nullptr || waves_.fill(page) != stoker::Fill::done) {
        leave(page, nanobind::none());
        continue;
      }
      const Announced announced(told_, page);
      const nanobind::object error = WaveFunctions::made(*call, page);
      if (error.is_valid()) {
        leave(page, error);
      } else {
        waves_.give(page);
      }
    }
    return left;
  }
  // Which word of the arena tells others what page a function is making, 0 for none.
  void tell(std::uint64_t word) {
    told_ = word == 0 || word >= words_ ? nullptr : reinterpret_cast<std::uint64_t*>(base_) + word;
  }
  void prepare(std::uint64_t page, const nanobind::object& call) { functions_.keep(page, call); }
  void unprepare(std::uint64_t page) { functions_.drop(page); }

  // For the collector of cycles: functions may hold what holds this.
  void clear() { functions_.clear(); }
  int visit(visitproc visit, void* arg) const { return functions_.visit(visit, arg); }
  void hold(int more) { held_ += more; }
  bool has_functions() const { return functions_.any(); }
  // The thread that calls functions by `make`, 0 for none.
  std::uint64_t maker() const { return maker_; }
  void set_maker(std::uint64_t thread) { maker_ = thread; }

  void mirror(std::uint64_t page, const nanobind::object& array) {
    ByteView view(array, true);
    waves_.mirror(page, view.writable_data(), view.size_bytes());
    kept_.insert_or_assign(page, array);
  }
  void output(std::uint64_t page, const nanobind::object& array) {
    ByteView view(array, true);
    waves_.output(page, view.writable_data(), view.size_bytes());
    outputs_.insert_or_assign(page, array);
  }
  int fill(std::uint64_t page) { return static_cast<int>(waves_.fill(page)); }
  void give(std::uint64_t page) { waves_.give(page); }
  void fail(std::uint64_t page) { waves_.fail(page); }

  // None where not all commits are known; else whether the input is made anew in this wave, and ring positions.
  nanobind::object changes(std::uint64_t page, std::uint64_t input) const {
    std::vector<stoker::Waves::Change> found;
    bool staged = false;
    if (!waves_.changes(page, input, found, staged)) return nanobind::none();
    Pages positions;
    for (const auto& change : found) positions.push_back(change.position);
    return nanobind::make_tuple(staged, positions);
  }

  nanobind::list staged() const {
    nanobind::list found;
    for (const auto& [page, bytes] : waves_.staged()) {
      found.append(nanobind::make_tuple(page, nanobind::bytes(bytes.first, bytes.second)));
    }
    return found;
  }

  // The report of the wave that ended, in the object of the one before when nobody kept that.
  nanobind::object made() {
    if (last_.is_valid() && Py_REFCNT(last_.ptr()) == 1) {
      waves_.report(*nanobind::inst_ptr<stoker::Waves::Report>(last_));
    } else {
      last_ = nanobind::cast(waves_.report());
    }
    return last_;
  }

  stoker::Waves& waves() { return waves_; }

 private:
  struct Unlock {
    stoker::Arena& arena;
    ~Unlock() { arena.unlock(); }
  };

  // What others see while a function runs.
  struct Announced {
    Announced(std::uint64_t* told, std::uint64_t page) : word(told) {
      if (word != nullptr) std::atomic_ref<std::uint64_t>(*word).store(page, std::memory_order_release);
    }
    ~Announced() {
      if (word != nullptr) std::atomic_ref<std::uint64_t>(*word).store(0, std::memory_order_release);
    }
    Announced(const Announced&) = delete;
    Announced& operator=(const Announced&) = delete;

    std::uint64_t* const word;
  };

  static std::uint8_t* checked(std::uint8_t* base, std::size_t arena_bytes) {
    if (!stoker::Arena::fits(base, arena_bytes)) throw nanobind::value_error("memory is no arena of pages");
    return base;
  }

  stoker::Arena arena_;
  stoker::Waves waves_;
  std::uint8_t* base_;
  std::size_t words_;
  std::uint64_t* told_ = nullptr;
  int held_ = 0;
  std::uint64_t maker_ = 0;
  WaveFunctions functions_;
  nanobind::object last_;
  std::unordered_map<std::uint64_t, nanobind::object> kept_, outputs_;  // the memory of mirrors and outputs
};
