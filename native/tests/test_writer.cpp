#include "stoker/writer.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"

using stoker::FileBatch;
using stoker::Fsync;
using stoker::Pieces;
using stoker::WriteEngine;

namespace {

std::int64_t address(const char* from) { return reinterpret_cast<std::int64_t>(from); }

std::string content(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return "missing";
  std::string text;
  std::array<char, 4096> block;
  for (std::size_t got; (got = std::fread(block.data(), 1, block.size(), file)) > 0;) text.append(block.data(), got);
  std::fclose(file);
  return text;
}

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

std::string pattern(std::size_t size, unsigned seed) {
  std::string text(size, '\0');
  for (char& letter : text) letter = static_cast<char>((seed = seed * 1103515245U + 12345U) >> 16);
  return text;
}

struct Folder {
  std::string path;
  int file = -1;

  Folder() {
    char name[] = "writer-test-XXXXXX";
    path = mkdtemp(name);
    file = open(path.c_str(), O_RDONLY | O_DIRECTORY);
  }
  ~Folder() {
    close(file);
    CHECK(rmdir(path.c_str()) == 0);
  }
  std::string at(const std::string& name) const { return path + "/" + name; }
  void remove(const std::string& name) const { unlinkat(file, name.c_str(), 0); }
};

void test_open_file(WriteEngine& engine) {
  const Folder folder;
  const std::string data = pattern(100'003, 1);
  const int file = open(folder.at("object").c_str(), O_WRONLY | O_CREAT, 0600);
  // Out of order, split into requests, one piece empty.
  const std::array<std::int64_t, 9> rows = {50'000, 50'003, address(data.data()) + 50'000, 0,      50'000,
                                            address(data.data()), 7, 0, 0};
  for (const Fsync fsync : {Fsync::none, Fsync::start, Fsync::data, Fsync::full}) {
    CHECK(engine.write_open(file, {rows.data(), 3, 3}, fsync) == 0);
    CHECK(content(folder.at("object")) == data);
    CHECK(ftruncate(file, 0) == 0);
  }
  close(file);
  CHECK(engine.write_open(file, {rows.data(), 3, 3}, Fsync::none) == EBADF);
  folder.remove("object");
}

void test_writing_behind_the_callers_back(WriteEngine& engine) {
  const Folder folder;
  const std::string data = pattern(100'000, 6);
  const int file = open(folder.at("object").c_str(), O_WRONLY | O_CREAT, 0600);
  for (int part = 0; part < 4; ++part) {
    const std::array<std::int64_t, 3> row = {part * 25'000, 25'000, address(data.data()) + part * 25'000};
    engine.begin_open(file, {row.data(), 1, 3});
    if (part % 2 == 1) CHECK(engine.finish_open() == 0);
  }
  CHECK(engine.finish_open() == 0);
  CHECK(content(folder.at("object")) == data);
  close(file);
  const std::array<std::int64_t, 3> row = {0, 25'000, address(data.data())};
  const int full = open("/dev/full", O_WRONLY);
  engine.begin_open(full, {row.data(), 1, 3});
  CHECK(engine.write_open(full, {row.data(), 0, 3}, Fsync::none) == 0);
  CHECK(engine.finish_open() == ENOSPC);  // an error waits until it is asked for, and is told once
  CHECK(engine.finish_open() == 0);
  close(full);
  folder.remove("object");
}

void test_errors_of_an_open_file(WriteEngine& engine) {
  const Folder folder;
  const std::string data = pattern(100'000, 2);
  const std::array<std::int64_t, 3> rows = {0, 100'000, address(data.data())};
  const int full = open("/dev/full", O_WRONLY);
  CHECK(engine.write_open(full, {rows.data(), 1, 3}, Fsync::full) == ENOSPC);
  close(full);
  std::array<int, 2> ends;
  CHECK(pipe(ends.data()) == 0);
  CHECK(engine.write_open(ends[1], {rows.data(), 0, 3}, Fsync::full) == EINVAL);  // a pipe cannot be synced
  close(ends[0]);
  close(ends[1]);
  rlimit limit;
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit low{50'000, limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &low);
  const int file = open(folder.at("object").c_str(), O_WRONLY | O_CREAT, 0600);
  CHECK(engine.write_open(file, {rows.data(), 1, 3}, Fsync::none) == EFBIG);
  setrlimit(RLIMIT_FSIZE, &limit);
  close(file);
  folder.remove("object");
}

struct Batch {
  std::vector<std::string> names;
  std::vector<std::string> temporaries;
  std::vector<std::int64_t> rows;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> done;

  void add(const std::string& name, const std::string& data) {
    const auto number = static_cast<std::int64_t>(names.size());
    const auto size = static_cast<std::int64_t>(data.size());
    rows.insert(rows.end(), {0, size, address(data.data()), number});
    sizes.push_back(size);
    names.push_back(name);
    temporaries.push_back(".temporary-" + std::to_string(number));
    done.resize(3 * names.size(), -7);
  }
  FileBatch in(const Folder& folder, Fsync fsync, bool if_absent) {
    return {.folder = folder.file,
            .names = names,
            .temporaries = temporaries,
            .pieces = {rows.data(), rows.size() / 4, 4},
            .sizes = sizes,
            .fsync = fsync,
            .if_absent = if_absent,
            .done = done.data()};
  }
};

void test_many_files(WriteEngine& engine, Fsync fsync, bool if_absent) {
  const Folder folder;
  std::vector<std::string> data;
  for (unsigned number = 0; number < 300; ++number) data.push_back(pattern(number * 31, number));
  Batch batch;
  for (unsigned number = 0; number < 300; ++number) batch.add("file-" + std::to_string(number), data[number]);
  CHECK(engine.write_files(batch.in(folder, fsync, if_absent)) == 0);
  for (std::size_t number = 0; number < 300; ++number) {
    struct stat facts;
    CHECK(stat(folder.at(batch.names[number]).c_str(), &facts) == 0);
    CHECK(batch.done[3 * number] == 0);
    CHECK(batch.done[3 * number + 1] == facts.st_size);
    CHECK(batch.done[3 * number + 2] == facts.st_mtim.tv_sec * 1'000'000'000 + facts.st_mtim.tv_nsec);
    CHECK(content(folder.at(batch.names[number])) == data[number]);
    CHECK(!exists(folder.at(batch.temporaries[number])));
    folder.remove(batch.names[number]);
  }
}

void test_bad_files_leave_the_others_alone(WriteEngine& engine) {
  const Folder folder;
  const std::string old = "old";
  const std::string data = pattern(5000, 3);
  Batch first;
  first.add("there", old);
  CHECK(engine.write_files(first.in(folder, Fsync::none, false)) == 0);
  mkdirat(folder.file, "folder", 0700);
  Batch batch;
  for (const char* name : {"there", "folder", "below/file", "..", "", "new"}) batch.add(name, data);
  CHECK(engine.write_files(batch.in(folder, Fsync::full, true)) == 0);
  const std::array<int, 6> wanted = {EEXIST, EEXIST, EINVAL, EINVAL, EINVAL, 0};
  for (std::size_t number = 0; number < wanted.size(); ++number) {
    CHECK(batch.done[3 * number] == wanted[number]);
    CHECK(!exists(folder.at(batch.temporaries[number])));
  }
  CHECK(content(folder.at("there")) == old);
  CHECK(content(folder.at("new")) == data);
  CHECK(engine.write_files(batch.in(folder, Fsync::none, false)) == 0);
  CHECK(batch.done[0] == 0);
  CHECK(batch.done[3] == EISDIR);
  CHECK(content(folder.at("there")) == data);
  folder.remove("there");
  folder.remove("new");
  unlinkat(folder.file, "folder", AT_REMOVEDIR);
}

void test_padding_is_cut_off(WriteEngine& engine) {
  const Folder folder;
  const std::string data = pattern(8192, 4);
  Batch batch;
  batch.add("short", data);
  batch.add("long", data);
  batch.sizes = {5001, 10'000};
  CHECK(engine.write_files(batch.in(folder, Fsync::data, false)) == 0);
  CHECK(content(folder.at("short")) == data.substr(0, 5001));
  CHECK(content(folder.at("long")) == data + std::string(10'000 - 8192, '\0'));
  folder.remove("short");
  folder.remove("long");
}

void test_past_the_page_cache(WriteEngine& engine) {
  const Folder folder;
  const int probe = open(folder.at("probe").c_str(), O_WRONLY | O_CREAT | O_DIRECT, 0600);
  if (probe >= 0) {
    auto* block = static_cast<char*>(std::aligned_alloc(4096, 1 << 20));
    const std::string data = pattern(1 << 20, 5);
    std::copy(data.begin(), data.end(), block);
    const std::array<std::int64_t, 3> rows = {0, 1 << 20, address(block)};
    CHECK(engine.write_open(probe, {rows.data(), 1, 3}, Fsync::full) == 0);
    CHECK(content(folder.at("probe")) == data);
    close(probe);
    Batch batch;
    for (int number = 0; number < 5; ++number) batch.add("file-" + std::to_string(number), data);
    for (std::size_t number = 0; number < 5; ++number) {
      batch.rows[4 * number + 2] = address(block);
      batch.sizes[number] = 1'000'001;
    }
    FileBatch call = batch.in(folder, Fsync::full, false);
    call.flags = O_DIRECT;
    CHECK(engine.write_files(call) == 0);
    for (const std::string& name : batch.names) {
      CHECK(content(folder.at(name)) == data.substr(0, 1'000'001));
      folder.remove(name);
    }
    std::free(block);
  }
  folder.remove("probe");
}

void test_numbers_that_cannot_be() {
  const auto fit = [](std::int64_t offset, std::int64_t length, std::int64_t from, std::int64_t file) {
    const std::array<std::int64_t, 4> row = {offset, length, from, file};
    return stoker::pieces_fit({row.data(), 1, 4}, 2);
  };
  CHECK(fit(0, 10, 4096, 1));
  CHECK(fit(0, 0, 0, 0));
  CHECK(!fit(-1, 10, 4096, 0));
  CHECK(!fit(0, -1, 4096, 0));
  CHECK(!fit(INT64_MAX - 5, 10, 4096, 0));
  CHECK(!fit(0, 10, 0, 0));
  CHECK(!fit(0, 10, 4096, 2));
  CHECK(!fit(0, 10, 4096, -1));
  const std::array<std::int64_t, 8> rows = {0, 1, 4096, 1, 0, 1, 4096, 0};
  CHECK(!stoker::pieces_fit({rows.data(), 2, 4}, 2));
}

void test_engine(WriteEngine& engine) {
  engine.request_bytes = 12'288;
  engine.queue_depth = 4;
  test_open_file(engine);
  test_errors_of_an_open_file(engine);
  test_writing_behind_the_callers_back(engine);
  for (const Fsync fsync : {Fsync::none, Fsync::data, Fsync::full}) {
    test_many_files(engine, fsync, fsync == Fsync::data);
  }
  test_bad_files_leave_the_others_alone(engine);
  test_padding_is_cut_off(engine);
  test_past_the_page_cache(engine);
  for (int turn = 0; turn < 3; ++turn) {  // from one thread to the next, whose name may be that of the last
    std::thread([&engine] { test_many_files(engine, Fsync::data, false); }).join();
  }
  engine.close();
  engine.close();
}

}  // namespace

int main() {
  std::signal(SIGXFSZ, SIG_IGN);
  test_numbers_that_cannot_be();
  for (const bool buffered_in_turn : {true, false}) {
    WriteEngine threads(stoker::WriteKind::threads, buffered_in_turn);
    test_engine(threads);
    if (WriteEngine::ring_error() != 0) {
      std::fprintf(stderr, "io_uring is denied here: not tested\n");
      continue;
    }
    WriteEngine ring(stoker::WriteKind::ring, buffered_in_turn);
    test_engine(ring);
  }
  RETURN_RESULT();
}
