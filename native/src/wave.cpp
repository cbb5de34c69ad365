#include "stoker/wave.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "arena_parts.hpp"
#include "stoker/delta.hpp"

namespace stoker {

using namespace arena;  // NOLINT: the names of the layout are this file's vocabulary

namespace {

constexpr int kAttempts = 8;

}  // namespace

// -- the graph --------------------------------------------------------------------------------------------------------

std::uint32_t Waves::find(std::uint64_t page) const {
  const std::uint64_t slot = page & kSlotMask;
  if (slot >= by_slot_.size()) return 0;
  const std::uint32_t index = by_slot_[slot];
  return index != 0 && nodes_[index].page == page ? index : 0;
}

// Gives a span these items, in its room where they fit; else in twice as much, so that growing is cheap.
template <typename T>
void Waves::assign(std::vector<T>& pool, Span& span, std::uint32_t& room, const std::vector<T>& items) {
  if (items.size() > room) {
    span.start = static_cast<std::uint32_t>(pool.size());
    room = static_cast<std::uint32_t>(room == 0 ? items.size() : 2 * items.size());
    pool.resize(pool.size() + room);
  }
  span.count = static_cast<std::uint32_t>(items.size());
  std::copy(items.begin(), items.end(), pool.begin() + span.start);
}

void Waves::node(std::uint64_t page, std::int32_t height) {
  const std::uint64_t slot = page & kSlotMask;
  if (slot > arena_.page_slots_) return;
  std::uint32_t index = find(page);
  if (index == 0) {
    if (slot >= by_slot_.size()) by_slot_.resize(std::max<std::size_t>(slot + 1, 2 * by_slot_.size()), 0);
    if (by_slot_[slot] != 0) forget(nodes_[by_slot_[slot]].page);  // an older page of this slot
    if (free_.empty()) {
      index = static_cast<std::uint32_t>(nodes_.size());
      nodes_.emplace_back();
    } else {
      index = free_.back();
      free_.pop_back();
    }
    by_slot_[slot] = index;
    Node& made = nodes_[index];
    made.page = page;
    const std::uint64_t* const at = arena_.slot(page);
    made.epoch = at == nullptr ? kGone : load(at[kEpoch]);
  }
  nodes_[index].height = height;
  if (highest_ < lowest_) {
    lowest_ = highest_ = height;
  } else {
    lowest_ = std::min(lowest_, height);
    highest_ = std::max(highest_, height);
  }
}

void Waves::edges(std::uint64_t page, const std::vector<std::uint64_t>& pushed,
                  const std::vector<std::uint64_t>& marked) {
  const std::uint32_t index = find(page);
  if (index == 0) return;
  const auto indices = [&](const std::vector<std::uint64_t>& pages) {
    std::vector<std::uint32_t> found;
    for (const std::uint64_t one : pages) {
      if (const std::uint32_t other = find(one); other != 0) found.push_back(other);
    }
    return found;
  };
  Node& node = nodes_[index];
  assign(below_, node.pushed, node.pushed_room, indices(pushed));
  marking_ -= node.marked.count != 0 ? 1 : 0;
  assign(below_, node.marked, node.marked_room, indices(marked));
  marking_ += node.marked.count != 0 ? 1 : 0;
}

void Waves::derive(std::uint64_t page, NodeKind kind, Element element, std::uint64_t offset, bool lazy,
                   const std::vector<std::uint64_t>& inputs, const std::vector<std::uint64_t>& seen) {
  const std::uint32_t index = find(page);
  if (index == 0) return;
  std::vector<Input> found;
  for (std::size_t place = 0; place < inputs.size(); ++place) {
    const std::uint32_t input = find(inputs[place]);
    if (input == 0) return;
    found.push_back({place < seen.size() ? seen[place] : kNever, input});
  }
  for (const Input& input : found) {
    nodes_[input.node].watched |= kind == NodeKind::called;
    ++nodes_[input.node].users;
  }
  let_go_of_inputs(index);
  Node& node = nodes_[index];
  assign(inputs_, node.inputs, node.inputs_room, found);
  node.kind = kind;
  node.element = element;
  node.offset = offset;
  node.lazy = lazy;
  make_due(index);
}

// A node that is gone is used again only when no page is made from it any more.
void Waves::let_go_of_inputs(std::uint32_t index) {
  const Span span = nodes_[index].inputs;
  for (std::uint32_t at = 0; at < span.count; ++at) {
    const std::uint32_t input = inputs_[span.start + at].node;
    if (--nodes_[input].users == 0 && nodes_[input].page == 0) free_.push_back(input);
  }
  nodes_[index].inputs.count = 0;
}

void Waves::forget(std::uint64_t page) {
  std::erase(gone_, page);
  const std::uint32_t index = find(page);
  if (index == 0) return;
  let_go_of_inputs(index);
  by_slot_[page & kSlotMask] = 0;
  outputs_.erase(index);
  history_.erase(index);
  const auto drop = [&](std::vector<std::uint32_t>& list) { std::erase(list, index); };
  drop(dirty_);
  drop(due_);
  const Node old = nodes_[index];
  marking_ -= old.marked.count != 0 ? 1 : 0;
  Node& node = nodes_[index] = Node{};
  node.pushed = {old.pushed.start, 0};
  node.marked = {old.marked.start, 0};
  node.inputs = {old.inputs.start, 0};
  node.pushed_room = old.pushed_room;
  node.marked_room = old.marked_room;
  node.inputs_room = old.inputs_room;
  node.mirror = old.mirror;
  node.users = old.users;
  if (node.mirror != 0) mirrors_[node.mirror] = Buffer{};
  if (node.users == 0) free_.push_back(index);
}

std::vector<std::uint64_t> Waves::seen(std::uint64_t page) const {
  std::vector<std::uint64_t> found;
  if (const std::uint32_t index = find(page); index != 0) {
    const Span& span = nodes_[index].inputs;
    for (std::uint32_t at = 0; at < span.count; ++at) found.push_back(inputs_[span.start + at].seen);
  }
  return found;
}

bool Waves::out_of_date(std::uint64_t page) const {
  const std::uint32_t index = find(page);
  return index != 0 && nodes_[index].kind != NodeKind::source && needed(nodes_[index]);
}

// -- a wave -----------------------------------------------------------------------------------------------------------

std::uint32_t& Waves::flags(Node& node) {
  if (node.wave != wave_) {
    node.wave = wave_;
    node.flags = 0;
  }
  return node.flags;
}

void Waves::make_due(std::uint32_t index) {
  if (nodes_[index].due) return;
  nodes_[index].due = true;
  due_.push_back(index);
}

// Begins a wave, or the same one again after somebody wrote what it had read.
void Waves::begin(const std::vector<std::uint64_t>* only) {
  ++wave_;
  torn_ = false;
  images_used_ = staged_before_ = unchanged_before_ = bound_ = 0;
  level_.clear();
  for (auto* list : {&calls_, &staged_, &unchanged_, &failed_, &blocked_, &marked_}) list->clear();
  states_.clear();
  const auto levels = static_cast<std::size_t>(highest_ - lowest_ + 1);
  while (take_level()) continue;  // what a wave that did not end left waiting
  level_.clear();
  heads_.resize(levels, 0);
  waiting_.resize(levels / 64 + 1, 0);
  level_at_ = 0;
  if (only != nullptr) {
    only_.clear();
    for (const std::uint64_t page : *only) {
      if (const std::uint32_t index = find(page); index != 0) only_.push_back(index);
    }
  }
  for (const std::uint32_t index : only_) flags(nodes_[index]) |= kOnly;
  dirty_begun_ = dirty_.size();
  changed_pages_.clear();
  for (const std::uint32_t index : dirty_) {
    if ((flags(nodes_[index]) & kTold) == 0) changed_pages_.push_back(nodes_[index].page);
    nodes_[index].flags |= kTold;
    queue_below(index);
  }
  for (const std::uint32_t index : due_) queue(index);
  for (const std::uint32_t index : only_) queue(index);
}

inline void Waves::queue(std::uint32_t index) {
  Node& node = nodes_[index];
  std::uint32_t& flag = flags(node);
  if ((flag & kQueued) != 0 || node.kind == NodeKind::source || (whole_ ? node.lazy : (flag & kOnly) == 0)) return;
  flag |= kQueued;
  const auto level = static_cast<std::size_t>(node.height - lowest_);
  node.next = heads_[level];
  heads_[level] = index;
  waiting_[level / 64] |= std::uint64_t{1} << (level % 64);
}

void Waves::queue_below(std::uint32_t index) {
  const Span pushed = nodes_[index].pushed;
  for (std::uint32_t at = 0; at < pushed.count; ++at) queue(below_[pushed.start + at]);
  if (whole_) return;
  const Span marked = nodes_[index].marked;  // lazy pages that were asked for
  for (std::uint32_t at = 0; at < marked.count; ++at) queue(below_[marked.start + at]);
}

// Takes all nodes of the lowest height that waits, by page; false where none does.
bool Waves::take_level() {
  std::size_t group = level_at_ / 64;
  while (group < waiting_.size() && waiting_[group] == 0) ++group;
  if (group == waiting_.size()) return false;
  level_at_ = group * 64 + static_cast<std::size_t>(std::countr_zero(waiting_[group]));
  waiting_[group] &= waiting_[group] - 1;
  level_.clear();
  for (std::uint32_t index = heads_[level_at_]; index != 0; index = nodes_[index].next) {
    level_.emplace_back(nodes_[index].page, index);
  }
  heads_[level_at_] = 0;
  if (level_.size() > 1) {
    std::reverse(level_.begin(), level_.end());
    if (!std::is_sorted(level_.begin(), level_.end())) std::sort(level_.begin(), level_.end());
  }
  return true;
}

// Pages of one height that were made here came before those that were called: by page from here on.
void Waves::order_level() {
  const auto by_page = [&](std::uint32_t one, std::uint32_t other) { return nodes_[one].page < nodes_[other].page; };
  std::sort(staged_.begin() + static_cast<std::ptrdiff_t>(staged_before_), staged_.end(), by_page);
  std::sort(unchanged_.begin() + static_cast<std::ptrdiff_t>(unchanged_before_), unchanged_.end(), by_page);
}

// True when nothing is left; false when nodes wait to be called.
bool Waves::drain() {
  order_level();
  while (take_level()) {
    staged_before_ = staged_.size();
    unchanged_before_ = unchanged_.size();
    for (const auto& [page, index] : level_) visit(index);
    if (!calls_.empty()) return false;
  }
  return true;
}

// What follows stands in the order of calls: for pages of one line it is compiled into one.

// Room for a page's new bytes, until the next call of it only.
std::uint8_t* Waves::stage(std::uint32_t index, std::uint64_t* slot) {
  const std::size_t size_bytes = slot[kSize];
  if (images_room_ - images_used_ < size_bytes) {
    const std::size_t room = std::max(2 * images_room_, images_used_ + size_bytes + 4096);
    std::unique_ptr<std::uint8_t[]> grown(new std::uint8_t[room]);
    if (images_used_ != 0) std::memcpy(grown.get(), images_.get(), images_used_);
    images_ = std::move(grown);
    images_room_ = room;
  }
  Node& node = nodes_[index];
  node.image = images_used_;
  node.image_bytes = size_bytes;
  node.slot = slot;
  return images_.get() + images_used_;
}

void Waves::made(std::uint32_t index, bool changed) {
  flags(nodes_[index]) |= changed ? kMade | kStaged | kRead : kMade | kRead;
  if (!changed) {
    unchanged_.push_back(index);
    return;
  }
  staged_.push_back(index);
  const std::size_t size_bytes = nodes_[index].image_bytes;
  bound_ += kWaveRecordBytes +
            padded(size_bytes <= kWholeBytes ? size_bytes : std::max(two_level_bound(size_bytes), size_bytes));
  queue_below(index);
}

// A node's bytes as this wave sees them; false for a page that is not here, or not trusted.
bool Waves::bytes_of(std::uint32_t index, Bytes& found) {
  Node& node = nodes_[index];
  flags(node) |= kRead;
  if ((node.flags & kStaged) != 0) {
    found = {images_.get() + node.image, node.image_bytes};
    return true;
  }
  const std::uint64_t* const at = arena_.sound(node.page);
  if (at == nullptr || (load(at[kSeq]) & 1) != 0) return false;
  found = {arena_.base_ + at[kOffset], at[kSize]};
  return true;
}

[[gnu::flatten]] bool Waves::pass_through(std::uint32_t index) {
  Bytes from{};
  std::uint64_t* const at = arena_.sound(nodes_[index].page);
  if (at == nullptr || !bytes_of(inputs_[nodes_[index].inputs.start].node, from)) return false;
  const std::size_t offset = std::min<std::size_t>(nodes_[index].offset, from.size_bytes);
  const std::size_t taken = std::min<std::size_t>(from.size_bytes - offset, at[kSize]);
  if (offset != 0 || taken != kWholeBytes || at[kSize] != kWholeBytes) {
    return take_prefix(index, from.data + offset, taken);
  }
  // A page of one line: its size is known to the compiler.
  const bool changed = std::memcmp(arena_.base_ + at[kOffset], from.data, kWholeBytes) != 0;
  if (changed) {
    std::uint8_t line[kWholeBytes];
    std::memcpy(line, from.data, kWholeBytes);  // the images may move
    std::memcpy(stage(index, at), line, kWholeBytes);
    images_used_ += kWholeBytes;
  }
  made(index, changed);
  return true;
}

bool Waves::needed(const Node& node) const {
  for (std::uint32_t at = 0; at < node.inputs.count; ++at) {
    const Input& input = inputs_[node.inputs.start + at];
    const Node& from = nodes_[input.node];
    if (from.epoch != input.seen || has(from, kStaged)) return true;
  }
  return false;
}

bool Waves::below_blocked(const Node& node) const {
  for (std::uint32_t at = 0; at < node.inputs.count; ++at) {
    if (has(nodes_[inputs_[node.inputs.start + at].node], kBlocked)) return true;
  }
  return false;
}

void Waves::visit(std::uint32_t index) {
  Node& node = nodes_[index];
  if (failed_.size() + blocked_.size() != 0 && below_blocked(node)) {
    flags(node) |= kBlocked;
    blocked_.push_back(index);
    make_due(index);
    queue_below(index);
    return;
  }
  if (!needed(node)) return;
  const bool copied = node.kind == NodeKind::passthrough && node.inputs.count == 1;
  if (!(copied ? pass_through(index) : evaluate(index))) calls_.push_back(index);
}

WaveStep Waves::advance(std::uint32_t source, const std::vector<std::uint64_t>* only) {
  if (!running_) {
    catch_up();
    if (!gone_.empty()) return WaveStep::gone;
    whole_ = only == nullptr;
    only_.clear();
    attempts_ = 1;
    running_ = true;
    begin(only);
  } else if (!steady()) {
    if (!gone_.empty() || ++attempts_ > kAttempts) {
      abandon();
      return gone_.empty() ? WaveStep::unsteady : WaveStep::gone;
    }
    begin(nullptr);
  }
  calls_.clear();
  if (!drain()) {
    calls_pages_.clear();
    for (const std::uint32_t index : calls_) calls_pages_.push_back(nodes_[index].page);
    return WaveStep::call;
  }
  mark_below();
  collect_states();
  return commit(source) ? WaveStep::done : WaveStep::slow;
}

bool Waves::steady() {
  catch_up();
  return !torn_ && gone_.empty();
}

void Waves::report(Report& report) const {
  report.lsn = lsn_;
  report.changed = changed_pages_;
  const auto pages = [&](const std::vector<std::uint32_t>& list, std::vector<std::uint64_t>& out) {
    out.clear();
    for (const std::uint32_t index : list) out.push_back(nodes_[index].page);
  };
  pages(staged_, report.recomputed);
  pages(unchanged_, report.unchanged);
  pages(failed_, report.failed);
  pages(blocked_, report.stale);
  pages(marked_, report.marked);
}

}  // namespace stoker
