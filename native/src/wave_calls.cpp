// Nodes that are called: their inputs are put where the caller sees them, and what it made is taken back.
#include <cstring>

#include "arena_parts.hpp"
#include "stoker/wave.hpp"

namespace stoker {

using namespace arena;  // NOLINT: the names of the layout are this file's vocabulary

void Waves::mirror(std::uint64_t page, std::uint8_t* data, std::size_t size_bytes) {
  const std::uint32_t index = find(page);
  if (index == 0) return;
  if (nodes_[index].mirror == 0) {
    nodes_[index].mirror = static_cast<std::uint32_t>(mirrors_.size());
    mirrors_.emplace_back();
  }
  mirrors_[nodes_[index].mirror] = {data, size_bytes, kNever, 0};
}

void Waves::output(std::uint64_t page, std::uint8_t* data, std::size_t size_bytes) {
  if (const std::uint32_t index = find(page); index != 0) outputs_[index] = {data, size_bytes, kNever, 0};
}

// Brings the mirrors of a node's inputs up to date, and its output to what the page is now.
Fill Waves::fill(std::uint64_t page) {
  const std::uint32_t index = find(page);
  const auto output = outputs_.find(index);
  if (index == 0 || output == outputs_.end()) return index == 0 ? Fill::missing : Fill::resize;
  const auto copy = [&](const Node& node, Buffer& into) {
    if (arena_.sound(node.page) == nullptr) return Fill::missing;  // whatever lies in the mirror
    if (into.epoch == node.epoch) return Fill::done;
    const std::size_t size_bytes = arena_.page_bytes(node.page);
    if (size_bytes == 0) return Fill::missing;
    if (size_bytes != into.size_bytes) return Fill::resize;
    const ArenaResult read = arena_.read(node.page, into.data, size_bytes);
    into.epoch = kNever;
    if (read.status != ArenaStatus::done || read.value != node.epoch) return Fill::changed;
    into.epoch = node.epoch;
    return Fill::done;
  };
  const Span inputs = nodes_[index].inputs;
  for (std::uint32_t at = 0; at < inputs.count; ++at) {
    Node& from = nodes_[inputs_[inputs.start + at].node];
    flags(from) |= kRead;
    Buffer& into = mirrors_[from.mirror];
    if (from.mirror == 0) return Fill::resize;
    if (has(from, kStaged)) {
      if (into.size_bytes != from.image_bytes) return Fill::resize;
      if (into.wave != wave_) std::memcpy(into.data, images_.get() + from.image, from.image_bytes);
      into.wave = wave_;
      into.epoch = kNever;
    } else if (const Fill filled = copy(from, into); filled != Fill::done) {
      return filled;
    }
  }
  flags(nodes_[index]) |= kRead;
  output->second.epoch = kNever;  // the function may have written on it
  return copy(nodes_[index], output->second);
}

void Waves::give(std::uint64_t page) {
  const std::uint32_t index = find(page);
  const auto output = outputs_.find(index);
  std::uint64_t* const at = index == 0 ? nullptr : arena_.sound(page);
  if (at == nullptr || output == outputs_.end() || load(at[kSize]) != output->second.size_bytes) {
    torn_ = true;
    return;
  }
  const std::size_t size_bytes = output->second.size_bytes;
  const bool changed = std::memcmp(arena_.base_ + load(at[kOffset]), output->second.data, size_bytes) != 0;
  if (changed) {
    std::memcpy(stage(index, at), output->second.data, size_bytes);
    images_used_ += size_bytes;
  }
  made(index, changed);
}

void Waves::fail(std::uint64_t page) {
  const std::uint32_t index = find(page);
  if (index == 0) return;
  flags(nodes_[index]) |= kBlocked | kRead;
  failed_.push_back(index);
  make_due(index);
  queue_below(index);
}

}  // namespace stoker
