// The storages that a pickle's persistent ids speak of, each once, and where their bytes lie.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/pickle/document.h"
#include "lib/tensor/dtype.h"

namespace uckpt::torch {

struct Storage {
  std::string key;
  std::optional<DType> dtype;  // of its elements; nothing: untyped bytes, or a quantised class
  bool untyped = false;
  std::string refusal;  // why its elements cannot be read, if they cannot
  std::string cls;      // "torch.FloatStorage"
  int64_t numel = 0;    // in elements; bytes if untyped
  int64_t bytes = 0;    // 0 where the class tells no size
  int item = 0;         // bytes an element; 0 where the class tells none
  int64_t offset = -1;  // in the file, once found
  uint32_t record = 0xffffffff;
};

// What one persistent id stands for: a storage, or a view of one in old files.
struct StorageRef {
  uint32_t storage = 0;
  int64_t view_offset = 0;  // in elements
  int64_t view_numel = 0;
};

class StorageTable {
 public:
  // Reads every persistent id of the document. Throws `tensor.storage…` for a storage id with wrong parts,
  // and where one key is given two classes or two counts.
  StorageTable(const pickle::Document& document, bool legacy);

  bool empty() const { return storages_.empty(); }
  std::vector<Storage>& storages() { return storages_; }
  const Storage& storage(const StorageRef& ref) const { return storages_[ref.storage]; }
  // Nothing if the node is no storage of a known kind.
  const StorageRef* find(uint32_t node) const;
  // Why a persistent id is no storage: "a persistent id of kind module".
  static std::string why_opaque(const pickle::Value& persistent);

 private:
  void read(const pickle::Value& persistent, bool legacy);
  uint32_t add(Storage storage);
  StorageRef read_view(uint32_t storage, const pickle::Value& view) const;

  std::vector<Storage> storages_;
  std::map<std::string, uint32_t, std::less<>> by_key_;
  std::vector<std::pair<uint32_t, StorageRef>> refs_;  // by rising node
};

}  // namespace uckpt::torch
