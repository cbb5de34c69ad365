// Waves over an arena made here: chains, diamonds, cutoff, called nodes, commits of others, failures.
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "../src/arena_layout.hpp"
#include "check.hpp"
#include "stoker/wave.hpp"

using namespace stoker;
using namespace stoker::arena;

namespace {

constexpr std::size_t kSlots = 4096, kRing = std::size_t{1} << 20, kData = std::size_t{1} << 20;
constexpr std::size_t kSlotsAt = 8192, kRingAt = (kSlotsAt + (kSlots + 1) * kSlotBytes + 4095) / 4096 * 4096;
constexpr std::size_t kDataAt = kRingAt + kRing, kWhole = kDataAt + kData;

// An arena as stoker/pages/arena/layout.py lays it out, all of it backed.
struct Memory {
  std::uint8_t* base = static_cast<std::uint8_t*>(std::aligned_alloc(4096, kWhole));
  Memory() {
    std::memset(base, 0, kWhole);
    std::memcpy(base, "STKPAGES", 8);
    put<std::uint32_t>(base + 8, 1);
    put<std::uint32_t>(base + 32, 7);
    put<std::uint64_t>(base + 40, kSlots);
    put<std::uint64_t>(base + 72, kSlotsAt);
    put<std::uint64_t>(base + 88, kRingAt);
    put<std::uint64_t>(base + 96, kRing);
    put<std::uint64_t>(base + 104, kDataAt);
    put<std::uint64_t>(base + 112, kData);
    auto* const words = reinterpret_cast<std::uint64_t*>(base);
    words[kBreak] = kDataAt;
    words[kBacked] = kWhole;
    words[kSlotsBacked] = kSlots;
    words[kFloorLsn] = 1;
    pthread_mutex_init(reinterpret_cast<pthread_mutex_t*>(words + kCommitLock), nullptr);
  }
  ~Memory() { std::free(base); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
};

struct Fixture {
  Memory memory;
  Arena arena{memory.base, kWhole};
  Waves waves{arena};
  std::vector<std::uint64_t> pages;

  std::uint64_t page(std::size_t size_bytes = 8) {
    const ArenaResult made = arena.allocate(size_bytes);
    CHECK(made.status == ArenaStatus::done);
    pages.push_back(made.value);
    return made.value;
  }
  void write(std::uint64_t page, std::uint64_t value) {
    CHECK(arena.write(page, reinterpret_cast<const std::uint8_t*>(&value), 8, -1, 1).status == ArenaStatus::done);
  }
  std::uint64_t read(std::uint64_t page) {
    std::uint64_t value = 0;
    CHECK(arena.read(page, reinterpret_cast<std::uint8_t*>(&value), 8).status == ArenaStatus::done);
    return value;
  }
  void derive(std::uint64_t page, std::int32_t height, NodeKind kind, const std::vector<std::uint64_t>& inputs,
              bool lazy = false) {
    waves.node(page, height);
    for (const std::uint64_t input : inputs) {
      if (waves.seen(input).empty()) waves.node(input, 0);
    }
    waves.derive(page, kind, Element::u64, 0, lazy, inputs, {});
  }
};

void chains_and_reports() {
  Fixture f;
  std::vector<std::uint64_t> chain{f.page()};
  f.waves.node(chain[0], 0);
  for (std::int32_t height = 1; height <= 300; ++height) {
    chain.push_back(f.page());
    f.waves.node(chain.back(), height);
    f.waves.derive(chain.back(), NodeKind::passthrough, Element::u8, 0, false, {chain[chain.size() - 2]}, {});
    f.waves.edges(chain[chain.size() - 2], {chain.back()}, {});
  }
  CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
  for (std::uint64_t round = 1; round < 50; ++round) {
    f.write(chain[0], round);
    CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
    const Waves::Report report = f.waves.report();
    CHECK(report.recomputed == std::vector<std::uint64_t>(chain.begin() + 1, chain.end()));
    CHECK(report.changed == std::vector<std::uint64_t>{chain[0]});
    for (const std::uint64_t page : chain) CHECK(f.read(page) == round);
  }
  CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
  CHECK(f.waves.report().recomputed.empty());
}

void joins_see_one_generation() {
  Fixture f;
  const std::uint64_t source = f.page(), left = f.page(), right = f.page(), join = f.page(), flag = f.page();
  f.waves.node(source, 0);
  f.derive(left, 1, NodeKind::passthrough, {source});
  f.derive(right, 1, NodeKind::passthrough, {source});
  f.waves.node(join, 2);
  f.waves.derive(join, NodeKind::sum, Element::u64, 0, false, {left, right}, {});
  f.waves.node(flag, 3);
  f.waves.derive(flag, NodeKind::count, Element::u64, 0, false, {join}, {});
  f.waves.edges(source, {left, right}, {});
  f.waves.edges(left, {join}, {});
  f.waves.edges(right, {join}, {});
  f.waves.edges(join, {flag}, {});
  f.waves.advance(9, nullptr);
  for (std::uint64_t round = 1; round < 20; ++round) {
    f.write(source, round);
    CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
    CHECK(f.read(join) == 2 * round && f.read(flag) == 1);
    CHECK(f.waves.report().unchanged.size() == (round == 1 ? 0U : 1U));  // the count stays 1: the wave stops there
  }
}

void called_nodes_and_writers_meanwhile() {
  Fixture f;
  const std::uint64_t source = f.page(), called = f.page(), below = f.page();
  f.waves.node(source, 0);
  f.derive(called, 1, NodeKind::called, {source});
  f.waves.node(below, 2);
  f.waves.derive(below, NodeKind::passthrough, Element::u8, 0, false, {called}, {});
  f.waves.edges(source, {called}, {});
  f.waves.edges(called, {below}, {});
  std::uint64_t mirror = 0, output = 0;
  f.write(source, 5);
  CHECK(f.waves.advance(9, nullptr) == WaveStep::call);
  CHECK(f.waves.calls() == std::vector<std::uint64_t>{called});
  CHECK(f.waves.fill(called) == Fill::resize);
  f.waves.mirror(source, reinterpret_cast<std::uint8_t*>(&mirror), 8);
  f.waves.output(called, reinterpret_cast<std::uint8_t*>(&output), 8);
  CHECK(f.waves.fill(called) == Fill::done && mirror == 5);
  output = mirror + 1;
  f.waves.give(called);
  f.write(source, 7);  // what the wave has read is not so any more
  CHECK(f.waves.advance(9, nullptr) == WaveStep::call);
  CHECK(f.waves.fill(called) == Fill::done && mirror == 7);
  output = mirror + 1;
  f.waves.give(called);
  CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
  CHECK(f.read(called) == 8 && f.read(below) == 8);
  std::vector<Waves::Change> changes;
  bool staged = true;
  f.write(source, 9);
  f.waves.catch_up();
  CHECK(f.waves.changes(called, source, changes, staged) && changes.size() == 1 && !staged);
  CHECK(f.waves.advance(9, nullptr) == WaveStep::call);
  CHECK(f.waves.fill(called) == Fill::done);
  f.waves.fail(called);
  CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
  CHECK(f.waves.report().failed == std::vector<std::uint64_t>{called});
  CHECK(f.waves.report().stale == std::vector<std::uint64_t>{below});
  CHECK(f.read(below) == 8 && f.waves.out_of_date(called) && !f.waves.out_of_date(below));
}

// Random graphs against sums computed here; some pages come and go.
void random_graphs() {
  std::mt19937 chance(5);
  for (int graph = 0; graph < 20; ++graph) {
    Fixture f;
    const std::size_t count = 60;
    std::vector<std::vector<std::size_t>> parents(count);
    std::vector<std::int32_t> heights(count, 0);
    std::vector<std::vector<std::uint64_t>> children(count);
    for (std::size_t at = 0; at < count; ++at) {
      f.page();
      const std::size_t wanted = at < 5 ? 0 : chance() % 3;
      for (std::size_t n = 0; n < wanted; ++n) {
        const std::size_t parent = chance() % at;
        if (std::find(parents[at].begin(), parents[at].end(), parent) != parents[at].end()) continue;
        parents[at].push_back(parent);
        heights[at] = std::max(heights[at], heights[parent] + 1);
        children[parent].push_back(f.pages[at]);
      }
      f.waves.node(f.pages[at], heights[at]);
    }
    for (std::size_t at = 0; at < count; ++at) {
      std::vector<std::uint64_t> inputs;
      for (const std::size_t parent : parents[at]) inputs.push_back(f.pages[parent]);
      if (!inputs.empty()) f.waves.derive(f.pages[at], NodeKind::sum, Element::u64, 0, false, inputs, {});
      f.waves.edges(f.pages[at], children[at], {});
    }
    for (int round = 0; round < 30; ++round) {
      for (int writes = 0; writes < 3; ++writes) {
        const std::size_t at = chance() % count;
        if (parents[at].empty()) f.write(f.pages[at], chance() % 5);
      }
      CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
      for (std::size_t at = 0; at < count; ++at) {
        std::uint64_t sum = 0;
        for (const std::size_t parent : parents[at]) sum += f.read(f.pages[parent]);
        if (!parents[at].empty()) CHECK(f.read(f.pages[at]) == sum);
      }
    }
    const std::uint64_t gone = f.pages[0];
    CHECK(f.arena.release(gone).status == ArenaStatus::done);
    CHECK(f.waves.advance(9, nullptr) == WaveStep::gone);
    CHECK(f.waves.gone() == std::vector<std::uint64_t>{gone});
    f.waves.forget(gone);
    const WaveStep next = f.waves.advance(9, nullptr);
    CHECK(next == WaveStep::done || next == WaveStep::call);
  }
}

void readers_beside_waves() {
  Fixture f;
  const std::uint64_t source = f.page(64), copy = f.page(64);
  f.waves.node(source, 0);
  f.waves.node(copy, 1);
  f.waves.derive(copy, NodeKind::passthrough, Element::u8, 0, false, {source}, {});
  f.waves.edges(source, {copy}, {});
  std::thread writer([&] {
    std::uint8_t row[64];
    for (int round = 1; round < 3000; ++round) {
      std::memset(row, round, sizeof row);
      f.arena.lock();
      CHECK(f.arena.write(source, row, sizeof row, -1, 1).status == ArenaStatus::done);
      f.arena.unlock();
    }
  });
  for (int round = 0; round < 3000; ++round) {
    f.arena.lock();
    CHECK(f.waves.advance(9, nullptr) == WaveStep::done);
    std::uint8_t one[64], other[64];
    f.arena.read(source, one, 64);
    f.arena.read(copy, other, 64);
    CHECK(std::memcmp(one, other, 64) == 0);
    f.arena.unlock();
  }
  writer.join();
}

}  // namespace

int main() {
  chains_and_reports();
  joins_see_one_generation();
  called_nodes_and_writers_meanwhile();
  random_graphs();
  readers_beside_waves();
  RETURN_RESULT();
}
