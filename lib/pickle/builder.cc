#include "lib/pickle/builder.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/pickle/utf8.h"
#include "lib/pickle/value_text.h"

namespace uckpt::pickle {

namespace {

constexpr int kMaxKeyDepth = 8;
// While a pickle is read, the children of lists, sets and dicts lie in chunks: next chunk, number of links,
// links. finish() leaves them back to back.
constexpr uint32_t kChunkHead = 2;

bool has_chunks(Kind kind) { return kind == Kind::kList || kind == Kind::kSet || kind == Kind::kDict; }

}  // namespace

Builder::Builder(std::shared_ptr<const Bytes> pickle, const Limits& limits, const Place& place)
    : doc_(new Document(std::move(pickle))), limits_(limits), place_(place) {
  add_constants();
}

Builder::Builder(size_t pickle_size, Folder& folder, const Limits& limits, const Place& place)
    : doc_(new Document(pickle_size)), limits_(limits), place_(place), folder_(&folder) {
  add_constants();
}

void Builder::add_constants() {
  const size_t guess = std::min<size_t>(doc_->pickle_size_ / 8, 1 << 16) + 16;
  doc_->nodes_.reserve(guess);
  doc_->links_.reserve(guess);
  Node node;
  add(node);
  node.kind = Kind::kBool;
  node.a = 1;
  add(node);
  node.a = 0;
  add(node);
  fixed(Kind::kTuple, {});
}

uint32_t Builder::add(const Node& node) {
  std::vector<Node>& nodes = doc_->nodes_;
  if (static_cast<int64_t>(nodes.size()) >= limits_.nodes)
    throw place_.error("limit.nodes", cat("expected at most ", limits_.nodes, " values in one pickle"));
  nodes.push_back(node);
  return static_cast<uint32_t>(nodes.size() - 1);
}

uint32_t Builder::integer(int64_t value) {
  Node node;
  node.kind = Kind::kInt;
  node.set_wide(static_cast<uint64_t>(value));
  return add(node);
}

uint32_t Builder::real(double value) {
  Node node;
  node.kind = Kind::kReal;
  node.set_wide(std::bit_cast<uint64_t>(value));
  return add(node);
}

uint32_t Builder::span_node(Kind kind, uint8_t flags, size_t offset, ByteSpan found) {
  if (static_cast<int64_t>(found.size()) > limits_.string_bytes)
    throw place_.error("limit.string_bytes", cat("expected at most ", limits_.string_bytes,
                                                 " bytes in one value, found ", found.size()));
  if (folder_) {
    flags |= kDecoded;
    offset = decoded(found);
  }
  return add_span(kind, flags, offset, found.size());
}

uint32_t Builder::add_span(Kind kind, uint8_t flags, size_t offset, size_t size) {
  Node node;
  node.kind = kind;
  node.flags = flags;
  node.a = static_cast<uint32_t>(offset);
  node.b = static_cast<uint32_t>(size);
  return add(node);
}

// Keeps bytes that are not the pickle's own.
uint32_t Builder::decoded(ByteSpan bytes) {
  Bytes& out = doc_->decoded_;
  if (out.size() + bytes.size() >= kNoNode)
    throw place_.error("limit.memory", "expected less than 4 GiB of bytes in one pickle");
  const auto at = static_cast<uint32_t>(out.size());
  out.insert(out.end(), bytes.begin(), bytes.end());
  return at;
}

// The same bytes as another value's.
uint32_t Builder::share_bytes(const Node& bytes) {
  return add_span(Kind::kBytes, bytes.flags & kDecoded, bytes.a, bytes.b);
}

uint32_t Builder::big_integer(size_t offset, ByteSpan found) {
  return span_node(Kind::kBigInt, 0, offset, found);
}
uint32_t Builder::bytes(size_t offset, ByteSpan found) { return span_node(Kind::kBytes, 0, offset, found); }

uint32_t Builder::byte_array(size_t offset, ByteSpan found) {
  const uint32_t id = bytes(offset, found);
  set_type(id, ContainerType::kByteArray);
  return id;
}

uint32_t Builder::text(size_t offset, ByteSpan found) {
  const Utf8Check check = check_utf8(found);
  if (check == Utf8Check::kBroken)
    throw place_.error("pickle.utf8", "expected text in UTF-8, found other bytes");
  return span_node(Kind::kText, check == Utf8Check::kSurrogates ? kSurrogates : 0, offset, found);
}

uint32_t Builder::byte_string(size_t offset, ByteSpan found) {
  return span_node(is_ascii(found) ? Kind::kText : Kind::kBytes, 0, offset, found);
}

void Builder::set_depth(Node& node, uint32_t depth) {
  if (depth <= node.depth) return;
  if (depth > limits_.depth)
    throw place_.error("limit.depth", cat("expected values nested at most ", limits_.depth, " deep"));
  node.depth = static_cast<uint16_t>(depth);
}

void Builder::adopt(uint32_t parent, uint32_t child) {
  for (auto at = open_.rbegin(); at != open_.rend() && parent < at->object; ++at) at->broken = true;
  Node& below = node(child);
  below.flags |= kHasParent;
  set_depth(node(parent), below.depth + 1u);
}

void Builder::changed(uint32_t target) {
  if (node(target).flags & kHasParent) changed_late_ = true;
}

void Builder::charge(size_t bytes) {
  copied_ += bytes;
  const size_t allowed = (size_t{64} << 20) + 32 * doc_->pickle_size_;
  if (copied_ > allowed)
    throw place_.error("limit.memory", "the pickle asks for far more memory than its size explains");
}

uint32_t Builder::fixed(Kind kind, std::span<const uint32_t> items) {
  Node made;
  made.kind = kind;
  made.a = static_cast<uint32_t>(doc_->links_.size());
  made.c = static_cast<uint32_t>(items.size());
  made.depth = 1;
  const uint32_t id = add(made);
  for (uint32_t item : items) adopt(id, item);
  doc_->links_.insert(doc_->links_.end(), items.begin(), items.end());
  return id;
}

void Builder::set_type(uint32_t id, ContainerType type) {
  node(id).flags |= static_cast<uint8_t>(static_cast<unsigned>(type) << kTypeShift);
}

uint32_t Builder::container(Kind kind, ContainerType type) {
  Node made;
  made.kind = kind;
  made.a = kNoNode;
  made.depth = 1;
  const uint32_t id = add(made);
  set_type(id, type);
  return id;
}

// Adds links at the end of a container; `count` is what its size grows by (pairs for dicts).
void Builder::link(uint32_t target, std::span<const uint32_t> items, uint32_t count) {
  if (items.empty()) return;
  std::vector<uint32_t>& links = doc_->links_;
  if (links.size() + items.size() + kChunkHead >= kNoNode)
    throw place_.error("limit.references", "expected at most 4 billion references in one pickle");
  Node& box = node(target);
  const auto here = static_cast<uint32_t>(links.size());
  const bool extends_last = box.a != kNoNode && box.b + kChunkHead + links[box.b + 1] == here;
  if (extends_last) {
    links[box.b + 1] += static_cast<uint32_t>(items.size());
  } else {
    links.push_back(kNoNode);
    links.push_back(static_cast<uint32_t>(items.size()));
    if (box.a == kNoNode) {
      box.a = here;
    } else {
      links[box.b] = here;
      box.flags |= kScattered;
    }
    box.b = here;
  }
  box.c += count;
  links.insert(links.end(), items.begin(), items.end());
}

// An unknown class may have been given items (a list or dict subclass): they are kept beside it.
uint32_t Builder::hidden_items(uint32_t target, Kind kind) {
  const Global* global = doc_->global_of(target);
  if (!is_call(node(target).kind) || (global && global->trust == GlobalClass::kKnown))
    throw place_.error("pickle.container", kind == Kind::kDict
                                               ? "expected a dict to put items into, found something else"
                                               : "expected a list to put items into, found something else");
  if (node(target).d == kNoNode) {
    const uint32_t items = container(kind);
    node(target).d = items;
  }
  if (node(node(target).d).kind != kind)
    throw place_.error("pickle.container", "expected items of one kind, found list items and dict items");
  return node(target).d;
}

void Builder::append(uint32_t target, std::span<const uint32_t> items) {
  const uint32_t list = node(target).kind == Kind::kList ? target : hidden_items(target, Kind::kList);
  for (uint32_t item : items) adopt(list, item);
  link(list, items, static_cast<uint32_t>(items.size()));
  if (list != target) adopt(target, list);
  changed(target);
}

void Builder::add_items(uint32_t target, std::span<const uint32_t> items) {
  if (node(target).kind != Kind::kSet)
    throw place_.error("pickle.container", "expected a set to put items into, found something else");
  for (uint32_t item : items) {
    key_of(item);  // refuses what cannot be in a set
    adopt(target, item);
  }
  link(target, items, static_cast<uint32_t>(items.size()));
  changed(target);
}

void Builder::set_items(uint32_t target, std::span<const uint32_t> pairs) {
  if (pairs.size() % 2 != 0)
    throw place_.error("pickle.odd_items", "expected a value for every key, found an odd number of items");
  const uint32_t dict = node(target).kind == Kind::kDict ? target : hidden_items(target, Kind::kDict);
  for (size_t i = 0; i < pairs.size(); i += 2) {
    const Key key = key_of(pairs[i]);
    // Folded keys are for the folder's caller to tell apart.
    if (!is_folded(node(pairs[i])) && !doc_->keys_.insert(*doc_, dict, key.node, key.hash, pairs[i + 1]))
      throw place_.error("pickle.duplicate_key", cat("expected each key once, found ",
                                                     key_text(Value(doc_.get(), pairs[i])), " again"));
    adopt(dict, pairs[i]);
    adopt(dict, pairs[i + 1]);
  }
  link(dict, pairs, static_cast<uint32_t>(pairs.size() / 2));
  if (dict != target) adopt(target, dict);
  changed(target);
}

std::vector<uint32_t> Builder::gather(uint32_t id) const {
  const Node& box = node(id);
  if (!has_chunks(box.kind)) {
    const auto links = doc_->links(box);
    return {links.begin(), links.end()};
  }
  std::vector<uint32_t> all;
  for (uint32_t chunk = box.a; chunk != kNoNode; chunk = doc_->links_[chunk]) {
    const auto begin = doc_->links_.begin() + chunk + kChunkHead;
    all.insert(all.end(), begin, begin + doc_->links_[chunk + 1]);
  }
  return all;
}

Builder::Key Builder::key_of(uint32_t id, int depth) {
  if (is_scalar(*doc_, id)) return {id, scalar_hash(*doc_, id)};
  const Node& key = node(id);
  if (key.kind == Kind::kList || key.kind == Kind::kDict || key.kind == Kind::kSet)
    throw place_.error("pickle.unhashable", "expected a key of fixed value, found a list, set or dict");
  const Global* global = doc_->global_of(id);
  const bool typed = is_call(key.kind) && !is_folded(key) && global && global->trust == GlobalClass::kKnown;
  if (key.kind == Kind::kTuple || typed) return composite_key(id, depth);
  return {id, KeyTable::hash_int(id, 99)};  // globals have one node each; opaque nodes are themselves
}

// Equal tuples (and equal nodes of known classes) get one id, so that comparing them never walks shared parts
// twice.
Builder::Key Builder::composite_key(uint32_t id, int depth) {
  if (const auto found = composite_keys_.find(id); found != composite_keys_.end()) return found->second;
  if (depth >= kMaxKeyDepth)
    throw place_.error("limit.key_depth", cat("expected a key nested at most ", kMaxKeyDepth, " deep"));
  std::vector<uint32_t> parts;
  const Node key = node(id);
  if (key.kind == Kind::kTuple) {
    parts = gather(id);
  } else {
    if (key.c != kNoNode) parts = node(key.c).kind == Kind::kDict ? gather(key.c) : std::vector{key.c};
    parts.insert(parts.begin(), {key.a, key.b});
  }
  uint64_t hash = KeyTable::hash_int(static_cast<uint64_t>(key.kind), parts.size());
  for (uint32_t& part : parts) {
    const Key below = key_of(part, depth + 1);
    part = below.node;
    hash = KeyTable::hash_int(hash, below.hash);
  }
  const auto same = [&](const std::vector<uint32_t>& other) {
    return std::ranges::equal(parts, other, [&](uint32_t a, uint32_t b) {
      return a == b || (is_scalar(*doc_, a) && is_scalar(*doc_, b) && same_scalar(*doc_, a, b));
    });
  };
  const auto [begin, end] = composites_.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (same(it->second.second)) return composite_keys_[id] = {it->second.first, hash};
  composites_.emplace(hash, std::pair(id, std::move(parts)));
  return composite_keys_[id] = {id, hash};
}

// Streams of torch before 1.6 name the class of a module so: ("module", class, source file, source). It is
// the class that a reader gets, to make the object of.
uint32_t Builder::class_of_module(uint32_t id) const {
  if (node(id).kind != Kind::kTuple || node(id).c != 4) return kNoNode;
  const std::vector<uint32_t> parts = gather(id);
  const bool is_module = node(parts[0]).kind == Kind::kText && doc_->text_of(node(parts[0])) == "module" &&
                         node(parts[1]).kind == Kind::kGlobal;
  return is_module ? parts[1] : kNoNode;
}

uint32_t Builder::persistent(uint32_t id) {
  if (const uint32_t cls = class_of_module(id); cls != kNoNode) return cls;
  Node made;
  made.kind = Kind::kPersistent;
  made.a = id;
  made.depth = 1;
  const uint32_t at = add(made);
  adopt(at, id);
  return at;
}

void Builder::build(uint32_t target, uint32_t state) {
  const Kind kind = node(target).kind;
  if (kind != Kind::kDict && !is_call(kind))
    throw place_.error("pickle.build", "expected an object to give attributes to, found something else");
  if (is_folded(node(target)))
    throw place_.error("pickle.build", "expected the attributes of this object once, found them again");
  // A second BUILD keeps both, as (first, second): no writer does it, and nothing may be lost.
  const uint32_t before = kind == Kind::kDict ? node(target).d : node(target).c;
  if (before != kNoNode) state = tuple(std::array{before, state});
  (kind == Kind::kDict ? node(target).d : node(target).c) = state;
  adopt(target, state);
  changed(target);
}

void Builder::join_chunks() {
  std::vector<uint32_t>& links = doc_->links_;
  for (uint32_t id = 0; id < doc_->node_count(); ++id) {
    Node& box = node(id);
    if (!has_chunks(box.kind)) continue;
    box.b = kNoNode;
    if (box.a == kNoNode) {
      box.a = 0;
    } else if (box.flags & kScattered) {
      const std::vector<uint32_t> all = gather(id);
      box.a = static_cast<uint32_t>(links.size());
      links.insert(links.end(), all.begin(), all.end());
    } else {
      box.a += kChunkHead;
    }
  }
  for (const auto& [dict, factory] : factories_) node(dict).b = factory;
  if (links.size() >= kNoNode)
    throw place_.error("limit.references", "expected at most 4 billion references in one pickle");
}

// Depth and cycles of a graph whose containers were changed after they had a parent.
void Builder::walk_whole_graph() {
  constexpr uint16_t kNew = 0xffff, kOpen = 0xfffe;
  std::vector<uint16_t> height(doc_->node_count(), kNew);
  struct Step {
    uint32_t id, next;
    uint16_t below;
  };
  std::vector<Step> path{{doc_->root_, 0, 0}};
  height[doc_->root_] = kOpen;
  while (!path.empty()) {
    if (static_cast<int64_t>(path.size()) > limits_.depth + 1)
      throw place_.error("limit.depth", cat("expected values nested at most ", limits_.depth, " deep"));
    Step& top = path.back();
    const uint32_t below = doc_->child(top.id, top.next++);
    if (below == kNoNode) {
      const auto mine = static_cast<uint16_t>(top.next == 1 ? 0 : top.below + 1);
      height[top.id] = mine;
      path.pop_back();
      if (!path.empty()) path.back().below = std::max(path.back().below, mine);
      if (mine > limits_.depth)
        throw place_.error("limit.depth", cat("expected values nested at most ", limits_.depth, " deep"));
    } else if (height[below] == kNew) {
      height[below] = kOpen;
      path.push_back({below, 0, 0});
    } else if (height[below] == kOpen) {
      doc_->cyclic_ = true;
    } else {
      top.below = std::max(top.below, height[below]);
    }
  }
}

std::unique_ptr<Document> Builder::finish(uint32_t root, size_t end) {
  join_chunks();
  settle_getattr(root);
  doc_->root_ = root;
  doc_->end_ = end;
  if (changed_late_) walk_whole_graph();
  return std::move(doc_);
}

}  // namespace uckpt::pickle
