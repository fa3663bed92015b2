// What the tensors and arrays in a pickle are called: one naming rule for the reader and the writer.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/pickle/document.h"

namespace uckpt::torch {

// A tensor or an array at one of its places in the tree.
struct NamedLeaf {
  pickle::Value value;
  pickle::Value parent;  // empty for the root
  // Of `parent`, if it is a dict that has the leaf as the value of an entry.
  std::optional<size_t> entry;
  const std::string& name;  // "model.0.weight"
  bool is_param;            // there are only dicts above it, and no optimizer's
  bool is_numbered;         // `name` has a number behind it: leaves before this one have the name itself
};

enum class WalkEnd : uint8_t { kWhole, kStopped, kLongName };
inline constexpr size_t kMaxName = 64 << 10;

// Walks the tree along everything that holds a leaf; `visit` says whether to go on. Parts that are shared are
// walked at each of their places. Where {"a": {"b": …}, "a.b": …} and the like come to one name, the first
// leaf has it, and those after it are "a.b#2", "a.b#3", …, in the order of the tree.
WalkEnd walk_names(const pickle::Value& root, const std::function<bool(const pickle::Value&)>& is_leaf,
                   const std::function<bool(const NamedLeaf&)>& visit);

// For pickles whose storages are not at hand: what the reader takes for a tensor (also one that it cannot
// read), a storage or an array. One entry a node.
std::vector<uint8_t> leaves_of(const pickle::Document& document);

bool is_rebuild(pickle::Known known);  // a function or class that makes a tensor

}  // namespace uckpt::torch
