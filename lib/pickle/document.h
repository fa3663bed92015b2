// The arena behind `Value`: 20 bytes a node, children in one flat array, texts left in the pickle's own
// bytes.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/pickle/globals.h"
#include "lib/pickle/key_table.h"
#include "lib/pickle/value.h"

namespace uckpt::pickle {

inline constexpr uint32_t kNoNode = 0xffffffff;

// What `a` to `d` hold:
//   kBool a · kInt, kReal 64 bits in a, b · kBigInt, kText, kBytes: offset in a, length in b
//   kList, kTuple, kSet, kFrozenSet, kDict: first link in a, count in c (pairs for dicts); while the pickle
//     is read a is the first chunk and b the last; kDict: state in d, and a defaultdict's factory in b
//   kGlobal index of the global in a · kPersistent the id in a
//   kCall, kObject: callable a, args b, state c, d a hidden kList or kDict of APPENDS or SETITEMS items;
//     of one that a folder took, the folder's number in c
struct Node {
  Kind kind = Kind::kNone;
  uint8_t flags = 0;   // NodeFlags | type << kTypeShift
  uint16_t depth = 0;  // containers inside one another, counted from the leaves
  uint32_t a = 0, b = 0, c = 0, d = kNoNode;

  int64_t wide() const { return static_cast<int64_t>(a | static_cast<uint64_t>(b) << 32); }
  void set_wide(uint64_t v) { a = static_cast<uint32_t>(v), b = static_cast<uint32_t>(v >> 32); }
};
static_assert(sizeof(Node) == 20);

enum NodeFlags : uint8_t {
  kHasParent = 1,   // it is inside something: changing it now may make a cycle
  kScattered = 2,   // its links lie in several chunks
  kDecoded = 4,     // bytes lie in Document::decoded_, not in the pickle
  kSurrogates = 8,  // text with lone surrogates
};
inline constexpr int kTypeShift = 4;
// Which dict, tuple or bytes; of a kObject: the last of its arguments is a dict of named ones, or a folder
// has what it held.
enum class ContainerType : uint8_t {
  kPlain,
  kOrderedDict,
  kDefaultDict,
  kCounter,
  kTorchSize,
  kByteArray,
  kNamedArguments,
  kFolded,
};

// A dangerous global and the opcode that met it.
struct Danger {
  std::string global;
  size_t at;     // byte offset in the pickle
  bool is_call;  // it would have been called
};

class Document {
 public:
  Document(const Document&) = delete;  // Values point here
  Document& operator=(const Document&) = delete;

  Value root() const { return {this, root_}; }
  size_t end() const { return end_; }  // offset of the byte after STOP
  size_t pickle_size() const { return pickle_size_; }
  bool cyclic() const { return cyclic_; }
  const std::vector<Global>& globals() const { return globals_; }
  const std::optional<Danger>& danger() const { return danger_; }

  // The graph, for walkers with their own stack. Node ids are dense: [0, node_count()). Arguments of a call
  // have smaller ids than the call.
  uint32_t node_count() const { return static_cast<uint32_t>(nodes_.size()); }
  const Node& node(uint32_t id) const { return nodes_[id]; }
  // The i-th node below `id`, in file order; kNoNode after the last.
  uint32_t child(uint32_t id, uint32_t i) const;
  std::span<const uint32_t> links(const Node& node) const;  // items, or keys and values in turn
  ByteSpan bytes_of(const Node& node) const;
  std::string_view text_of(const Node& node) const;
  const Global* global_of(uint32_t id) const;  // of a kGlobal node or the callable of a kCall, kObject
  uint32_t find_text(uint32_t dict, std::string_view key) const { return keys_.find_text(*this, dict, key); }
  uint32_t find_int(uint32_t dict, int64_t key) const { return keys_.find_int(*this, dict, key); }

 private:
  friend class Builder;
  explicit Document(std::shared_ptr<const Bytes> pickle)
      : pickle_(std::move(pickle)), pickle_size_(pickle_->size()) {}
  explicit Document(size_t pickle_size) : pickle_size_(pickle_size) {}  // all bytes in decoded_

  std::shared_ptr<const Bytes> pickle_;
  size_t pickle_size_;
  Bytes decoded_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> links_;
  std::vector<Global> globals_;
  KeyTable keys_;
  uint32_t root_ = 0;
  size_t end_ = 0;
  bool cyclic_ = false;
  std::optional<Danger> danger_;
};

inline ContainerType container_type(const Node& node) {
  return static_cast<ContainerType>(node.flags >> kTypeShift);
}
inline bool is_folded(const Node& node) {
  return node.kind == Kind::kObject && container_type(node) == ContainerType::kFolded;
}
// What our code makes of a kGlobal, or of the callable of a kCall or kObject; kNone for anything else.
Known known_of(const Value& value);
const Global* global_of(const Value& value);

}  // namespace uckpt::pickle
