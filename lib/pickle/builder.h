// Builds a Document node by node: what the machine's opcodes mean, without the bytes.
//
// Containers may grow after they were made, so their children lie in chunks that finish() joins. Nothing here
// recurses on the input: depth is counted upwards as nodes are put into others, and only a document whose
// containers were changed after they had a parent (which writers do for cycles alone) is walked once at the
// end.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "lib/base/error.h"
#include "lib/pickle/document.h"
#include "lib/pickle/folder.h"
#include "lib/pickle/place.h"

namespace uckpt::pickle {

class Builder {
 public:
  Builder(std::shared_ptr<const Bytes> pickle, const Limits& limits, const Place& place);
  // Of a pickle that is not all at hand: what it says in bytes is copied.
  Builder(size_t pickle_size, Folder& folder, const Limits& limits, const Place& place);

  // Nodes that every document has.
  static constexpr uint32_t kNone = 0, kTrue = 1, kFalse = 2, kEmptyTuple = 3;

  uint32_t integer(int64_t value);
  // Bytes and where the pickle has them.
  uint32_t big_integer(size_t offset, ByteSpan found);  // little-endian two's complement
  uint32_t real(double value);
  uint32_t text(size_t offset, ByteSpan found);  // checks that it is UTF-8
  uint32_t bytes(size_t offset, ByteSpan found);
  uint32_t byte_array(size_t offset, ByteSpan found);
  uint32_t byte_string(size_t offset, ByteSpan found);  // Python 2 str: text where it is ASCII, else bytes
  uint32_t tuple(std::span<const uint32_t> items) { return fixed(Kind::kTuple, items); }
  uint32_t frozen_set(std::span<const uint32_t> items) { return fixed(Kind::kFrozenSet, items); }
  uint32_t container(Kind kind, ContainerType type = ContainerType::kPlain);  // empty list, set or dict
  void append(uint32_t target, std::span<const uint32_t> items);              // APPEND, APPENDS
  void add_items(uint32_t target, std::span<const uint32_t> items);           // ADDITEMS
  void set_items(uint32_t target, std::span<const uint32_t> pairs);           // keys and values in turn

  void set_protocol(int protocol) { protocol_ = protocol; }
  uint32_t global(std::string_view module, std::string_view name) { return named(module, name, protocol_); }
  uint32_t stack_global(uint32_t module, uint32_t name);
  uint32_t reduce(uint32_t callable, uint32_t args);
  uint32_t new_object(uint32_t cls, uint32_t args, uint32_t keywords = kNoNode);
  uint32_t instance(uint32_t cls, std::span<const uint32_t> args);  // INST, OBJ
  void build(uint32_t target, uint32_t state);
  uint32_t persistent(uint32_t id);

  std::unique_ptr<Document> finish(uint32_t root, size_t end);

  // Folding (folder.h). A fold is open from the NEWOBJ that made an object the folder wants to the BUILD that
  // gives it its state; all nodes made meanwhile are the fold's, unless something older got one.
  void open_fold(uint32_t object, size_t stack_size, size_t kept);
  bool has_open_fold() const { return !open_.empty(); }
  void cut(size_t stack_size) {  // an object that left the stack is not watched any more
    while (!open_.empty() && stack_size < open_.back().stack_size) open_.pop_back();
  }
  // What open_fold was given as `kept`, if the object on top of a stack of that size can be folded now.
  std::optional<size_t> ready_fold(uint32_t object, size_t stack_size);
  // Folds it. `survivors`: nodes that the memo has, which get their new numbers. False: nothing was done.
  bool fold(std::span<uint32_t> survivors);

 private:
  struct OpenFold {
    uint32_t object;
    uint8_t cls;
    bool broken;
    size_t stack_size, kept, links, decoded, composites;
  };
  std::optional<size_t> mark_survivors(const OpenFold& at, std::span<const uint32_t> survivors);
  void drop_keys(uint32_t first);
  void move_survivors(const OpenFold& at);
  struct Key {  // what stands for all keys equal to this one
    uint32_t node;
    uint64_t hash;
  };
  const Node& node(uint32_t id) const { return doc_->nodes_[id]; }
  Node& node(uint32_t id) { return doc_->nodes_[id]; }
  uint32_t add(const Node& node);
  uint32_t span_node(Kind kind, uint8_t flags, size_t offset, ByteSpan found);
  uint32_t add_span(Kind kind, uint8_t flags, size_t offset, size_t size);
  uint32_t decoded(ByteSpan bytes);
  uint32_t share_bytes(const Node& bytes);
  void add_constants();
  uint32_t fixed(Kind kind, std::span<const uint32_t> items);
  uint32_t call(Kind kind, uint32_t callable, uint32_t args);
  void set_type(uint32_t id, ContainerType type);
  void adopt(uint32_t parent, uint32_t child);
  void set_depth(Node& node, uint32_t depth);
  void changed(uint32_t target);
  void link(uint32_t target, std::span<const uint32_t> items, uint32_t count);
  uint32_t hidden_items(uint32_t target, Kind kind);
  void charge(size_t bytes);
  std::vector<uint32_t> gather(uint32_t id) const;
  uint32_t class_of_module(uint32_t id) const;  // kNoNode: it is no module's persistent id
  Key key_of(uint32_t id, int depth = 0);
  Key composite_key(uint32_t id, int depth);
  uint32_t named(std::string_view module, std::string_view name, int protocol);
  uint32_t nested_class(uint32_t callable, uint32_t args);  // kNoNode: it is another call
  void meet_danger(const Global& global, bool is_call);
  void settle_getattr(uint32_t root);

  // REDUCE and NEWOBJ of what we know; kNoNode: no container, keep it as a call.
  uint32_t make_known(Known known, uint32_t args);
  uint32_t make_dict(ContainerType type, std::span<const uint32_t> args);
  uint32_t make_sequence(Known known, std::span<const uint32_t> args);
  uint32_t make_default_dict(std::span<const uint32_t> args);
  uint32_t make_bytes(Known known, std::span<const uint32_t> args);
  uint32_t encode_latin1(uint32_t text);
  uint32_t reconstruct(std::span<const uint32_t> args);
  void check_callable(uint32_t callable, uint32_t args, bool is_call);
  void join_chunks();
  void walk_whole_graph();

  std::unique_ptr<Document> doc_;
  Limits limits_;
  const Place& place_;
  std::unordered_map<std::string, uint32_t> global_nodes_;
  std::unordered_map<uint32_t, Key> composite_keys_;                                          // by node
  std::unordered_multimap<uint64_t, std::pair<uint32_t, std::vector<uint32_t>>> composites_;  // by hash
  std::vector<std::pair<uint32_t, uint32_t>> factories_;  // of defaultdicts
  struct Getattr {
    uint32_t node;
    size_t at;  // where it was first named
  };
  std::vector<Getattr> getattrs_;
  bool has_nested_ = false;
  int protocol_ = 2;
  size_t copied_ = 0;
  bool changed_late_ = false;

  Folder* folder_ = nullptr;
  std::vector<std::optional<uint8_t>> wanted_;  // by global
  std::vector<OpenFold> open_;
  std::vector<uint32_t> moved_;  // scratch: by node of a fold, where it goes; kNoNode for what goes away
  Bytes kept_bytes_;             // scratch
};

}  // namespace uckpt::pickle
