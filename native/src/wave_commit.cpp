// What a wave learns from the log of the arena, and how it is committed: one WAVE frame with all pages that it made,
// and a STATE frame for each page whose state it changes.
#include <algorithm>
#include <cstring>

#include "arena_parts.hpp"
#include "stoker/delta.hpp"
#include "stoker/wave.hpp"

namespace stoker {

using namespace arena;  // NOLINT: the names of the layout are this file's vocabulary

namespace {

constexpr std::size_t kHistory = 16;
constexpr std::size_t kAhead = 8;  // pages that are fetched before they are needed

}  // namespace

// -- what was committed since -----------------------------------------------------------------------------------------

void Waves::catch_up() {
  const std::uint64_t end = load(arena_.word(kCommittedPos));
  if (!looked_ || position_ < load(arena_.word(kFloorPos)) || end - position_ > 256 * nodes_.size() + 65536) {
    look_at_all();
  } else if (position_ != end) {
    walk(end);
  }
  looked_ = true;
  position_ = end;
}

// Every frame since `position_`: whoever wrote it, in whichever process.
void Waves::walk(std::uint64_t end) {
  const std::uint8_t* const ring = arena_.base_ + arena_.ring_offset_;
  for (std::uint64_t at = position_; at < end;) {
    const std::uint8_t* const frame = ring + at % arena_.ring_bytes_;
    const auto length = get<std::uint32_t>(frame);
    if (length == kSkip) {
      at += arena_.ring_bytes_ - at % arena_.ring_bytes_;
      continue;
    }
    const auto page = get<std::uint64_t>(frame + 16), epoch = get<std::uint64_t>(frame + 24);
    switch (frame[40]) {
      case kFree: touched(page, kGone, at); break;
      case kResize:
      case kDelta:
      case kImage: touched(page, epoch, at); break;
      case kWave: {
        const std::size_t payload_bytes = get<std::uint32_t>(frame + 48);
        for (std::size_t place = 0; place + kWaveRecordBytes <= payload_bytes;) {
          const std::uint8_t* const record = frame + kFrameHeaderBytes + place;
          touched(get<std::uint64_t>(record), get<std::uint64_t>(record + 8), at);
          place += kWaveRecordBytes + padded(get<std::uint32_t>(record + 16));
        }
        break;
      }
      default: break;
    }
    at += length;
  }
}

// The log does not reach back: compare every page of the graph.
void Waves::look_at_all() {
  history_.clear();
  for (std::uint32_t index = 1; index < nodes_.size(); ++index) {
    const Node& node = nodes_[index];
    if (node.page == 0) continue;
    const std::uint64_t* const at = arena_.slot(node.page);
    const std::uint64_t epoch = at == nullptr ? kGone : load(at[kEpoch]);
    if (epoch != node.epoch) touched(node.page, epoch, kNever);
  }
}

void Waves::touched(std::uint64_t page, std::uint64_t epoch, std::uint64_t position) {
  const std::uint32_t index = find(page);
  if (index == 0) return;
  Node& node = nodes_[index];
  if (own_) {
    node.epoch = epoch;
    remember(index, epoch, position);
    return;
  }
  if (epoch == kGone && node.epoch != kGone) gone_.push_back(page);
  if (epoch != kGone && node.epoch != kGone && epoch <= node.epoch) return;  // known when the node was added
  if (has(node, kRead)) torn_ = true;
  if (!node.dirty || running_) {  // once more in a wave: the next one looks at it again
    node.dirty = true;
    dirty_.push_back(index);
  }
  node.epoch = epoch;
  remember(index, epoch, position);
}

void Waves::remember(std::uint32_t index, std::uint64_t epoch, std::uint64_t position) {
  if (!nodes_[index].watched || position == kNever) return;
  std::vector<Change>& changes = history_[index];
  if (changes.size() >= kHistory) changes.erase(changes.begin());
  changes.push_back({epoch, position});
}

bool Waves::changes(std::uint64_t page, std::uint64_t input, std::vector<Change>& found, bool& staged) const {
  const std::uint32_t index = find(page), from = find(input);
  if (index == 0 || from == 0) return false;
  std::uint64_t seen = kNever;
  const Span inputs = nodes_[index].inputs;
  for (std::uint32_t at = 0; at < inputs.count; ++at) {
    if (inputs_[inputs.start + at].node == from) seen = inputs_[inputs.start + at].seen;
  }
  staged = has(nodes_[from], kStaged);
  if (seen == kNever || seen == kGone || nodes_[from].epoch == kGone || seen > nodes_[from].epoch) return false;
  if (const auto known = history_.find(from); known != history_.end()) {
    for (const Change& change : known->second) {
      if (change.epoch > seen) found.push_back(change);
    }
  }
  return found.size() == nodes_[from].epoch - seen;
}

// -- committing -------------------------------------------------------------------------------------------------------

// What hangs on changed pages by edges that only mark: it is stale from now on.
void Waves::mark_below() {
  const auto below = [&](std::uint32_t parent) {
    const Span marked = nodes_[parent].marked;
    for (std::uint32_t at = 0; at < marked.count; ++at) mark(parent, below_[marked.start + at]);
  };
  if (marking_ == 0) return;
  for (const std::uint32_t index : staged_) below(index);
  for (const std::uint32_t index : dirty_) below(index);
}

void Waves::mark(std::uint32_t parent, std::uint32_t child) {
  Node& node = nodes_[child];
  if (node.page == 0 || (flags(node) & (kMade | kMarked | kBlocked)) != 0) return;
  if (node.kind != NodeKind::source && !has(nodes_[parent], kStaged)) {
    for (std::uint32_t at = 0; at < node.inputs.count; ++at) {
      const Input& input = inputs_[node.inputs.start + at];
      if (input.node == parent && input.seen == nodes_[parent].epoch) return;  // made since
    }
  }
  node.flags |= kMarked;
  marked_.push_back(child);
}

void Waves::collect_states() {
  states_.clear();
  std::sort(marked_.begin(), marked_.end(),
            [&](std::uint32_t one, std::uint32_t other) { return nodes_[one].page < nodes_[other].page; });
  const auto want = [&](const std::vector<std::uint32_t>& list, std::uint64_t state) {
    for (const std::uint32_t index : list) {
      const std::uint64_t* const at = arena_.slot(nodes_[index].page);
      const std::uint64_t now = at == nullptr ? kQuarantined : at[kTraits] & 0xFF;
      if (now != state && now != kQuarantined) {
        states_.emplace_back(nodes_[index].page, static_cast<int>(state));
      }
    }
  };
  want(failed_, kStale);
  want(blocked_, kStale);
  want(marked_, kStale);
  want(unchanged_, kClean);
}

namespace {

// Of a page of at most kWholeBytes; without the processor's own count of bits, which not every one has.
inline std::size_t differing_bytes(const std::uint8_t* one, const std::uint8_t* other, std::size_t size_bytes) {
  constexpr std::uint64_t kLow = 0x7F7F7F7F7F7F7F7F, kOnes = 0x0101010101010101;
  std::uint64_t counts = 0;  // one a byte
  std::size_t place = 0, found = 0;
  for (; place + 8 <= size_bytes; place += 8) {
    const std::uint64_t differs = get<std::uint64_t>(one + place) ^ get<std::uint64_t>(other + place);
    counts += ((((differs & kLow) + kLow) | differs) >> 7) & kOnes;
  }
  for (; place < size_bytes; ++place) found += one[place] != other[place] ? 1U : 0U;
  return found + static_cast<std::size_t>(counts * kOnes >> 56);
}

struct Sizes {
  std::size_t payload_bytes = 0, changed_bytes = 0, delta_bytes = 0;
};

// Writes a page's new bytes whole; a size that the compiler knows makes short work of it.
inline void write_whole(std::uint8_t* payload, const std::uint8_t* now, const std::uint8_t* image,
                        std::size_t size_bytes, Sizes& sizes) {
  sizes.changed_bytes += differing_bytes(now, image, size_bytes);
  std::memcpy(payload, image, size_bytes);
}

// Writes what a page becomes as one record of a WAVE frame.
inline void write_record(std::uint8_t* out, const std::uint64_t* at, const std::uint8_t* now, const std::uint8_t* image,
                         std::size_t size_bytes, Sizes& sizes) {
  std::uint8_t* const payload = out + kWaveRecordBytes;
  std::size_t payload_bytes = size_bytes;
  bool whole = true;
  if (size_bytes == kWholeBytes) {
    write_whole(payload, now, image, kWholeBytes, sizes);
  } else if (size_bytes < kWholeBytes) {
    write_whole(payload, now, image, size_bytes, sizes);
  } else {
    const DeltaSize size = two_level_diff(now, image, size_bytes, payload);
    sizes.changed_bytes += size.changed_bytes;
    whole = size.payload_bytes >= size_bytes;
    if (whole) std::memcpy(payload, image, size_bytes);
    if (!whole) payload_bytes = size.payload_bytes;
  }
  pad(payload, payload_bytes);
  put<std::uint64_t>(out, at[kId]);
  put<std::uint64_t>(out + 8, at[kEpoch] + 1);
  put<std::uint32_t>(out + 16, static_cast<std::uint32_t>(payload_bytes));
  const auto traits = static_cast<std::uint32_t>(at[kTraits] >> 24 & 0xFF);
  const std::uint32_t form = whole ? kImage | kRaw << 8 : kDelta | kTwoLevel << 8;
  put<std::uint32_t>(out + 20, form | traits << 16);
  sizes.delta_bytes += payload_bytes;
  sizes.payload_bytes += kWaveRecordBytes + padded(payload_bytes);
}

}  // namespace

// Commits what was made; false, and nothing changed, where that is for the long way.
bool Waves::commit(std::uint32_t source) {
  if (staged_.empty() && states_.empty()) {
    settle(load(arena_.word(kCommittedLsn)));
    return true;
  }
  Arena::Writing writing;
  if (source == 0 || !arena_.begin(writing, source)) return false;
  if (bound_ >= (std::size_t{1} << 30)) return false;
  const std::uint64_t pinned = load(arena_.word(kPinMax));
  if (!staged_.empty()) {
    std::uint8_t* const frame = arena_.place(writing, bound_ + kPadRoom);
    if (frame == nullptr) return false;
    Sizes sizes;
    for (std::size_t order = 0; order < staged_.size(); ++order) {
      if (order + kAhead < staged_.size()) __builtin_prefetch(nodes_[staged_[order + kAhead]].slot);
      const Node& node = nodes_[staged_[order]];
      const std::uint64_t* const at = node.slot;
      const bool good = load(at[kId]) == node.page && at[kSize] == node.image_bytes && (at[kSeq] & 1) == 0;
      if (!good || at[kBytesLsn] < pinned) return false;
      std::uint8_t* const record = frame + kFrameHeaderBytes + sizes.payload_bytes;
      fetch_to_write(record + kAheadBytes, kWaveRecordBytes + std::min(node.image_bytes, kAheadBytes));
      write_record(record, at, arena_.base_ + at[kOffset], images_.get() + node.image, node.image_bytes, sizes);
    }
    arena_.frame(writing, 0, 0, kWave, kRaw, 1, sizes.payload_bytes);
    writing.changed_bytes = sizes.changed_bytes;
    writing.delta_bytes = sizes.delta_bytes;
  }
  const std::uint8_t* const wave = writing.open;
  const std::uint64_t wave_position = writing.end - (wave == nullptr ? 0 : get<std::uint32_t>(wave));
  for (const auto& [page, state] : states_) {
    const std::uint64_t* const at = arena_.slot(page);
    std::uint8_t* const frame = at == nullptr ? nullptr : arena_.place(writing, kStateRecordBytes);
    if (frame == nullptr) return false;
    put<std::uint64_t>(frame + kFrameHeaderBytes, static_cast<std::uint64_t>(state));
    arena_.frame(writing, page, at[kEpoch], kState, kRaw, static_cast<int>(at[kTraits] >> 24 & 0xFF),
                 kStateRecordBytes);
  }
  std::uint64_t lsn = arena_.intend(writing);
  if (wave != nullptr) {
    std::size_t place = kFrameHeaderBytes;
    for (std::size_t order = 0; order < staged_.size(); ++order) {
      const std::uint32_t index = staged_[order];
      if (order + kAhead < staged_.size()) __builtin_prefetch(nodes_[staged_[order + kAhead]].slot, 1);
      Node& node = nodes_[index];
      std::uint64_t* const at = node.slot;
      const std::uint8_t* const record = wave + place;
      const std::uint64_t sequence = begin_change(at);
      if (node.image_bytes == kWholeBytes) {
        copy_shared(arena_.base_ + at[kOffset], images_.get() + node.image, kWholeBytes);
      } else {
        copy_shared(arena_.base_ + at[kOffset], images_.get() + node.image, node.image_bytes);
      }
      finish_overwrite(at, sequence, get<std::uint64_t>(record + 8), lsn);
      writing.images += record[20] == kImage ? 1 : 0;
      place += kWaveRecordBytes + padded(get<std::uint32_t>(record + 16));
      ++node.epoch;
      if (node.watched) remember(index, node.epoch, wave_position);
      is_new(node, index);
    }
    writing.deltas = staged_.size() - writing.images;
    ++lsn;
  }
  for (const auto& [page, state] : states_) {
    std::uint64_t* const at = arena_.slot(page);
    const std::uint64_t sequence = begin_change(at);
    store(at[kTraits], (at[kTraits] & ~std::uint64_t{0xFF}) | static_cast<std::uint64_t>(state));
    step();
    store(at[kLsn], lsn++);
    step();
    store(at[kSeq], sequence + 1);
    step();
  }
  arena_.publish(writing);
  position_ = writing.end;
  here_ = true;
  settle(writing.lsn);
  return true;
}

std::vector<std::pair<std::uint64_t, std::pair<const std::uint8_t*, std::size_t>>> Waves::staged() const {
  std::vector<std::pair<std::uint64_t, std::pair<const std::uint8_t*, std::size_t>>> found;
  for (const std::uint32_t index : staged_) {
    const Node& node = nodes_[index];
    found.push_back({node.page, {images_.get() + node.image, node.image_bytes}});
  }
  return found;
}

// The page was made from its inputs as they are now.
void Waves::learn(std::uint32_t index) {
  Node& node = nodes_[index];
  node.due = false;
  for (std::uint32_t at = 0; at < node.inputs.count; ++at) {
    Input& input = inputs_[node.inputs.start + at];
    input.seen = nodes_[input.node].epoch;
  }
}

// The page is what this wave made of it. Parents come before children: their epochs are the new ones.
void Waves::is_new(Node& node, std::uint32_t index) {
  if (node.mirror != 0 && mirrors_[node.mirror].wave == wave_) mirrors_[node.mirror].epoch = node.epoch;
  learn(index);
}

// The wave is committed: what was made is up to date, and all that was changed before is dealt with.
void Waves::settle(std::uint64_t lsn) {
  const bool committed_here = here_;
  here_ = false;
  lsn_ = lsn;
  running_ = false;
  if (const std::uint64_t end = load(arena_.word(kCommittedPos)); position_ != end) {  // it went the long way
    own_ = true;
    walk(end);
    own_ = false;
    position_ = end;
  }
  if (!committed_here) {
    for (const std::uint32_t index : staged_) is_new(nodes_[index], index);
  }
  for (const std::uint32_t index : unchanged_) learn(index);
  ++wave_;  // what was staged is in the pages
  // A wave of some pages alone leaves the others to the next.
  if (!due_.empty()) {
    for (const std::uint32_t index : due_) nodes_[index].due = nodes_[index].due && (!whole_ || needed(nodes_[index]));
    std::erase_if(due_, [&](std::uint32_t index) { return !nodes_[index].due; });
  }
  if (!whole_) return;
  for (std::size_t place = 0; place < dirty_begun_; ++place) nodes_[dirty_[place]].dirty = false;
  dirty_.erase(dirty_.begin(), dirty_.begin() + static_cast<std::ptrdiff_t>(dirty_begun_));
  for (const std::uint32_t index : dirty_) nodes_[index].dirty = true;
}

}  // namespace stoker
