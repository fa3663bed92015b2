// The inert tree that a pickle becomes: data only, nothing imported, looked up or called.
//
// Nodes live in one arena (`Document`), `Value` is a cheap handle. The tree is a graph: shared nodes have one
// id, and cycles are possible, so whoever walks it keeps a visited set and an explicit stack.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/tensor/catalog.h"

namespace uckpt::pickle {

enum class Kind : uint8_t {
  kNone,
  kBool,
  kInt,
  kBigInt,  // integers beyond 64 bits keep their little-endian two's-complement bytes
  kReal,
  kText,
  kBytes,
  kList,
  kTuple,
  kSet,
  kFrozenSet,   // torch.Size is a tuple
  kDict,        // dict, OrderedDict, defaultdict, Counter: see type_name()
  kGlobal,      // a class or function named in the file: `collections.OrderedDict`
  kCall,        // REDUCE of something that is no container: callable, args, maybe state and items
  kObject,      // NEWOBJ / NEWOBJ_EX / INST / OBJ: class, args, maybe state and items
  kPersistent,  // a persistent id: callable() is the id
};
inline bool is_call(Kind kind) { return kind == Kind::kCall || kind == Kind::kObject; }

class Document;

class Value {
 public:
  Value() = default;
  Value(const Document* doc, uint32_t id) : doc_(doc), id_(id) {}
  explicit operator bool() const { return doc_ != nullptr; }  // false: "not there"
  uint32_t id() const { return id_; }
  const Document* document() const { return doc_; }

  Kind kind() const;
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_dict() const { return kind() == Kind::kDict; }
  bool is_sequence() const { return kind() == Kind::kList || kind() == Kind::kTuple; }

  // Exact kinds only: an int is no bool, a bool no int. Nothing if the kind differs.
  std::optional<bool> boolean() const;
  std::optional<int64_t> integer() const;
  std::optional<double> real() const;            // kReal only
  std::optional<double> number() const;          // kInt or kReal
  std::optional<std::string_view> text() const;  // UTF-8 or WTF-8, see has_surrogates()
  std::optional<ByteSpan> bytes() const;         // kBytes, kBigInt
  bool has_surrogates() const;                   // kText that cannot be written as UTF-8

  // Sequences and sets: items. Dicts: size() counts pairs.
  size_t size() const;
  Value at(size_t i) const;                       // sequences and sets
  std::pair<Value, Value> entry(size_t i) const;  // dicts, in file order
  Value get(std::string_view text_key) const;     // dicts: the value, or nothing
  Value get_int(int64_t key) const;               // dicts

  // kGlobal: "module.name" (Python 2 module names already mapped). kDict: "dict", "collections.OrderedDict"….
  // kCall, kObject: the same as callable().global_name().
  std::string_view global_name() const;
  GlobalClass global_class() const;  // of kGlobal, or of the callable
  Value callable() const;            // kCall, kObject: the class; kPersistent: the id
  // kCall, kObject: a tuple; named arguments (NEWOBJ_EX), if there are any, are a dict at its end.
  Value args() const;
  Value state() const;                     // what BUILD gave, if anything (also on dicts)
  std::optional<uint32_t> folded() const;  // kObject: the number that a folder gave it in place of its state
  Value factory() const;                   // of a defaultdict, if it has one
  // kObject / kCall / argparse.Namespace-like: the attribute from a BUILD dict (or the dict of a
  // (dict, slots) pair), or nothing.
  Value attribute(std::string_view name) const;
  // kCall, kObject: what SETITEMS or APPENDS gave to an unknown class; appended items have no key.
  size_t item_count() const;
  std::pair<Value, Value> item(size_t i) const;

  bool operator==(const Value& o) const { return doc_ == o.doc_ && id_ == o.id_; }

 private:
  const Document* doc_ = nullptr;
  uint32_t id_ = 0;
};

// `--limit NAME=N` raises these; reaching one is a refusal with the code `limit.NAME`. Others of that kind
// cannot be raised.
struct Limits {
  int64_t pickle_bytes = int64_t{1} << 30;
  int64_t nodes = 64 << 20;
  int64_t depth = 1000;
  int64_t string_bytes = 64 << 20;
  int64_t global_name = 1024;
  int64_t tensor_rank = 64;
  int64_t json_bytes = 256 << 20;                  // of a printed view
  void set(std::string_view name, int64_t value);  // throws trouble for an unknown name
  // The most that the limit of this name can be raised to; nothing if there is none.
  static std::optional<int64_t> most(std::string_view name);
};

}  // namespace uckpt::pickle
