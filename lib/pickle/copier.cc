// Pickler::copy: a walk over the graph with its own stack.
//
// Lists, dicts and objects are remembered before they are filled, so that what they hold can refer to them.
// Tuples, sets and calls are remembered when they are whole. One that is met inside of its own parts is
// written there once more, as Python's pickler does: inside, the lists and objects on the way are references
// by then, which ends it; outside, what lies on the stack is dropped for what was made inside.
#include <algorithm>
#include <stdexcept>
#include <unordered_set>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/document.h"
#include "lib/pickle/pickler.h"

namespace uckpt::pickle {

namespace {

// A set in a call that it takes part in never ends; real files have one such tuple at a time.
constexpr int kMaxWrittenAgain = 256;

bool is_plain(Kind kind) { return kind <= Kind::kReal || kind == Kind::kGlobal || kind == Kind::kPersistent; }

DictType dict_type(const Node& dict) {
  switch (container_type(dict)) {
    case ContainerType::kOrderedDict:
      return DictType::kOrderedDict;
    case ContainerType::kCounter:
      return DictType::kCounter;
    default:
      return DictType::kPlain;
  }
}

}  // namespace

class Copier {
 public:
  Copier(Pickler& out, const Document& doc, const Pickler::Replace& replace)
      : out_(out), doc_(doc), replace_(replace), memos_(out.copied_[&doc]) {
    memos_.resize(doc.node_count(), Pickler::kNoMemo);
  }

  void run(uint32_t root) {
    write(root);
    while (!path_.empty()) advance();
  }

 private:
  using Phase = Pickler::Phase;
  using Shape = Pickler::Shape;
  struct Step {
    uint32_t id, next;
  };

  void write(uint32_t id);
  bool replaced(uint32_t id, bool plain);
  void write_plain(const Value& value);
  void check_again(uint32_t id);
  void begin(uint32_t id, const Node& node);
  void begin_dict(uint32_t id, const Node& node);
  void begin_call_of(std::string_view module, std::string_view name, size_t args);

  void advance();
  void advance_sequence(const Node& node, uint32_t id, uint32_t i);
  void advance_dict(const Node& node, uint32_t id, uint32_t i);
  void advance_counter(const Node& node, uint32_t id, uint32_t i);
  void advance_call(const Node& node, uint32_t id, uint32_t i);
  void advance_named_call(const Node& node, uint32_t i);
  bool advance_rest(std::span<const uint32_t> links, uint32_t state, uint32_t i);
  bool settle(uint32_t id);
  void leave(uint32_t id);

  Pickler& out_;
  const Document& doc_;
  const Pickler::Replace& replace_;
  std::vector<Pickler::Memo>& memos_;
  std::vector<Step> path_;
  std::unordered_set<uint32_t> open_;  // what cannot be referred to yet; kept for documents with cycles
  int written_again_ = 0;
};

void Copier::write(uint32_t id) {
  const Node& node = doc_.node(id);
  const bool plain = is_plain(node.kind);
  if (!plain) {
    if (memos_[id] != Pickler::kNoMemo) return out_.again(memos_[id]);
  }
  if (replace_ && replaced(id, plain)) return;
  switch (node.kind) {
    case Kind::kText:
      out_.plain_text(doc_.text_of(node));
      memos_[id] = out_.last();
      return;
    case Kind::kBytes:
      if (container_type(node) == ContainerType::kByteArray)
        out_.byte_array(doc_.bytes_of(node));
      else
        out_.bytes(doc_.bytes_of(node));
      memos_[id] = out_.last();
      return;
    case Kind::kTuple:
      if (node.c == 0 && container_type(node) == ContainerType::kPlain) return out_.empty_tuple();
      return begin(id, node);
    case Kind::kList:
    case Kind::kSet:
    case Kind::kFrozenSet:
    case Kind::kDict:
    case Kind::kCall:
    case Kind::kObject:
    case Kind::kPersistent:
      return begin(id, node);
    default:
      return write_plain(Value(&doc_, id));
  }
}

bool Copier::replaced(uint32_t id, bool plain) {
  const size_t frames = out_.frames_.size(), written = out_.out_.size();
  const bool yes = replace_(Value(&doc_, id), out_);
  if (out_.frames_.size() != frames || yes != (out_.out_.size() > written))
    throw std::logic_error("pickler: a replacement is one whole value, or nothing");
  if (yes && !plain) memos_[id] = out_.last();
  return yes;
}

void Copier::write_plain(const Value& value) {
  switch (value.kind()) {
    case Kind::kBool:
      return out_.boolean(*value.boolean());
    case Kind::kInt:
      return out_.integer(*value.integer());
    case Kind::kBigInt:
      return out_.big_integer(*value.bytes());
    case Kind::kReal:
      return out_.real(*value.real());
    case Kind::kGlobal: {
      const Global& global = *global_of(value);
      if (global.trust == GlobalClass::kDangerous)
        throw refused("pickle.dangerous",
                      cat(escape(global.full), ": expected data only, nothing that runs code"));
      return out_.global(global.module(), global.name());
    }
    default:
      return out_.none();
  }
}

// Counts what is met inside of its own parts.
void Copier::check_again(uint32_t id) {
  if (!doc_.cyclic() || open_.insert(id).second) return;
  if (++written_again_ > kMaxWrittenAgain)
    throw refused("pickle.cycle",
                  "a value contains itself in a way that pickle protocol 2 has no words for: it cannot be "
                  "written out");
}

void Copier::begin(uint32_t id, const Node& node) {
  check_again(id);
  path_.push_back({id, 0});
  switch (node.kind) {
    case Kind::kList:
      out_.begin_box(Op::kEmptyList, Shape::kList, node.c == 1);
      memos_[id] = out_.stack_.back();
      return;
    case Kind::kSet:
    case Kind::kFrozenSet:
      begin_call_of("builtins", node.kind == Kind::kSet ? "set" : "frozenset", 1);
      return out_.begin_box(Op::kEmptyList, Shape::kList, node.c == 1);
    case Kind::kTuple:
      if (container_type(node) == ContainerType::kTorchSize) begin_call_of("torch", "Size", 1);
      return out_.begin_tuple(node.c);
    case Kind::kDict:
      return begin_dict(id, node);
    case Kind::kPersistent:
      return out_.begin_persistent();
    default:
      if (container_type(node) == ContainerType::kNamedArguments)
        return begin_call_of("copyreg", "__newobj_ex__", 3);
      return node.kind == Kind::kCall ? out_.begin_call() : out_.begin_object();
  }
}

void Copier::begin_call_of(std::string_view module, std::string_view name, size_t args) {
  out_.begin_call();
  out_.global(module, name);
  out_.begin_tuple(args);
}

void Copier::begin_dict(uint32_t id, const Node& node) {
  const bool single = node.c == 1;
  switch (container_type(node)) {
    case ContainerType::kDefaultDict:
      return begin_call_of("collections", "defaultdict", node.b == kNoNode ? 0 : 1);
    case ContainerType::kCounter:
      if (doc_.cyclic()) {  // it may be in what it holds: made first, then filled
        out_.begin_dict(DictType::kCounter);
        out_.frames_.back().single = single;
        break;
      }
      begin_call_of("collections", "Counter", 1);
      return out_.begin_box(Op::kEmptyDict, Shape::kDict, single);
    case ContainerType::kPlain:
      out_.begin_box(Op::kEmptyDict, Shape::kDict, single);
      break;
    default:
      out_.begin_dict(DictType::kOrderedDict);
      out_.frames_.back().single = single;
  }
  memos_[id] = out_.stack_.back();
}

// One step at what is begun: one more part of it, or its end.
void Copier::advance() {
  const uint32_t id = path_.back().id, i = path_.back().next++;
  const Node& node = doc_.node(id);
  switch (node.kind) {
    case Kind::kDict:
      return advance_dict(node, id, i);
    case Kind::kCall:
    case Kind::kObject:
      return advance_call(node, id, i);
    case Kind::kPersistent:
      if (i == 0) return write(node.a);
      out_.end_persistent();
      return leave(id);
    default:
      return advance_sequence(node, id, i);
  }
}

void Copier::advance_sequence(const Node& node, uint32_t id, uint32_t i) {
  const auto links = doc_.links(node);
  if (i < links.size()) return write(links[i]);
  if (node.kind == Kind::kList) {
    out_.end_list();
    return leave(id);
  }
  if (node.kind == Kind::kTuple && container_type(node) == ContainerType::kPlain) {
    if (memos_[id] != Pickler::kNoMemo) {
      out_.drop_and_get(memos_[id]);
    } else {
      out_.end_tuple();
      memos_[id] = out_.last();
    }
    return leave(id);
  }
  node.kind == Kind::kTuple ? out_.end_tuple() : out_.end_list();
  out_.end_tuple();
  if (settle(id)) return;
  out_.close();
  leave(id);
}

void Copier::advance_dict(const Node& node, uint32_t id, uint32_t i) {
  if (container_type(node) == ContainerType::kDefaultDict) {
    const uint32_t arguments = node.b == kNoNode ? 0 : 1;
    if (i < arguments) return write(node.b);
    if (i == arguments) {
      out_.end_tuple();
      if (!settle(id)) out_.begin_pairs(node.c == 1);
      return;
    }
    i -= arguments + 1;
  }
  if (container_type(node) == ContainerType::kCounter && !doc_.cyclic()) return advance_counter(node, id, i);
  if (advance_rest(doc_.links(node), node.d, i)) return;
  out_.end_dict();
  leave(id);
}

// Made of a dict with all that is in it.
void Copier::advance_counter(const Node& node, uint32_t id, uint32_t i) {
  const auto links = doc_.links(node);
  if (i < links.size()) return write(links[i]);
  if (i == links.size()) {
    out_.end_dict();
    out_.end_tuple();
    settle(id);
    return;
  }
  if (advance_rest({}, node.d, i - static_cast<uint32_t>(links.size()) - 1)) return;
  out_.close();
  leave(id);
}

void Copier::advance_call(const Node& node, uint32_t id, uint32_t i) {
  const bool named = container_type(node) == ContainerType::kNamedArguments;
  const uint32_t parts = named ? doc_.node(node.b).c + 2 : 2;
  if (i < parts) {
    if (named) return advance_named_call(node, i);
    return write(i == 0 ? node.a : node.b);
  }
  const bool has_items = node.d != kNoNode;
  if (i == parts) {
    if (named) out_.end_tuple();
    if (settle(id) || !has_items) return;
    const Node& items = doc_.node(node.d);
    return out_.items(items.kind == Kind::kDict ? Phase::kPairs : Phase::kItems, items.c == 1);
  }
  const auto items = has_items ? doc_.links(doc_.node(node.d)) : std::span<const uint32_t>();
  if (advance_rest(items, node.c, i - parts - 1)) return;
  out_.close();
  leave(id);
}

// The class, a tuple of all arguments but the last, and the last, which is the dict of the named ones.
void Copier::advance_named_call(const Node& node, uint32_t i) {
  const auto args = doc_.links(doc_.node(node.b));
  if (i == 0) return write(node.a);
  if (i == 1) return out_.begin_tuple(args.size() - 1);
  if (i == args.size() + 1) out_.end_tuple();
  write(args[i - 2]);
}

// Items, then the state. False: there is no more.
bool Copier::advance_rest(std::span<const uint32_t> links, uint32_t state, uint32_t i) {
  if (i < links.size()) {
    write(links[i]);
    return true;
  }
  if (i > links.size() || state == kNoNode) return false;
  out_.state();
  write(state);
  return true;
}

// A call was made. True if the same was made inside of its own parts: then that one stands here now.
bool Copier::settle(uint32_t id) {
  if (memos_[id] == Pickler::kNoMemo) {
    memos_[id] = out_.stack_.back();
    open_.erase(id);
    return false;
  }
  out_.drop_and_get(memos_[id]);
  leave(id);
  return true;
}

void Copier::leave(uint32_t id) {
  open_.erase(id);
  path_.pop_back();
}

void Pickler::copy(const Value& value, const Replace& replace) {
  if (!value) throw std::logic_error("pickler: nothing to copy");
  Copier(*this, *value.document(), replace).run(value.id());
}

void Pickler::copy_entries(const Value& dict, std::span<const std::string_view> except,
                           const Replace& replace) {
  if (!dict.is_dict()) throw std::logic_error("pickler: no dict to copy entries of");
  for (size_t i = 0; i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    const auto name = key.text();
    if (name && std::ranges::find(except, *name) != except.end()) continue;
    copy(key, replace);
    copy(value, replace);
  }
}

void Pickler::begin_dict_like(const Value& dict) {
  if (!dict.is_dict()) throw std::logic_error("pickler: nothing to take a dict's type from");
  const Node& node = dict.document()->node(dict.id());
  if (container_type(node) != ContainerType::kDefaultDict) return begin_dict(dict_type(node));
  const Value factory = dict.factory();
  begin_call();
  global("collections", "defaultdict");
  begin_tuple(factory ? 1 : 0);
  if (factory) copy(factory);
  end_tuple();
  begin_pairs(false);
}

}  // namespace uckpt::pickle
