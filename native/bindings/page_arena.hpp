// An arena of pages as its memory is mapped, for what is bound to Python.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "byte_view.hpp"
#include "stoker/arena.hpp"

// Below this the GIL costs more to drop than the work.
constexpr std::size_t kKeepLockBytes = 65536;

// Maps an arena for Python: results are LSNs and ids, or the negative number of a status.
class PageArena {
 public:
  PageArena(std::uintptr_t address, std::size_t arena_bytes)
      : arena_(checked(reinterpret_cast<std::uint8_t*>(address), arena_bytes), arena_bytes) {}

  std::int64_t write(std::uint64_t page, nanobind::handle data, std::int64_t expect_epoch, std::uint32_t source) {
    const ByteView view(data, false);
    return locked(view.size_bytes(), [&] {
      return arena_.write(page, view.data(), view.size_bytes(), expect_epoch, source);
    });
  }

  std::int64_t write_at(std::uint64_t page, std::uint64_t offset, nanobind::handle data, std::int64_t expect_epoch,
                        std::uint32_t source) {
    const ByteView view(data, false);
    if (view.size_bytes() == 0) return number({stoker::ArenaStatus::slow, 0});
    return locked(view.size_bytes(), [&] {
      return arena_.write_at(page, offset, view.data(), view.size_bytes(), expect_epoch, source);
    });
  }

  std::int64_t update_many(nanobind::handle pages, nanobind::handle rows, std::uint32_t source) {
    const ByteView ids(pages, false);
    const ByteView data(rows, false);
    const std::size_t count = ids.size_bytes() / sizeof(std::uint64_t);
    if (count == 0 || data.size_bytes() % count != 0 || data.size_bytes() == 0) return number({stoker::ArenaStatus::slow, 0});
    return locked(data.size_bytes(), [&] {
      return arena_.update_many(reinterpret_cast<const std::uint64_t*>(ids.data()), count, data.data(),
                                data.size_bytes() / count, source);
    });
  }

  // A commit for each page, from the `done`-th on. Returns how many are done then, and the LSN of the last or the status
  // that the next one came to; others who wait for the lock get it now and then.
  nanobind::tuple write_each(nanobind::handle pages, nanobind::handle rows, std::size_t done, std::uint32_t source) {
    constexpr std::size_t kAtOnce = 1024;
    const ByteView ids(pages, false);
    const std::size_t count = ids.size_bytes() / sizeof(std::uint64_t);
    if (done >= count) throw nanobind::value_error("nothing is left to write");
    const RowsView view(rows, count, done, std::min(count, done + kAtOnce));
    const auto* const page = reinterpret_cast<const std::uint64_t*>(ids.data());
    std::size_t size_bytes = 0;
    for (const RowsView::Row& row : view.rows()) size_bytes += row.size_bytes;
    const std::int64_t last = locked(size_bytes, [&] {
      constexpr std::size_t kBytesAhead = 2, kSlotsAhead = 6;
      stoker::ArenaResult result{};
      for (const RowsView::Row& row : view.rows()) {
        if (done + kSlotsAhead < count) arena_.fetch(page[done + kSlotsAhead]);
        if (done + kBytesAhead < count) arena_.fetch_bytes(page[done + kBytesAhead]);
        const stoker::ArenaResult one = arena_.write(page[done], row.data, row.size_bytes, -1, source);
        if (one.status != stoker::ArenaStatus::done) return one;
        result = one;
        ++done;
      }
      return result;
    });
    return nanobind::make_tuple(done, last);
  }

  std::int64_t allocate(std::size_t size_bytes) {
    return locked(0, [&] { return arena_.allocate(size_bytes); });
  }

  std::int64_t release(std::uint64_t page) {
    return locked(0, [&] { return arena_.release(page); });
  }

  std::size_t page_bytes(std::uint64_t page) const { return arena_.page_bytes(page); }

  // The epoch, or the number of a status.
  std::int64_t read(std::uint64_t page, nanobind::handle out) const {
    const ByteView view(out, true);
    return number(arena_.read(page, view.writable_data(), view.size_bytes()));
  }

 private:
  static std::uint8_t* checked(std::uint8_t* base, std::size_t arena_bytes) {
    if (!stoker::Arena::fits(base, arena_bytes)) throw nanobind::value_error("memory is no arena of pages");
    return base;
  }

  static std::int64_t number(const stoker::ArenaResult& result) {
    return result.status == stoker::ArenaStatus::done ? static_cast<std::int64_t>(result.value)
                                              : static_cast<std::int64_t>(result.status);
  }

  template <typename Work>
  std::int64_t locked(std::size_t size_bytes, Work work) {
    int error = arena_.try_lock();
    if (error == EBUSY) {
      const nanobind::gil_scoped_release unlocked;
      error = arena_.lock();
    }
    if (error == EOWNERDEAD) return number({stoker::ArenaStatus::owner_dead, 0});
    if (error != 0) return number({stoker::ArenaStatus::slow, 0});
    stoker::ArenaResult result{};
    if (size_bytes > kKeepLockBytes) {
      const nanobind::gil_scoped_release unlocked;
      result = work();
      arena_.unlock();
    } else {
      result = work();
      arena_.unlock();
    }
    return number(result);
  }

  stoker::Arena arena_;
};
