#include "lib/formats/torch/storage_table.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/tensor_path.h"

namespace uckpt::torch {

namespace {

using pickle::Kind;
using pickle::Known;
using pickle::Value;

constexpr size_t kMaxKey = 64;

// A part that our code may not look into: what a call or another persistent id would be.
bool is_opaque(const Value& value) { return is_call(value.kind()) || value.kind() == Kind::kPersistent; }

bool is_storage_class(const Value& cls) {
  if (cls.kind() != Kind::kGlobal) return false;
  const Known known = pickle::known_of(cls);
  return known == Known::kStorage || known == Known::kUntypedStorage;
}

// ('storage', class, key, location, numel) with parts that can be read; others are opaque, not wrong.
bool is_storage_id(const Value& id) {
  if (id.kind() != Kind::kTuple || id.at(0).text() != "storage") return false;
  for (size_t i = 1; i < id.size(); ++i)
    if (is_opaque(id.at(i))) return false;
  return id.at(1).kind() != Kind::kGlobal || is_storage_class(id.at(1));
}

int64_t count_of(const Value& value, std::string_view what) {
  const auto count = value.integer();
  if (!count || *count < 0)
    throw refused("tensor.storage",
                  cat("expected ", what, " of a storage as an integer from 0, found something else"));
  return *count;
}

std::string key_of(const Value& value) {
  const auto key = value.text();
  if (!key) throw refused("tensor.storage", "expected the key of a storage as text, found something else");
  const bool plain = std::ranges::all_of(*key, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
  if (!plain || key->empty() || key->size() > kMaxKey)
    throw refused("tensor.storage_key",
                  cat("expected a storage key of 1 to 64 letters and digits, found ", escape(*key)));
  return std::string(*key);
}

// Bytes of a quantised element; 0 where several share a byte.
int quantised_item(std::string_view name) {
  if (name.ends_with("QInt32Storage")) return 4;
  return name.ends_with("Int8Storage") ? 1 : 0;
}

}  // namespace

StorageTable::StorageTable(const pickle::Document& document, bool legacy) {
  for (uint32_t id = 0; id < document.node_count(); ++id) {
    if (document.node(id).kind != Kind::kPersistent) continue;
    const Value persistent(&document, id);
    if (!is_storage_id(persistent.callable())) continue;
    try {
      read(persistent, legacy);
    } catch (Error& error) {
      throw error.in_tensor(path_to(document, id));
    }
  }
}

void StorageTable::read(const Value& persistent, bool legacy) {
  const Value id = persistent.callable();
  const size_t arity = legacy ? 6 : 5;
  if (id.size() != arity)
    throw refused("tensor.storage", cat("expected a storage id of ", arity, " parts, found ", id.size()));
  if (!is_storage_class(id.at(1)))
    throw refused("tensor.storage", "expected a storage class in a storage id, found something else");
  const pickle::Global& cls = *pickle::global_of(id.at(1));
  Storage storage;
  storage.cls = cls.full;
  storage.key = key_of(id.at(2));
  storage.numel = count_of(id.at(4), "the number of elements");
  storage.untyped = cls.known == Known::kUntypedStorage;
  storage.dtype = cls.dtype;
  storage.item = storage.untyped ? 1 : cls.dtype ? item_size(*cls.dtype) : quantised_item(cls.full);
  if (!storage.untyped && !cls.dtype)
    storage.refusal = cat("quantised values (", cls.full, ") cannot be converted");
  const auto bytes = checked_mul(storage.numel, storage.item);
  if (!bytes)
    throw refused("tensor.storage", cat("a storage of ", storage.numel, " elements leaves 64 bits"));
  storage.bytes = *bytes;
  const uint32_t at = add(std::move(storage));
  refs_.emplace_back(persistent.id(), read_view(at, legacy ? id.at(5) : Value()));
}

uint32_t StorageTable::add(Storage storage) {
  const auto [found, is_new] = by_key_.try_emplace(storage.key, static_cast<uint32_t>(storages_.size()));
  if (is_new) {
    storages_.push_back(std::move(storage));
    return found->second;
  }
  const Storage& before = storages_[found->second];
  if (before.cls != storage.cls || before.numel != storage.numel) {
    throw refused("tensor.storage_conflict",
                  cat("storage ", storage.key, " is given as ", before.numel, " of ", before.cls, " and as ",
                      storage.numel, " of ", storage.cls));
  }
  return found->second;
}

// None, or (key of the view, offset, number of elements) in very old files.
StorageRef StorageTable::read_view(uint32_t storage, const Value& view) const {
  const Storage& root = storages_[storage];
  if (!view || view.is_none()) return {storage, 0, root.numel};
  if (view.kind() != Kind::kTuple || view.size() != 3)
    throw refused("tensor.storage", "expected a storage view of three parts, found something else");
  key_of(view.at(0));
  const StorageRef ref{storage, count_of(view.at(1), "the view's offset"),
                       count_of(view.at(2), "the view's size")};
  if (!range_inside(ref.view_offset, ref.view_numel, root.numel)) {
    throw refused("tensor.out_of_bounds",
                  cat("a view of storage ", root.key, " covers elements ", ref.view_offset, " to ",
                      ref.view_offset, " + ", ref.view_numel, " of ", root.numel));
  }
  return ref;
}

const StorageRef* StorageTable::find(uint32_t node) const {
  const auto found = std::ranges::lower_bound(refs_, node, {}, &std::pair<uint32_t, StorageRef>::first);
  return found != refs_.end() && found->first == node ? &found->second : nullptr;
}

std::string StorageTable::why_opaque(const Value& persistent) {
  const Value id = persistent.callable();
  const auto kind = id.at(0).text();
  if (kind == "storage" && id.at(1).kind() == Kind::kGlobal && !is_storage_class(id.at(1)))
    return cat("storage class ", escape(id.at(1).global_name()), " is not known");
  if (kind == "module") return "a whole module with its source code: only tensors and plain values are read";
  return kind && kind != "storage" ? cat("persistent id of unknown kind ", escape(*kind))
                                   : "persistent id of unknown form";
}

}  // namespace uckpt::torch
