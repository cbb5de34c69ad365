#include "reader_parts.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

namespace stoker {
namespace {

// Numbers of the kernel's generic table, for older headers.
constexpr long kOpenat2 = 437;
constexpr long kCachestat = 451;
constexpr std::uint64_t kBeneath = 0x02 | 0x04 | 0x08;  // no magic links, no symbolic links, beneath

struct CacheRange {
  std::uint64_t offset, length;
};
struct CacheCounts {
  std::uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

}  // namespace

std::int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

HowToOpen how_to_open(std::uint64_t flags, std::uint64_t resolve) {
  // A FIFO must not block the open; for regular files the flag means nothing.
  constexpr std::uint64_t read = O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;
  return {flags | read, 0, kBeneath | resolve};
}

int open_beneath(int folder, const char* key, std::uint64_t flags, std::uint64_t resolve) {
  const HowToOpen how = how_to_open(flags, resolve);
  for (int tries = 0; tries < kTriesMax; ++tries) {
    const long opened = syscall(kOpenat2, folder, key, &how, sizeof(how));
    if (opened >= 0) return static_cast<int>(opened);
    // EAGAIN: a rename elsewhere raced with the lookup; or, of cached lookups, that it is not cached.
    if (errno != EINTR && (errno != EAGAIN || resolve != 0)) return -errno;
  }
  return -EAGAIN;
}

std::int64_t cached_bytes(int descriptor, std::int64_t offset, std::int64_t length, int* error) {
  const CacheRange range = {static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length)};
  CacheCounts counts = {};
  *error = 0;
  if (syscall(kCachestat, descriptor, &range, &counts, 0) != 0) {
    if (errno != ENOSYS && errno != EPERM && errno != EOPNOTSUPP) *error = errno;
    return -1;
  }
  const auto pages = static_cast<std::int64_t>(counts.cached);
  static const std::int64_t page_bytes = sysconf(_SC_PAGESIZE);
  return pages > length / page_bytes ? length : pages * page_bytes;
}

int begin_range(const ReadCall& call, const Piece& piece) {
  std::int64_t* done = call.range_done(piece.range);
  done[kDoneStarted] = now_ns();
  if (!call.residency) return 0;
  int error = 0;
  done[kDoneCached] = cached_bytes(piece.descriptor, piece.offset, piece.wanted, &error);
  return error;
}

bool go_on(Piece* piece, std::int64_t answer) {
  if (answer < 0) {
    const int error = static_cast<int>(-answer);
    if ((error == EINTR || error == EAGAIN) && piece->tries++ < kTriesMax) return true;
    // Past the page cache nothing but the file's end lies at a position that is not a whole block.
    const bool end = error == EINVAL && piece->came_short && piece->position() % kPageBytes != 0;
    piece->stop(end ? 0 : error);
    return false;
  }
  piece->tries = 0;
  piece->at += answer;
  if (piece->at >= piece->until) return false;
  piece->came_short = answer > 0;
  // Whoever has the wanted bytes need not ask once more to be told that this was the end.
  const bool enough = piece->at >= std::min(piece->wanted, piece->until);
  const bool known_end = piece->file_bytes > 0 && piece->position() >= piece->file_bytes;
  if (answer == 0 || (enough && (known_end || piece->position() % kPageBytes != 0))) {
    piece->stop(0);
    return false;
  }
  return true;
}

void read_blocking(Piece* piece) {
  std::int64_t answer = 0;
  do {
    const auto length = static_cast<std::size_t>(piece->left());
    answer = pread(piece->descriptor, piece->target(), length, piece->position());
    if (answer < 0) answer = -errno;
  } while (go_on(piece, answer));
}

ColumnFault check_ranges(const ReadCall& call) {
  std::int64_t before = 0;
  for (std::size_t index = 0; index < call.range_count; ++index) {
    const std::int64_t* row = call.range(index);
    if (*std::min_element(row, row + kRangeColumns) < 0 || row[kRangeWanted] > row[kRangeRoom] ||
        static_cast<std::uint64_t>(row[kRangeFile]) >= call.files) {
      return ColumnFault::number;
    }
    if (row[kRangeOffset] > INT64_MAX - row[kRangeRoom]) return ColumnFault::end;
    if (call.keys != nullptr && row[kRangeFile] < before) return ColumnFault::order;
    before = row[kRangeFile];
  }
  return ColumnFault::none;
}

}  // namespace stoker
