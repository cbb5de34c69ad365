// Many writes and syncs of open files at once: through a ring, by threads, or one after the other.
// Sources: pwrite(2), fsync(2), io_uring_enter(2).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "stoker/ring.hpp"

namespace stoker {

enum class WriteAction : std::uint8_t { write, sync_data, sync_all };

// One request. `status` belongs to the file that it is part of: 0, or the first errno that a request of it met;
// further requests of such a file are not tried. It outlives the run, as do the memory and the open file.
struct WriteRequest {
  WriteAction action = WriteAction::write;
  bool direct = false;
  int file = -1;
  int* status = nullptr;
  std::int64_t offset = 0;
  std::int64_t length = 0;
  const char* from = nullptr;
  unsigned stalls = 0;
};

enum class WriteLane : std::uint8_t { in_turn, threads, ring };

// Each runs all requests to their end; what came of them lies in their statuses. Short writes go on where they ended.
void write_in_turn(std::span<WriteRequest> requests);
void write_by_threads(std::span<WriteRequest> requests, unsigned queue_depth);
// `again` holds `queue_depth` numbers. Returns 0, or an errno when the ring itself failed: it must be closed then,
// and the requests count as failed.
int write_by_ring(std::span<WriteRequest> requests, unsigned queue_depth, Ring& ring, std::span<std::size_t> again);

}  // namespace stoker
