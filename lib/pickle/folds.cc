// The Builder's folds: an object that the folder takes goes away with all that was made for it, but for what
// the memo still names.
#include <algorithm>

#include "lib/pickle/builder.h"

namespace uckpt::pickle {

void Builder::open_fold(uint32_t object, size_t stack_size, size_t kept) {
  constexpr size_t kDeepest = 8;
  const Node& made = node(object);
  if (made.kind != Kind::kObject || made.b != kEmptyTuple || node(made.a).kind != Kind::kGlobal) return;
  const uint32_t global = node(made.a).a;
  for (size_t i = wanted_.size(); i < doc_->globals_.size(); ++i)
    wanted_.push_back(folder_->wants(doc_->globals_[i]));
  if (!wanted_[global] || open_.size() == kDeepest) return;
  open_.push_back({object, *wanted_[global], false, stack_size, kept, doc_->links_.size(),
                   doc_->decoded_.size(), composite_keys_.size()});
}

std::optional<size_t> Builder::ready_fold(uint32_t object, size_t stack_size) {
  if (open_.empty() || open_.back().object != object || open_.back().stack_size != stack_size)
    return std::nullopt;
  return open_.back().kept;
}

bool Builder::fold(std::span<uint32_t> survivors) {
  const OpenFold at = open_.back();
  open_.pop_back();
  const Node& object = node(at.object);
  const bool is_plain = (object.flags & kHasParent) == 0 && object.d == kNoNode;  // in nothing, without items
  if (at.broken || !is_plain || composite_keys_.size() != at.composites) return false;
  if (!factories_.empty() && factories_.back().first >= at.object) return false;
  const auto kept_bytes = mark_survivors(at, survivors);
  if (!kept_bytes || *kept_bytes > doc_->decoded_.size() - at.decoded) return false;
  const auto number = folder_->fold(at.cls, Value(doc_.get(), at.object));
  if (!number) return false;
  drop_keys(at.object);
  move_survivors(at);
  Node& made = node(at.object);
  set_type(at.object, ContainerType::kFolded);
  made.c = *number;
  for (uint32_t& id : survivors)
    if (id > at.object) id = moved_[id - at.object];
  return true;
}

// Which nodes of the fold stay: what the memo has, and the items of that. The bytes they have in common with
// none; nothing, if one of them is not simple enough to be moved.
std::optional<size_t> Builder::mark_survivors(const OpenFold& at, std::span<const uint32_t> survivors) {
  const uint32_t end = doc_->node_count();
  moved_.assign(end - at.object, kNoNode);
  for (const uint32_t id : survivors)
    if (id > at.object) moved_[id - at.object] = id;
  size_t bytes = 0;
  for (uint32_t id = end - 1; id > at.object; --id) {
    const Node& n = node(id);
    if (n.kind == Kind::kGlobal) return std::nullopt;  // others will name it, too
    if (moved_[id - at.object] == kNoNode || is_folded(n)) continue;
    if (n.kind == Kind::kTuple) {
      for (const uint32_t item : doc_->links(n)) {  // they are older
        if (item == at.object) return std::nullopt;
        if (item > at.object) moved_[item - at.object] = item;
      }
    } else if (n.kind > Kind::kBytes) {
      return std::nullopt;
    } else if (n.flags & kDecoded && n.a >= at.decoded) {
      bytes += n.b;
    }
  }
  return bytes;
}

void Builder::drop_keys(uint32_t first) {
  for (uint32_t id = first; id < doc_->node_count(); ++id) {
    if (node(id).kind != Kind::kDict) continue;
    const std::vector<uint32_t> pairs = gather(id);
    for (size_t i = 0; i < pairs.size(); i += 2) {
      if (is_folded(node(pairs[i]))) continue;
      const Key key = key_of(pairs[i]);
      doc_->keys_.erase(*doc_, id, key.node, key.hash);
    }
  }
}

// Nodes, links and bytes keep their order, so that moving them down overwrites nothing still to be moved.
void Builder::move_survivors(const OpenFold& at) {
  std::vector<uint32_t>& links = doc_->links_;
  uint32_t next = at.object + 1;
  size_t link = at.links;
  kept_bytes_.clear();
  for (uint32_t id = next; id < doc_->node_count(); ++id) {
    uint32_t& to = moved_[id - at.object];
    if (to == kNoNode) continue;
    Node n = node(id);
    if (n.kind == Kind::kTuple) {
      const size_t from = n.a;
      n.a = static_cast<uint32_t>(link);
      for (size_t i = 0; i < n.c; ++i) {
        const uint32_t item = links[from + i];
        links[link++] = item > at.object ? moved_[item - at.object] : item;
      }
    } else if (n.kind <= Kind::kBytes && n.flags & kDecoded && n.a >= at.decoded) {
      const auto begin = doc_->decoded_.begin() + n.a;
      n.a = static_cast<uint32_t>(at.decoded + kept_bytes_.size());
      kept_bytes_.insert(kept_bytes_.end(), begin, begin + n.b);
    }
    to = next++;
    node(to) = n;
  }
  doc_->nodes_.resize(next);
  links.resize(link);
  doc_->decoded_.resize(at.decoded);
  doc_->decoded_.insert(doc_->decoded_.end(), kept_bytes_.begin(), kept_bytes_.end());
}

}  // namespace uckpt::pickle
