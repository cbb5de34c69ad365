#include "stoker/mapping.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"

namespace {

constexpr std::size_t kPage = 4096;

// An unlinked file of `size_bytes` bytes, byte i being i % 251.
int made_file(std::size_t size_bytes) {
  const char* base = std::getenv("TMPDIR");
  std::string name = std::string(base != nullptr ? base : "/tmp") + "/stoker-mapping-XXXXXX";
  const int file = mkstemp(name.data());
  if (file < 0) std::abort();
  unlink(name.c_str());
  std::vector<std::uint8_t> bytes(size_bytes);
  for (std::size_t i = 0; i < size_bytes; ++i) bytes[i] = static_cast<std::uint8_t>(i % 251);
  if (write(file, bytes.data(), size_bytes) != static_cast<ssize_t>(size_bytes)) std::abort();
  return file;
}

bool holds(const stoker::Mapping& mapping, std::size_t offset_bytes) {
  for (std::size_t i = 0; i < mapping.size_bytes(); ++i) {
    if (mapping.data()[i] != (i + offset_bytes) % 251) return false;
  }
  return true;
}

void maps_any_range_and_never_writes_the_file() {
  const int file = made_file(5 * kPage + 17);
  const auto watch = std::make_shared<stoker::MappingWatch>();
  for (const std::size_t offset : {std::size_t{0}, std::size_t{1}, kPage, kPage + 100}) {
    const auto mapping = stoker::Mapping::make(file, offset, 5 * kPage + 17 - offset, watch, 3);
    CHECK(mapping != nullptr && holds(*mapping, offset));
    mapping->data()[0] ^= 0xff;
  }
  const auto again = stoker::Mapping::make(file, 0, 5 * kPage, watch, 3);
  CHECK(again != nullptr && holds(*again, 0));
  CHECK(stoker::Mapping::make(file, 0, 5 * kPage + 18, watch, 3) == nullptr);
  CHECK(stoker::Mapping::make(file, ~std::uint64_t{0}, 2, watch, 3) == nullptr);
  CHECK(stoker::Mapping::make(file, 0, 0, watch, 3) == nullptr);
  CHECK(stoker::Mapping::make(-1, 0, 1, watch, 3) == nullptr);
  CHECK(watch->torn_tag() == stoker::MappingWatch::kNone);
  CHECK(stoker::mappings_held() == 1);
  close(file);
}

void a_file_that_shrinks_gives_zeros_and_is_told() {
  const int file = made_file(8 * kPage);
  const auto watch = std::make_shared<stoker::MappingWatch>();
  const auto other = std::make_shared<stoker::MappingWatch>();
  const auto mapping = stoker::Mapping::make(file, 0, 8 * kPage, watch, 42);
  const auto second = stoker::Mapping::make(file, 0, kPage, other, 7);
  CHECK(mapping != nullptr && second != nullptr);
  CHECK(ftruncate(file, 2 * kPage) == 0);
  CHECK(mapping->data()[2 * kPage - 1] == (2 * kPage - 1) % 251);
  CHECK(watch->torn_tag() == stoker::MappingWatch::kNone);
  CHECK(std::accumulate(mapping->data() + 2 * kPage, mapping->data() + 8 * kPage, 0) == 0);
  CHECK(watch->torn_tag() == 42);
  mapping->data()[5 * kPage] = 1;
  CHECK(mapping->data()[5 * kPage] == 1);
  CHECK(other->torn_tag() == stoker::MappingWatch::kNone);
  close(file);
}

void many_threads_meet_the_same_tear() {
  const int file = made_file(64 * kPage);
  const auto watch = std::make_shared<stoker::MappingWatch>();
  const auto mapping = stoker::Mapping::make(file, 0, 64 * kPage, watch, 5);
  CHECK(ftruncate(file, 0) == 0);
  std::vector<std::thread> threads;
  std::vector<int> sums(4);
  for (int& sum : sums) {
    threads.emplace_back([&] { sum = std::accumulate(mapping->data(), mapping->data() + 64 * kPage, 0); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int sum : sums) CHECK(sum == 0);
  CHECK(watch->torn_tag() == 5);
  close(file);
}

void slots_run_out_and_come_back() {
  const int file = made_file(kPage);
  const auto watch = std::make_shared<stoker::MappingWatch>();
  std::vector<std::unique_ptr<stoker::Mapping>> all;
  while (auto mapping = stoker::Mapping::make(file, 0, kPage, watch, 0)) all.push_back(std::move(mapping));
  CHECK(all.size() == 4096 && stoker::mappings_held() == 4096);
  all.clear();
  CHECK(stoker::mappings_held() == 0);
  CHECK(stoker::Mapping::make(file, 0, kPage, watch, 0) != nullptr);
  close(file);
}

// In a process of its own: runs `meet` and returns the signal that ended it, 0 for none.
template <typename Meet>
int ended_by(Meet meet) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGBUS, SIG_DFL);  // a sanitizer has a handler of its own
    meet();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void a_bus_error_that_is_not_ours_still_ends_the_process() {
  const auto map_one = [](int file) {
    return stoker::Mapping::make(file, 0, kPage, std::make_shared<stoker::MappingWatch>(), 0);
  };
  CHECK(ended_by([&] {
    const auto mapping = map_one(made_file(kPage));
    raise(SIGBUS);
  }) == SIGBUS);
  // A handler that somebody sets after us is found at the next mapping, and still gets what is not ours.
  CHECK(ended_by([&] {
    signal(SIGBUS, [](int) { _exit(0); });
    const int file = made_file(2 * kPage);
    const auto mapping = stoker::Mapping::make(file, 0, 2 * kPage, std::make_shared<stoker::MappingWatch>(), 0);
    if (ftruncate(file, 0) != 0) _exit(1);
    if (mapping->data()[0] != 0) std::abort();
    raise(SIGBUS);
    std::abort();
  }) == 0);
}

}  // namespace

int main() {
  maps_any_range_and_never_writes_the_file();
  a_file_that_shrinks_gives_zeros_and_is_told();
  many_threads_meet_the_same_tear();
  slots_run_out_and_come_back();
  a_bus_error_that_is_not_ours_still_ends_the_process();
  RETURN_RESULT();
}
