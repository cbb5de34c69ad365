// Waves through a graph of derived pages: what depends on changed pages is made anew, lowest first, each page at most
// once, and all of it becomes one commit. Nodes of known kinds are made here, under the commit lock; a node that is
// called is handed out, and its bytes are taken back. The plain twin is stoker/pages/graph/plain_waves.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "stoker/arena.hpp"

namespace stoker {

// How a page is made. Numbers of stoker/kernels/waves.py.
enum class NodeKind : std::uint8_t {
  source = 0,  // it is not derived
  called = 1,
  passthrough = 2,
  to_bfloat16 = 3,
  sum = 4,
  largest = 5,
  smallest = 6,
  count = 7,
  concat = 8,
};

enum class Element : std::uint8_t { i8, i16, i32, i64, u8, u16, u32, u64, f32, f64 };

// What a step of a wave came to.
enum class WaveStep : int {
  done = 0,
  call = 1,     // nodes wait to be called: calls() tells which
  slow = 2,     // the commit is for the long way: staged() and states() tell what it holds
  gone = 3,     // pages of the graph were freed: gone() tells which; forget them first
  unsteady = 4  // inputs change faster than a wave can be made
};

// What `fill` came to.
enum class Fill : int { done = 0, resize = 1, changed = 2, missing = 3 };

class Waves {
 public:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0} - 1;  // the epoch that no page has: not made yet
  static constexpr std::uint64_t kGone = ~std::uint64_t{0};       // the epoch of a page that is not there

  struct Report {
    std::uint64_t lsn = 0;
    std::vector<std::uint64_t> changed, recomputed, unchanged, failed, stale, marked;
  };
  struct Change {  // a commit that changed a page: its frame begins at this position of the ring
    std::uint64_t epoch, position;
  };

  explicit Waves(Arena& arena) : arena_(arena) {}

  // -- the graph; never while a wave is under way --
  void node(std::uint64_t page, std::int32_t height);
  // `pushed` are made anew when this page changes, `marked` become stale.
  void edges(std::uint64_t page, const std::vector<std::uint64_t>& pushed, const std::vector<std::uint64_t>& marked);
  // With the epochs of the inputs that the page was last made from, kNever for none.
  void derive(std::uint64_t page, NodeKind kind, Element element, std::uint64_t offset, bool lazy,
              const std::vector<std::uint64_t>& inputs, const std::vector<std::uint64_t>& seen);
  void forget(std::uint64_t page);
  std::vector<std::uint64_t> seen(std::uint64_t page) const;
  bool out_of_date(std::uint64_t page) const;
  // Learns what was committed since; wants the lock.
  void catch_up();

  std::size_t size() const { return nodes_.size(); }

  // -- a wave --
  // Goes on with the wave under way, or begins one: of all that is pushed, or of some pages alone. Wants the lock.
  WaveStep advance(std::uint32_t source, const std::vector<std::uint64_t>* only);
  // Nothing of the wave under way happened.
  void abandon() {
    running_ = false;
    ++wave_;
  }
  const std::vector<std::uint64_t>& calls() const { return calls_pages_; }
  const std::vector<std::uint64_t>& gone() const { return gone_; }
  void report(Report& into) const;
  Report report() const {
    Report made;
    report(made);
    return made;
  }

  // -- nodes that are called --
  void mirror(std::uint64_t page, std::uint8_t* data, std::size_t size_bytes);
  void output(std::uint64_t page, std::uint8_t* data, std::size_t size_bytes);
  Fill fill(std::uint64_t page);
  void give(std::uint64_t page);
  void fail(std::uint64_t page);
  // The commits that led from what the page last saw of an input to what it sees now; false where not all are known.
  // When the input is made anew in this wave, the last step is not among them: `staged` tells.
  bool changes(std::uint64_t page, std::uint64_t input, std::vector<Change>& found, bool& staged) const;

  // -- the long way; wants the lock --
  bool steady();  // nobody changed meanwhile what the wave has read
  std::vector<std::pair<std::uint64_t, std::pair<const std::uint8_t*, std::size_t>>> staged() const;
  std::vector<std::pair<std::uint64_t, int>> states() const { return states_; }
  void settle(std::uint64_t lsn);

 private:
  enum Flag : std::uint32_t {
    kQueued = 1, kRead = 2, kStaged = 4, kBlocked = 8, kMade = 16, kOnly = 32, kMarked = 64, kTold = 128
  };
  struct Span {
    std::uint32_t start = 0, count = 0;
  };
  struct Input {
    std::uint64_t seen;
    std::uint32_t node;
  };
  struct alignas(64) Node {
    // What every visit needs lies in one line of the cache.
    std::uint64_t page = 0, epoch = kGone, wave = 0;
    std::uint32_t flags = 0;  // of that wave
    std::int32_t height = 0;
    std::uint32_t next = 0;  // in its level
    NodeKind kind = NodeKind::source;
    Element element = Element::u8;
    bool lazy = false, due = false, dirty = false, watched = false;
    Span inputs, pushed;
    std::size_t image = 0;  // in this wave
    std::size_t image_bytes = 0;
    std::uint64_t* slot = nullptr;  // of a page that this wave made anew
    Span marked;
    std::uint32_t inputs_room = 0, pushed_room = 0, marked_room = 0;
    std::uint64_t offset = 0;
    std::uint32_t mirror = 0;
    std::uint32_t users = 0;  // nodes that are made from it
  };
  struct Buffer {
    std::uint8_t* data = nullptr;
    std::size_t size_bytes = 0;
    std::uint64_t epoch = kNever, wave = 0;
  };
  struct Bytes {
    const std::uint8_t* data;
    std::size_t size_bytes;
  };

  // wave.cpp
  std::uint32_t find(std::uint64_t page) const;
  template <typename T>
  static void assign(std::vector<T>& pool, Span& span, std::uint32_t& room, const std::vector<T>& items);
  std::uint32_t& flags(Node& node);
  bool has(const Node& node, Flag flag) const { return node.wave == wave_ && (node.flags & flag) != 0; }
  void begin(const std::vector<std::uint64_t>* only);
  void queue(std::uint32_t index);
  void queue_below(std::uint32_t index);
  bool take_level();
  bool drain();
  void order_level();
  void visit(std::uint32_t index);
  bool needed(const Node& node) const;
  bool below_blocked(const Node& node) const;
  void made(std::uint32_t index, bool changed);
  void make_due(std::uint32_t index);
  void let_go_of_inputs(std::uint32_t index);
  std::uint8_t* stage(std::uint32_t index, std::uint64_t* slot);

  // wave_kinds.cpp
  bool evaluate(std::uint32_t index);
  bool bytes_of(std::uint32_t index, Bytes& found);
  bool all_inputs(const Node& node);
  bool pass_through(std::uint32_t index);
  bool take_prefix(std::uint32_t index, const std::uint8_t* prefix, std::size_t prefix_bytes);
  bool convert(std::uint32_t index);
  bool join(std::uint32_t index);

  // wave_commit.cpp
  void walk(std::uint64_t end);
  void look_at_all();
  void learn(std::uint32_t index);
  void is_new(Node& node, std::uint32_t index);
  void touched(std::uint64_t page, std::uint64_t epoch, std::uint64_t position);
  void mark_below();
  void mark(std::uint32_t parent, std::uint32_t child);
  void collect_states();
  bool commit(std::uint32_t source);
  void remember(std::uint32_t index, std::uint64_t epoch, std::uint64_t position);

  Arena& arena_;
  std::vector<Node> nodes_{1};  // 0 is none
  std::vector<std::uint32_t> free_;
  std::vector<std::uint32_t> by_slot_;
  std::vector<std::uint32_t> below_;  // spans of it: pushed and marked nodes
  std::vector<Input> inputs_;
  std::vector<Buffer> mirrors_{1};
  std::unordered_map<std::uint32_t, Buffer> outputs_;
  std::unordered_map<std::uint32_t, std::vector<Change>> history_;

  std::uint64_t position_ = 0;  // of the ring: up to here everything is known
  bool looked_ = false, own_ = false;
  bool running_ = false, whole_ = true, torn_ = false;
  bool here_ = false;  // the commit went the short way
  int attempts_ = 0;
  std::uint64_t wave_ = 0, lsn_ = 0;
  std::vector<std::uint32_t> dirty_, due_, only_;
  std::size_t dirty_begun_ = 0;
  std::size_t bound_ = 0;    // of the WAVE frame's payload so far
  std::size_t marking_ = 0;  // pages on which others hang by edges that mark
  std::size_t staged_before_ = 0, unchanged_before_ = 0;  // the level that is being made
  std::vector<std::uint32_t> heads_;  // of each height: the first node that waits
  std::vector<std::uint64_t> waiting_;  // a bit a height
  std::int32_t lowest_ = 0, highest_ = -1;  // heights of the graph
  std::size_t level_at_ = 0;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> level_;  // page and node
  std::vector<std::uint32_t> calls_, staged_, unchanged_, failed_, blocked_, marked_;
  std::vector<std::uint64_t> calls_pages_, gone_, changed_pages_;
  std::vector<std::pair<std::uint64_t, int>> states_;
  std::vector<Bytes> bytes_;  // of the inputs of the node that is being made
  std::unique_ptr<std::uint8_t[]> images_;
  std::size_t images_room_ = 0, images_used_ = 0;
};

}  // namespace stoker
