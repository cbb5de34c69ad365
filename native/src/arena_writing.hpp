// What the ways of committing share: a commit being written to the ring, and the steps at which tests kill.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <cstdint>

#include "stoker/arena.hpp"

namespace stoker {

extern int arena_kill_countdown;

// Between any two of these the process may die; the tests make it so.
inline void step() {
  if (arena_kill_countdown != 0 && --arena_kill_countdown == 0) kill(getpid(), SIGKILL);
}

struct Arena::Writing {
  std::uint64_t end = 0;   // position behind the frames so far
  std::uint64_t lsn = 0;   // of the last frame so far
  std::uint64_t time_ns = 0;
  std::uint32_t source = 0;
  std::uint64_t wrap = 0;  // where the lap before ended, when `wrapped`
  bool wrapped = false;
  std::uint8_t* open = nullptr;  // the frame that is not closed yet: it may be the last
  std::uint64_t frames = 0, deltas = 0, images = 0, delta_bytes = 0, changed_bytes = 0;
};

}  // namespace stoker
