// Are two trees the same graph? Kinds, values, globals, and which parts are shared.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "lib/base/text.h"
#include "lib/pickle/document.h"

namespace uckpt::pickle {

// Nodes whose identity says nothing: a pickle writes them anew wherever they stand.
inline bool has_no_identity(const Node& node) {
  if (node.kind == Kind::kTuple) return node.c == 0 && container_type(node) == ContainerType::kPlain;
  return node.kind <= Kind::kReal || node.kind == Kind::kGlobal || node.kind == Kind::kPersistent;
}

inline std::string node_text(const Document& doc, uint32_t id) {
  const Node& node = doc.node(id);
  std::string text = cat(static_cast<int>(node.kind), " type ", static_cast<int>(container_type(node)), " ");
  switch (node.kind) {
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kReal:
      return text + cat(node.a, ":", node.b);
    case Kind::kBigInt:
    case Kind::kText:
    case Kind::kBytes:
      return text + std::string(doc.text_of(node));
    case Kind::kGlobal:
      return text + doc.globals()[node.a].full;
    case Kind::kCall:
    case Kind::kObject:
      return text + cat(node.c == kNoNode ? "" : "state ", node.d == kNoNode ? "" : "items");
    default:
      return text + cat(node.c, node.kind == Kind::kDict && node.d != kNoNode ? " state" : "");
  }
}

// What differs first, or nothing.
inline std::string graph_difference(const Value& left, const Value& right) {
  const Document &a = *left.document(), &b = *right.document();
  std::unordered_map<uint32_t, uint32_t> to_b, to_a;
  std::vector<std::pair<uint32_t, uint32_t>> open{{left.id(), right.id()}};
  while (!open.empty()) {
    const auto [x, y] = open.back();
    open.pop_back();
    if (node_text(a, x) != node_text(b, y)) return cat(node_text(a, x), " became ", node_text(b, y));
    if (!has_no_identity(a.node(x))) {
      const auto [there, is_new] = to_b.try_emplace(x, y);
      const auto [back, is_new_too] = to_a.try_emplace(y, x);
      if (there->second != y || back->second != x) return cat("shared otherwise: ", node_text(a, x));
      if (!is_new) continue;
    }
    for (uint32_t i = 0;; ++i) {
      const uint32_t below = a.child(x, i), other = b.child(y, i);
      if ((below == kNoNode) != (other == kNoNode)) return cat("other parts: ", node_text(a, x));
      if (below == kNoNode) break;
      open.emplace_back(below, other);
    }
  }
  return {};
}

}  // namespace uckpt::pickle
