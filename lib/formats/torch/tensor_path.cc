#include "lib/formats/torch/tensor_path.h"

#include <algorithm>
#include <utility>

#include "lib/base/text.h"
#include "lib/pickle/fields.h"
#include "lib/pickle/value_text.h"

namespace uckpt::torch {

namespace {

using pickle::Kind;
using pickle::Value;

// How a child is named in its parent, empty for the parts of a tensor call, which have no names of their own.
std::string part_name(const Value& parent, uint32_t child) {
  if (parent.is_dict()) {
    const size_t entry = child / 2;
    return entry < parent.size() ? pickle::key_text(parent.entry(entry).first) : std::string();
  }
  if (parent.kind() == Kind::kList) return cat(child);
  return {};
}

}  // namespace

std::string path_to(const pickle::Document& document, uint32_t node) {
  struct Step {
    uint32_t id, next;
  };
  std::vector<bool> seen(document.node_count(), false);
  std::vector<Step> path{{document.root().id(), 0}};
  seen[path[0].id] = true;
  while (!path.empty() && path.back().id != node) {
    const uint32_t below = document.child(path.back().id, path.back().next++);
    if (below == pickle::kNoNode) {
      path.pop_back();
    } else if (!seen[below]) {
      seen[below] = true;
      path.push_back({below, 0});
    }
  }
  std::string out;
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    const std::string part = part_name(Value(&document, path[i].id), path[i].next - 1);
    if (!part.empty()) out += cat(out.empty() ? "" : ".", part);
  }
  return out;
}

namespace {

// In a cycle there is no order in which all that is below a node is known before it: from the leaves upwards.
std::vector<uint8_t> nodes_above_in_cycles(const pickle::Document& document,
                                           const std::function<bool(uint32_t)>& is_leaf) {
  std::vector<std::pair<uint32_t, uint32_t>> edges;  // to a node, from the one above it
  std::vector<uint8_t> above(document.node_count());
  std::vector<uint32_t> found;
  for (uint32_t id = 0; id < document.node_count(); ++id) {
    for (uint32_t i = 0; document.child(id, i) != pickle::kNoNode; ++i)
      edges.emplace_back(document.child(id, i), id);
    above[id] = is_leaf(id);
    if (above[id]) found.push_back(id);
  }
  std::ranges::sort(edges);
  while (!found.empty()) {
    const uint32_t id = found.back();
    found.pop_back();
    for (auto at = std::ranges::lower_bound(edges, std::pair(id, uint32_t{0}));
         at != edges.end() && at->first == id; ++at) {
      if (above[at->second]) continue;
      above[at->second] = 1;
      found.push_back(at->second);
    }
  }
  return above;
}

}  // namespace

std::vector<uint8_t> nodes_above(const pickle::Document& document,
                                 const std::function<bool(uint32_t)>& is_leaf) {
  if (document.cyclic()) return nodes_above_in_cycles(document, is_leaf);
  enum : uint8_t { kNew, kOpen, kNo, kYes };
  struct Step {
    uint32_t id, next;
  };
  std::vector<uint8_t> state(document.node_count(), kNew);
  std::vector<Step> path;
  for (uint32_t start = 0; start < document.node_count(); ++start) {
    if (state[start] != kNew) continue;
    state[start] = kOpen;
    path.push_back({start, 0});
    while (!path.empty()) {
      const uint32_t id = path.back().id;
      const uint32_t below = document.child(id, path.back().next++);
      if (below == pickle::kNoNode) {
        if (state[id] == kOpen) state[id] = is_leaf(id) ? kYes : kNo;
        path.pop_back();
        if (!path.empty() && state[id] == kYes) state[path.back().id] = kYes;
      } else if (state[below] == kNew) {
        state[below] = kOpen;
        path.push_back({below, 0});
      } else if (state[below] == kYes) {
        state[id] = kYes;
      }
    }
  }
  for (uint8_t& s : state) s = s == kYes;
  return state;
}

}  // namespace uckpt::torch
