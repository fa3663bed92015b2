#include "lib/pickle/document.h"

namespace uckpt::pickle {

std::span<const uint32_t> Document::links(const Node& node) const {
  if (node.kind < Kind::kList || node.kind > Kind::kDict) return {};
  const size_t count = node.kind == Kind::kDict ? size_t{node.c} * 2 : node.c;
  return {links_.data() + node.a, count};
}

ByteSpan Document::bytes_of(const Node& node) const {
  const Bytes& home = node.flags & kDecoded ? decoded_ : *pickle_;
  return {home.data() + node.a, node.b};
}

std::string_view Document::text_of(const Node& node) const {
  const ByteSpan bytes = bytes_of(node);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

const Global* Document::global_of(uint32_t id) const {
  const Node* node = &nodes_[id];
  if (is_call(node->kind)) node = &nodes_[node->a];
  return node->kind == Kind::kGlobal ? &globals_[node->a] : nullptr;
}

uint32_t Document::child(uint32_t id, uint32_t i) const {
  const Node& node = nodes_[id];
  switch (node.kind) {
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kSet:
    case Kind::kFrozenSet:
    case Kind::kDict: {
      const auto below = links(node);
      if (i < below.size()) return below[i];
      if (node.kind != Kind::kDict) return kNoNode;
      const uint32_t parts[] = {node.d, node.b};  // state, factory
      i -= static_cast<uint32_t>(below.size());
      for (uint32_t part : parts)
        if (part != kNoNode && i-- == 0) return part;
      return kNoNode;
    }
    case Kind::kCall:
    case Kind::kObject: {
      // Absent parts are skipped, so that the first kNoNode is the end.
      const uint32_t parts[] = {node.a, node.b, is_folded(node) ? kNoNode : node.c, node.d};
      for (uint32_t part : parts)
        if (part != kNoNode && i-- == 0) return part;
      return kNoNode;
    }
    case Kind::kPersistent:
      return i == 0 ? node.a : kNoNode;
    default:
      return kNoNode;
  }
}

const Global* global_of(const Value& value) {
  return value ? value.document()->global_of(value.id()) : nullptr;
}

Known known_of(const Value& value) {
  const Global* global = global_of(value);
  return global ? global->known : Known::kNone;
}

}  // namespace uckpt::pickle
