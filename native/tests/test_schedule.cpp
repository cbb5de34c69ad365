// Files that find no descriptor wait for one that is closed, also when that happened before their failure was told.
#include "../src/reader_schedule.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "check.hpp"

namespace {

using namespace stoker;

// A call for two files without ranges, and what came of them.
struct Two {
  const char* keys[2] = {"a", "b"};
  std::vector<std::int64_t> files_done = std::vector<std::int64_t>(2 * kFileColumns, -9);
  ReadCall call;
  Two() {
    call.keys = keys;
    call.files = 2;
    call.files_done = files_done.data();
    call.queue_depth = 2;
  }
  std::int64_t status(std::size_t file) const { return files_done[file * kFileColumns + kFileStatus]; }
};

Opened failed() {
  Opened answer;
  answer.status = EMFILE;
  return answer;
}

Opened good() { return look_at(open("/proc/self/exe", O_RDONLY)); }

unsigned begin(Schedule* schedule) {
  Piece piece;
  unsigned slot = 99;
  CHECK(schedule->next(&piece, &slot) == Task::open);
  return slot;
}

void close_next(Schedule* schedule) {
  Piece piece;
  unsigned slot = 99;
  CHECK(schedule->next(&piece, &slot) == Task::close);
  close(schedule->file(slot).descriptor);
  schedule->closed(slot);
}

void a_failure_told_late() {
  Two two;
  Schedule schedule(two.call);
  const unsigned first = begin(&schedule), second = begin(&schedule);
  schedule.opened(first, good(), 0, 0);
  close_next(&schedule);
  schedule.opened(second, failed(), 0, 0);  // it failed while the first was open
  schedule.opened(begin(&schedule), good(), 0, 0);
  close_next(&schedule);
  CHECK(schedule.finished());
  CHECK(two.status(0) == 0 && two.status(1) == 0);
}

void a_failure_while_another_is_open() {
  Two two;
  Schedule schedule(two.call);
  const unsigned first = begin(&schedule), second = begin(&schedule);
  schedule.opened(first, good(), 0, 0);
  schedule.opened(second, failed(), 0, 0);
  close_next(&schedule);
  schedule.opened(begin(&schedule), good(), 0, 0);
  close_next(&schedule);
  CHECK(schedule.finished() && two.status(1) == 0);
}

void no_descriptor_at_all() {
  Two two;
  Schedule schedule(two.call);
  for (std::size_t file = 0; file < 2; ++file) {
    schedule.opened(begin(&schedule), failed(), 0, 0);
    if (schedule.finished()) break;
    if (two.status(file) != EMFILE) {  // a failure in the meantime frees nothing: it is tried once more
      schedule.opened(begin(&schedule), failed(), 0, 0);
    }
  }
  CHECK(schedule.finished());
  CHECK(two.status(0) == EMFILE && two.status(1) == EMFILE);
}

}  // namespace

int main() {
  a_failure_told_late();
  a_failure_while_another_is_open();
  no_descriptor_at_all();
  RETURN_RESULT();
}
