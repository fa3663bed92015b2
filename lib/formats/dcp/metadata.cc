#include "lib/formats/dcp/metadata.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/rows.h"
#include "lib/pickle/document.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"

namespace uckpt::dcp {

namespace {

using pickle::Kind;
using pickle::Known;
using pickle::Value;

constexpr std::string_view kTorch = "torch.distributed.checkpoint.";
constexpr std::string_view kMegatron = "megatron.core.dist_checkpointing.strategies.torch.MCoreMetadata";

Error malformed(std::string text) { return refused("dcp.metadata", std::move(text)); }

bool is_class(const Value& value, std::string_view module, std::string_view name) {
  std::string_view full = value.kind() == Kind::kObject ? value.global_name() : std::string_view();
  if (full.size() != kTorch.size() + module.size() + 1 + name.size() || !full.starts_with(kTorch))
    return false;
  full.remove_prefix(kTorch.size());
  return full.starts_with(module) && full[module.size()] == '.' && full.ends_with(name);
}

std::string what_is(const Value& value) {
  if (const std::string_view name = value.global_name(); !name.empty()) return cat("a ", escape(name));
  return value && !value.is_none() ? "another value" : "nothing";
}

// Sizes or offsets: a torch.Size or a tuple of integers from 0.
Shape read_sizes(const Value& value, std::string_view what, const pickle::Limits& limits) {
  if (!value.is_sequence())
    throw refused("dcp.size", cat("expected ", what, " as a tuple, found ", what_is(value)));
  if (static_cast<int64_t>(value.size()) > limits.tensor_rank)
    throw refused("limit.tensor_rank", cat("expected a tensor of at most ", limits.tensor_rank,
                                           " dimensions, found ", value.size()));
  Shape out;
  out.reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    const auto n = value.at(i).integer();
    if (!n) throw refused("dcp.size", cat("expected ", what, " as integers, found ", what_is(value.at(i))));
    if (*n < 0) throw refused("dcp.size", cat("expected ", what, " from 0, found ", *n));
    out.push_back(*n);
  }
  return out;
}

// Finds an item of storage_data by key and offsets; the index that MetadataIndex has too is only a hint.
class ItemTable {
 public:
  explicit ItemTable(const Rows& rows) : rows_(rows) {}
  void reserve(size_t items) {
    slots_.assign(std::bit_ceil(items + items / 2 + 1), kFree);
    items_.reserve(items);
  }

  // False if the table has one of this key and these offsets. No more than were reserved.
  bool insert(Rows::Row index, Rows::Row place) {
    rows_.index(index, wanted_);
    uint32_t& slot = slots_[find(wanted_)];
    if (slot != kFree) return false;
    slot = static_cast<uint32_t>(items_.size());
    items_.push_back({index, place});
    return true;
  }
  std::optional<Rows::Place> find(std::string_view key, const Shape* offsets) {
    const auto number = rows_.find_text(key);
    if (!number || items_.empty()) return std::nullopt;
    wanted_.key = *number;
    wanted_.has_offsets = offsets != nullptr;
    offsets ? wanted_.offsets.assign(offsets->begin(), offsets->end()) : wanted_.offsets.clear();
    const uint32_t at = slots_[find(wanted_)];
    return at == kFree ? std::nullopt : std::optional(rows_.place(items_[at].place));
  }

 private:
  static constexpr uint32_t kFree = 0xffffffff;
  struct Item {
    Rows::Row index, place;
  };

  size_t find(const Rows::Index& index) {
    uint64_t hash = pickle::KeyTable::hash_int(index.key, index.has_offsets);
    for (const int64_t n : index.offsets)
      hash = pickle::KeyTable::hash_int(hash ^ static_cast<uint64_t>(n), index.offsets.size());
    const size_t mask = slots_.size() - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
      if (slots_[i] == kFree) return i;
      rows_.index(items_[slots_[i]].index, other_);
      if (other_.key == index.key && other_.has_offsets == index.has_offsets &&
          other_.offsets == index.offsets)
        return i;
    }
  }

  const Rows& rows_;
  std::vector<uint32_t> slots_;  // of items_
  std::vector<Item> items_;
  Rows::Index wanted_, other_;  // scratch
};

class Reader {
 public:
  Reader(const pickle::Document& document, Rows& rows, const pickle::Limits& limits, Metadata& out)
      : root_(document.root()), rows_(rows), limits_(limits), out_(out) {}

  void run() {
    const bool is_torch = is_class(root_, "metadata", "Metadata");
    out_.is_megatron = root_.kind() == Kind::kObject && root_.global_name() == kMegatron;
    if (!is_torch && !out_.is_megatron)
      throw malformed(
          cat("expected an object of class ", kTorch, "metadata.Metadata, found ", what_is(root_)));
    if (const auto text = root_.attribute("version").text()) out_.version = *text;
    read_paths(root_.attribute("planner_data"));
    read_storage(dict_of("storage_data"));
    read_items(dict_of("state_dict_metadata"));
  }

 private:
  Value dict_of(std::string_view name) const {
    const Value value = root_.attribute(name);
    if (!value.is_dict()) throw malformed(cat("expected a dict as ", name, ", found ", what_is(value)));
    return value;
  }

  static std::string key_of(const Value& value) {
    const auto text = value.text();
    if (!text || value.has_surrogates())
      throw malformed(cat("expected the key of an item as text, found ",
                          text ? std::string("text that is no UTF-8") : what_is(value)));
    return std::string(*text);
  }

  // None, or a dict of key to a tuple of texts and integers.
  void read_paths(const Value& given) {
    if (!given.is_dict()) return;
    for (size_t i = 0; i < given.size(); ++i) {
      const auto [key, parts] = given.entry(i);
      std::string name = key_of(key);
      if (!parts.is_sequence())
        throw malformed(cat("expected the path of a key as a tuple, found ", what_is(parts))).in_tensor(name);
      KeyPath path;
      for (size_t p = 0; p < parts.size(); ++p) {
        const Value part = parts.at(p);
        if (const auto index = part.integer())
          path.push_back({cat(*index), true});
        else
          path.push_back({key_of(part), false});
      }
      order_.emplace(name, order_.size());
      out_.stored.paths.emplace(std::move(name), std::move(path));
    }
  }

  // Items name their file by a number in the rows, until one that is there is used: files are in the order of
  // storage_data.
  void number_file(uint32_t name) {
    const auto [at, fresh] = files_.try_emplace(name, static_cast<uint32_t>(out_.stored.files.size()));
    if (fresh) out_.stored.files.push_back(rows_.text(name));
  }
  ItemRange range_of(const Rows::Place& place) const {
    ItemRange out = place.item;
    out.file = files_.at(place.item.file);
    return out;
  }

  // What a stream extension did to the item: "zstd", "zstd, other".
  static std::string transforms_of(const Value& given) {
    if (!given || given.is_none() || (given.is_sequence() && given.size() == 0)) return "";
    std::string out;
    for (size_t i = 0; given.is_sequence() && i < given.size(); ++i)
      out += cat(out.empty() ? "" : ", ", escape(given.at(i).text().value_or("?"), 40));
    return out.empty() ? "?" : out;
  }

  Rows::Row read_place(const Value& info) {
    if (!is_class(info, "filesystem", "_StorageInfo"))
      throw malformed(cat("expected the place of an item as a _StorageInfo, found ", what_is(info)));
    if (const auto row = info.folded()) return *row;
    const auto offset = info.attribute("offset").integer(), length = info.attribute("length").integer();
    if (!offset || !length || *offset < 0 || *length < 0)
      throw malformed("expected the offset and length of an item as integers from 0, found something else");
    const Value path = info.attribute("relative_path");
    if (!path.text()) throw malformed(cat("expected a relative path as text, found ", what_is(path)));
    return rows_.add_place(*path.text(), *offset, *length,
                           transforms_of(info.attribute("transform_descriptors")));
  }

  Rows::Row read_index(const Value& index, const std::string& key) {
    const Value offset = index.attribute("offset");
    if (!offset || offset.is_none()) return rows_.add_index(key, nullptr);
    const Shape offsets = read_sizes(offset, "the offset of an item", limits_);
    return rows_.add_index(key, &offsets);
  }

  void read_storage(const Value& entries) {
    items_.reserve(entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
      const auto [index, info] = entries.entry(i);
      if (!is_class(index, "metadata", "MetadataIndex"))
        throw malformed(cat("expected the key of storage_data as a MetadataIndex, found ", what_is(index)));
      const auto folded = index.folded();
      std::string key = folded ? std::string() : key_of(index.attribute("fqn"));
      try {
        const Rows::Row row = folded ? *folded : read_index(index, key), place = read_place(info);
        number_file(rows_.place(place).item.file);
        if (!items_.insert(row, place)) throw malformed("two items in storage_data have this key and offset");
      } catch (Error& e) {
        if (folded) key = rows_.key_of(*folded);
        throw e.in_tensor(key);
      }
    }
  }

  void read_items(const Value& items) {
    std::vector<std::pair<size_t, size_t>> order;  // place in the state dict, place in the file
    for (size_t i = 0; i < items.size(); ++i) {
      const auto at = order_.find(key_of(items.entry(i).first));
      order.emplace_back(at == order_.end() ? order_.size() : at->second, i);
    }
    std::ranges::sort(order);
    for (const auto& [rank, i] : order) {
      const auto [name, value] = items.entry(i);
      const std::string key = key_of(name);
      try {
        read_item(key, value);
      } catch (Error& e) {
        throw e.in_tensor(key);
      }
    }
  }

  void read_item(const std::string& key, const Value& value) {
    if (is_class(value, "metadata", "TensorStorageMetadata")) return read_tensor(key, value);
    if (!is_class(value, "metadata", "BytesStorageMetadata"))
      throw malformed(cat("expected a tensor's or an object's metadata, found ", what_is(value)));
    const auto at = items_.find(key, nullptr);
    if (!at) throw refused("dcp.no_storage", "the object has no entry in storage_data: it was not saved");
    out_.stored.bytes.push_back({key, range_of(*at), rows_.text(at->transforms), {}});
  }

  void read_properties(const Value& properties, StoredTensor& tensor) const {
    const Value state = properties.state();
    const Value dtype = state.kind() == Kind::kTuple ? state.at(0) : properties.attribute("dtype");
    const Value layout = state.kind() == Kind::kTuple ? state.at(1) : properties.attribute("layout");
    if (!is_class(properties, "metadata", "TensorProperties") || pickle::known_of(dtype) != Known::kDtype)
      throw malformed(cat("expected the properties of a tensor with its type, found ", what_is(dtype)));
    if (const auto known = pickle::global_of(dtype)->dtype)
      tensor.dtype = *known;
    else
      tensor.refusal = cat("values of type ", escape(dtype.global_name()), " cannot be converted");
    const Value layout_name = pickle::known_of(layout) == Known::kGetLayout ? layout.args().at(0) : Value();
    if (layout_name && layout_name.text() != "torch.strided")
      tensor.refusal =
          cat("tensors of layout ", escape(layout_name.text().value_or("?")), " cannot be converted");
  }

  void read_tensor(const std::string& key, const Value& value) {
    StoredTensor tensor;
    tensor.key = key;
    tensor.shape = read_sizes(value.attribute("size"), "the sizes of a tensor", limits_);
    if (!checked_product(tensor.shape))
      throw refused("dcp.size", cat("the elements of a tensor ", shape_text(tensor.shape), " leave 64 bits"));
    read_properties(value.attribute("properties"), tensor);
    const Value chunks = value.attribute("chunks");
    if (!chunks.is_sequence()) throw malformed(cat("expected a list of chunks, found ", what_is(chunks)));
    tensor.chunks.reserve(chunks.size(), tensor.shape.size());
    for (size_t i = 0; i < chunks.size(); ++i) read_chunk(chunks.at(i), tensor);
    out_.stored.tensors.push_back(std::move(tensor));
  }

  void read_chunk(const Value& value, StoredTensor& tensor) {
    if (!is_class(value, "metadata", "ChunkStorageMetadata"))
      throw malformed(cat("expected a chunk of a tensor, found ", what_is(value)));
    Chunk chunk;
    if (const auto row = value.folded()) {
      rows_.chunk(*row, chunk.offsets, chunk.sizes);
    } else {
      chunk.offsets = read_sizes(value.attribute("offsets"), "the offsets of a chunk", limits_);
      chunk.sizes = read_sizes(value.attribute("sizes"), "the sizes of a chunk", limits_);
    }
    const size_t rank = tensor.shape.size();
    bool inside = chunk.offsets.size() == rank && chunk.sizes.size() == rank, empty = false;
    for (size_t d = 0; inside && d < rank; ++d) {
      inside = range_inside(chunk.offsets[d], chunk.sizes[d], tensor.shape[d]);
      empty |= chunk.sizes[d] == 0;
    }
    if (!inside)
      throw refused("dcp.chunk_bounds",
                    cat("a chunk of sizes ", shape_text(chunk.sizes), " at ", shape_text(chunk.offsets),
                        ": expected it inside the tensor ", shape_text(tensor.shape)));
    const auto at = items_.find(tensor.key, &chunk.offsets);
    if (empty) {
      ++tensor.empty_chunks;
      if (at) out_.stored.empties.push_back({tensor.key, range_of(*at)});
      return;
    }
    if (!at)
      throw refused("dcp.no_storage", cat("the chunk at ", shape_text(chunk.offsets),
                                          " has no entry in storage_data: it was not saved"));
    chunk.item = range_of(*at);
    chunk.transforms = rows_.text(at->transforms);
    tensor.chunks.push_back(chunk);
  }

  const Value root_;
  Rows& rows_;
  const pickle::Limits& limits_;
  Metadata& out_;
  std::unordered_map<std::string, size_t> order_;  // of planner_data: that of the state dict
  std::unordered_map<uint32_t, uint32_t> files_;   // by their names' numbers
  ItemTable items_{rows_};
};

// {"version": …, "storage_meta": …, "planner_data": …}
std::string view_of(const Value& root, const pickle::Limits& limits) {
  std::string out = "{";
  for (const std::string_view name : {"version", "storage_meta", "planner_data"}) {
    const Value value = root.attribute(name);
    if (value) out += cat(out.size() > 1 ? ", " : "", "\"", name, "\": ", pickle::to_json(value, limits));
  }
  return out + "}";
}

}  // namespace

Metadata read_metadata(const ByteSource& file, const pickle::Limits& limits, bool want_json) try {
  if (file.size() == 0) throw malformed("the file is empty: the save was never finished");
  if (file.size() > limits.pickle_bytes)
    throw refused("limit.pickle_bytes",
                  cat("expected a pickle of at most ", limits.pickle_bytes, " bytes, found ", file.size()));
  Rows rows(limits);
  const auto document = pickle::parse_folding(
      static_cast<size_t>(file.size()),
      [&](size_t at, std::span<uint8_t> out) { file.read_at(static_cast<int64_t>(at), out); }, rows, limits);
  Metadata out;
  for (const pickle::Global& global : document->globals())
    note_global(out.globals, global.full, global.trust);
  Reader(*document, rows, limits, out).run();
  if (const auto& danger = document->danger())
    out.refusal =
        refused("pickle.dangerous", cat(danger->is_call ? "call of " : "mention of ", escape(danger->global),
                                        " at byte ", danger->at, ": expected data only"))
            .in_file(file.name());
  if (document->cyclic() && !out.refusal)
    out.refusal =
        refused("pickle.cycle", "a value contains itself: it cannot be written out").in_file(file.name());
  if (want_json && !document->cyclic()) out.json = view_of(document->root(), limits);
  return out;
} catch (Error& e) {
  throw e.in_file(file.name());
}

}  // namespace uckpt::dcp
