// The kinds of nodes that are made without Python. All arithmetic is told exactly, so that the plain twin gives the
// same bytes: see stoker/pages/graph/nodes.py.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "arena_parts.hpp"
#include "stoker/wave.hpp"

namespace stoker {

using namespace arena;  // NOLINT: the names of the layout are this file's vocabulary

namespace {

constexpr std::size_t kLanes = 8;

template <typename T>
T element_at(const std::uint8_t* data, std::size_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof value);
  return value;
}

template <typename T>
T as_quiet(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    // One NaN and one zero: which of several would come out is nobody's promise.
    if (std::isnan(value)) return std::numeric_limits<T>::quiet_NaN();
    return value == T{0} ? T{0} : value;
  }
  return value;
}

// Integers are added modulo 2^64. Floats are added as doubles in eight lanes, element i in lane i mod 8 of its input;
// then the lanes, then the inputs, in order.
template <typename T>
struct Sum {
  double real = 0.0;
  std::uint64_t whole = 0;
  void take(const std::uint8_t* data, std::size_t count) {
    if constexpr (std::is_floating_point_v<T>) {
      double lanes[kLanes] = {};
      std::size_t index = 0;
      for (; index + kLanes <= count; index += kLanes) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += element_at<T>(data, index + lane);
      }
      for (; index < count; ++index) lanes[index % kLanes] += element_at<T>(data, index);
      double total = 0.0;
      for (const double lane : lanes) total += lane;
      real += total;
    } else {
      for (std::size_t index = 0; index < count; ++index) {
        whole += static_cast<std::uint64_t>(element_at<T>(data, index));
      }
    }
  }
  T result() const {
    if constexpr (std::is_floating_point_v<T>) return as_quiet(static_cast<T>(real));
    return static_cast<T>(whole);
  }
};

template <typename T, bool Largest>
struct Extreme {
  T best{};
  bool met = false, nan = false;
  void take(const std::uint8_t* data, std::size_t count) {
    std::size_t index = 0;
    if (!met && count != 0) {
      best = element_at<T>(data, 0);
      met = true;
    }
    T found = best;
    bool bad = found != found;
    for (; index < count; ++index) {
      const T value = element_at<T>(data, index);
      bad |= value != value;
      found = (Largest ? value > found : value < found) ? value : found;
    }
    best = found;
    nan |= bad;
  }
  T result() const {
    if constexpr (std::is_floating_point_v<T>) {
      if (nan) return std::numeric_limits<T>::quiet_NaN();
    }
    return as_quiet(best);
  }
};

template <typename T>
struct Count {
  std::uint64_t found = 0;
  void take(const std::uint8_t* data, std::size_t count) {
    for (std::size_t index = 0; index < count; ++index) found += element_at<T>(data, index) != T{0} ? 1U : 0U;
  }
  std::uint64_t result() const { return found; }
};

template <typename T>
struct Smallest : Extreme<T, false> {};
template <typename T>
struct Largest : Extreme<T, true> {};

// Folds all inputs into `out` and returns the bytes that it takes, 0 where an input holds no whole number of elements.
template <template <typename> class Fold, typename T, typename Inputs>
std::size_t fold_as(const Inputs& inputs, std::uint8_t* out) {
  Fold<T> fold;
  for (const auto& input : inputs) {
    if (input.size_bytes % sizeof(T) != 0) return 0;
    fold.take(input.data, input.size_bytes / sizeof(T));
  }
  const auto result = fold.result();
  std::memcpy(out, &result, sizeof result);
  return sizeof result;
}

template <template <typename> class Fold, typename Inputs>
std::size_t fold(Element element, const Inputs& inputs, std::uint8_t* out) {
  switch (element) {
    case Element::i8: return fold_as<Fold, std::int8_t>(inputs, out);
    case Element::i16: return fold_as<Fold, std::int16_t>(inputs, out);
    case Element::i32: return fold_as<Fold, std::int32_t>(inputs, out);
    case Element::i64: return fold_as<Fold, std::int64_t>(inputs, out);
    case Element::u8: return fold_as<Fold, std::uint8_t>(inputs, out);
    case Element::u16: return fold_as<Fold, std::uint16_t>(inputs, out);
    case Element::u32: return fold_as<Fold, std::uint32_t>(inputs, out);
    case Element::u64: return fold_as<Fold, std::uint64_t>(inputs, out);
    case Element::f32: return fold_as<Fold, float>(inputs, out);
    case Element::f64: return fold_as<Fold, double>(inputs, out);
  }
  return 0;
}

std::uint16_t to_bfloat16(std::uint32_t bits) {
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

}  // namespace

bool Waves::all_inputs(const Node& node) {
  bytes_.clear();
  const Span inputs = node.inputs;
  for (std::uint32_t at = 0; at < inputs.count; ++at) {
    Bytes found{};
    if (!bytes_of(inputs_[inputs.start + at].node, found)) return false;
    bytes_.push_back(found);
  }
  return true;
}

// Gives a page these first bytes; the others stay as they are.
bool Waves::take_prefix(std::uint32_t index, const std::uint8_t* prefix, std::size_t prefix_bytes) {
  std::uint64_t* const at = arena_.sound(nodes_[index].page);
  if (at == nullptr || at[kSize] < prefix_bytes) return false;
  const std::uint8_t* const now = arena_.base_ + at[kOffset];
  const std::size_t size_bytes = at[kSize];
  const bool changed = std::memcmp(now, prefix, prefix_bytes) != 0;
  if (changed) {
    // What `prefix` points to may lie among the images, and move when they grow.
    const bool inside = images_ != nullptr && prefix >= images_.get() && prefix < images_.get() + images_used_;
    const std::size_t place = inside ? static_cast<std::size_t>(prefix - images_.get()) : 0;
    std::uint8_t* const image = stage(index, at);
    std::memcpy(image, inside ? images_.get() + place : prefix, prefix_bytes);
    if (prefix_bytes < size_bytes) std::memcpy(image + prefix_bytes, now + prefix_bytes, size_bytes - prefix_bytes);
    images_used_ += size_bytes;
  }
  made(index, changed);
  return true;
}

bool Waves::convert(std::uint32_t index) {
  std::uint64_t* const at = arena_.sound(nodes_[index].page);
  if (at == nullptr || bytes_[0].size_bytes % 4 != 0 || at[kSize] != bytes_[0].size_bytes / 2) return false;
  const std::size_t size_bytes = at[kSize];
  std::uint8_t* const image = stage(index, at);
  Bytes from{};
  if (!bytes_of(inputs_[nodes_[index].inputs.start].node, from)) return false;  // the images may have moved
  for (std::size_t element = 0; element < size_bytes / 2; ++element) {
    put<std::uint16_t>(image + 2 * element, to_bfloat16(element_at<std::uint32_t>(from.data, element)));
  }
  const bool changed = std::memcmp(arena_.base_ + at[kOffset], image, size_bytes) != 0;
  if (changed) images_used_ += size_bytes;
  made(index, changed);
  return true;
}

bool Waves::join(std::uint32_t index) {
  std::uint64_t* const at = arena_.sound(nodes_[index].page);
  if (at == nullptr) return false;
  const std::size_t size_bytes = at[kSize];
  std::uint8_t* const image = stage(index, at);
  if (!all_inputs(nodes_[index])) return false;
  std::memcpy(image, arena_.base_ + at[kOffset], size_bytes);
  std::size_t start = 0;
  for (const Bytes& part : bytes_) {
    const std::size_t taken = std::min(part.size_bytes, size_bytes - start);
    if (taken != 0) std::memcpy(image + start, part.data, taken);
    start += taken;
  }
  const bool changed = std::memcmp(arena_.base_ + at[kOffset], image, size_bytes) != 0;
  if (changed) images_used_ += size_bytes;
  made(index, changed);
  return true;
}

// Makes a node; false where it is for Python: its function, an input that is not here, sizes that do not fit.
bool Waves::evaluate(std::uint32_t index) {
  const Node& node = nodes_[index];
  if (node.kind == NodeKind::called || node.inputs.count == 0) return false;
  if (!all_inputs(node)) return false;
  if (node.kind == NodeKind::passthrough) return pass_through(index);
  std::uint8_t result[8];
  std::size_t result_bytes = 0;
  switch (node.kind) {
    case NodeKind::to_bfloat16: return convert(index);
    case NodeKind::concat: return join(index);
    case NodeKind::sum: result_bytes = fold<Sum>(node.element, bytes_, result); break;
    case NodeKind::largest: result_bytes = fold<Largest>(node.element, bytes_, result); break;
    case NodeKind::smallest: result_bytes = fold<Smallest>(node.element, bytes_, result); break;
    case NodeKind::count: result_bytes = fold<Count>(node.element, bytes_, result); break;
    default: return false;
  }
  return result_bytes != 0 && take_prefix(index, result, result_bytes);
}

}  // namespace stoker
