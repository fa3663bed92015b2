#include "lib/formats/dcp/dcp_format.h"

#include <algorithm>
#include <map>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/hugging_face.h"
#include "lib/formats/dcp/items.h"
#include "lib/formats/dcp/merge.h"
#include "lib/formats/dcp/metadata.h"
#include "lib/formats/dcp/naming.h"
#include "lib/formats/dcp/placement.h"
#include "lib/formats/dcp/tiling.h"
#include "lib/formats/torch/guards.h"
#include "lib/formats/torch/name_walk.h"
#include "lib/pickle/numpy.h"

namespace uckpt::dcp {

namespace {

using pickle::Value;

constexpr std::string_view kMetadata = ".metadata";

bool has(const std::vector<std::string>& entries, std::string_view name) {
  return std::ranges::find(entries, name) != entries.end();
}

// `.metadata`; else what each rank kept for itself: `__0.metadata`, `__1.metadata`, ….
std::vector<std::string> metadata_files(const std::vector<std::string>& entries) {
  if (has(entries, kMetadata)) return {std::string(kMetadata)};
  std::vector<std::string> out;
  while (has(entries, cat("__", out.size(), kMetadata))) out.push_back(cat("__", out.size(), kMetadata));
  return out;
}

void check_all_tiled(const Stored& stored, const std::string& path) {
  for (const StoredTensor& tensor : stored.tensors) {
    try {
      check_tiling(tensor.shape, tensor.chunks);
    } catch (Error& e) {
      throw e.in_file(path).in_tensor(tensor.key);
    }
  }
}

// Puts what was read into a catalog.
class Builder {
 public:
  Builder(const OpenOptions& options, Catalog& catalog) : options_(options), catalog_(catalog) {}

  void add_tensors(const Stored& stored, std::vector<std::vector<ItemTensor>>& items,
                   const std::vector<TensorName>& names) {
    for (size_t t = 0; t < stored.tensors.size(); ++t) add_tensor(stored.tensors[t], items[t], names[t]);
  }

  void add_file(std::shared_ptr<ByteSource> file) { files_.push_back(catalog_.add_file(std::move(file))); }

  void add_object(const StoredBytes& stored, const ItemObject& item) {
    Object object{stored.key,         "",       files_[stored.item.file], stored.item.offset,
                  stored.item.length, kNoRecord};
    if (!item.file) {
      if (!stored.transforms.empty()) {
        refuse(refused("dcp.transforms",
                       cat("its bytes went through ", stored.transforms, ", which is not read"))
                   .in_file(item.source->name())
                   .in_tensor(stored.key));
      }
      if (options_.want_objects) object.json = cat("{\"__raw_bytes__\": ", stored.item.length, "}");
      catalog_.objects.push_back(std::move(object));
      return;
    }
    merge(item.file->globals());
    if (item.file->refusal()) refuse(Error(*item.file->refusal()).in_tensor(stored.key));
    add_tensors_inside(stored, *item.file);
    const torch::FileRecord pickle = item.file->pickle_record();
    object.offset = stored.item.offset + pickle.offset;
    object.size = pickle.size;
    if (pickle.crc)
      object.record = add_record(object.file, object.offset, pickle.size, *pickle.crc, pickle.name);
    try {
      if (options_.want_objects) object.json = item.file->json();
    } catch (Error& e) {
      refuse(e.in_file(item.source->name()).in_tensor(stored.key));
    }
    catalog_.objects.push_back(std::move(object));
  }

  void merge(const std::map<std::string, GlobalClass>& globals) {
    for (const auto& [name, trust] : globals) {
      GlobalClass& known = catalog_.globals.try_emplace(name, trust).first->second;
      known = std::max(known, trust);
    }
  }

  void refuse(Error error) {
    if (!catalog_.refusal) catalog_.refusal = std::move(error);
  }

 private:
  uint32_t add_record(FileId file, int64_t offset, int64_t size, uint32_t crc, std::string name) {
    catalog_.records.push_back({offset, size, file, crc, std::move(name)});
    return static_cast<uint32_t>(catalog_.records.size() - 1);
  }

  Tensor& enter(const TensorName& name, DType dtype, const Shape& shape) {
    Tensor& tensor = catalog_.tensors.emplace_back();
    tensor.state = name.state;
    tensor.name = name.name;
    tensor.dtype = dtype;
    tensor.shape = shape;
    tensor.pieces.first = catalog_.piece_mark();
    return tensor;
  }

  void add_tensor(const StoredTensor& stored, std::vector<ItemTensor>& items, const TensorName& name) {
    Tensor& tensor = enter(name, stored.dtype, stored.shape);
    tensor.layout = layout_text(stored);
    tensor.refusal = stored.refusal;
    for (ItemTensor& item : items) {
      merge(item.globals);
      if (item.danger) refuse(*item.danger);
      if (tensor.refusal.empty()) tensor.refusal = item.refusal;
    }
    if (!tensor.refusal.empty() || add_number(tensor, stored, items)) return;
    for (size_t c = 0; c < items.size() && tensor.refusal.empty(); ++c) {
      const Chunk& chunk = stored.item(c);
      torch::TensorInfo as_view;
      as_view.dtype = stored.dtype;
      as_view.shape = chunk.sizes;
      as_view.stride = items[c].stride;
      tensor.refusal = torch::expansion_refusal(as_view, options_.allow_expand);
      std::vector<Axis> box;
      for (size_t d = 0; d < stored.shape.size(); ++d)
        box.push_back({stored.shape[d], chunk.offsets[d], chunk.sizes[d], items[c].stride[d]});
      const FileId file = files_[chunk.item.file];
      const auto& record = items[c].record;
      const uint32_t number =
          record ? add_record(file, record->offset, record->size, *record->crc, record->name) : kNoRecord;
      catalog_.add_piece(file, number, items[c].offset, box, items[c].flags);
    }
    const PieceRange all = catalog_.pieces_since(tensor.pieces.first);
    const auto own = static_cast<uint32_t>(stored.chunks.size());
    tensor.pieces = {all.first, std::min(own, all.count)};
    if (all.count > own)
      tensor.copies.push_back(
          {{all.first + own, all.count - own}, tensor.dtype, false, "replica on another rank"});
  }

  // One value a parameter, a step count: it is read now, as other formats keep it in their pickles.
  bool add_number(Tensor& tensor, const StoredTensor& stored, const std::vector<ItemTensor>& items) {
    constexpr int64_t kSmall = 4096;
    const bool is_state = !is_weight(tensor.state) && tensor.state != state::kOther;
    if (!is_state || !stored.shape.empty() || items.size() != 1 || items[0].flags != kPlain) return false;
    const ItemTensor& item = items[0];
    if (item.record && item.record->size > kSmall) return false;
    const ByteSource& file = *catalog_.files[files_[stored.chunks[0].item.file]];
    if (item.record && options_.check_crc) torch::check_crc(file, *item.record);
    catalog_.add_literal(file.read_range(item.offset, item_size(stored.dtype)), 1);
    tensor.pieces = catalog_.pieces_since(tensor.pieces.first);
    return true;
  }

  // An object may hold tensors of its own: a data loader's state, say.
  void add_tensors_inside(const StoredBytes& stored, const torch::TorchFile& file) {
    const auto is_leaf = [&](const Value& value) { return file.tensor(value).has_value(); };
    std::map<uint32_t, uint32_t> records;
    torch::walk_names(file.root(), is_leaf, [&](const torch::NamedLeaf& leaf) {
      const torch::TensorInfo info = *file.tensor(leaf.value);
      const TensorName name{std::string(state::kOther), cat(stored.key, ".", leaf.name)};
      Tensor& tensor = enter(name, info.dtype, info.shape);
      tensor.layout = "inside an object";
      tensor.refusal =
          info.refusal.empty() ? torch::expansion_refusal(info, options_.allow_expand) : info.refusal;
      if (tensor.refusal.empty()) {
        uint32_t number = kNoRecord;
        if (info.record != kNoRecord) {
          const auto [at, fresh] = records.try_emplace(info.record, kNoRecord);
          const torch::FileRecord& r = file.records()[info.record];
          if (fresh && r.crc)
            at->second =
                add_record(files_[stored.item.file], stored.item.offset + r.offset, r.size, *r.crc, r.name);
          number = at->second;
        }
        catalog_.add_whole(files_[stored.item.file], number, stored.item.offset + info.offset, info.shape,
                           info.stride, info.flags);
        tensor.pieces = catalog_.pieces_since(tensor.pieces.first);
      }
      return ++inside_ < kMostInside;
    });
    if (inside_ >= kMostInside)
      refuse(refused("limit.tensors", "shared parts of the objects show their tensors far too often")
                 .in_file(catalog_.path));
  }

  static constexpr size_t kMostInside = 1 << 20;
  const OpenOptions& options_;
  Catalog& catalog_;
  std::vector<FileId> files_;
  size_t inside_ = 0;
};

// How far training had come, where a number near the root says so.
std::optional<int64_t> iteration_of(const DataFiles& files, const Stored& stored,
                                    const OpenOptions& options) {
  for (const std::string_view wanted : {"iteration", "global_steps", "global_step", "step"}) {
    for (const StoredBytes& b : stored.bytes) {
      const auto path = stored.paths.find(b.key);
      const bool known = path != stored.paths.end() && !path->second.empty();
      const std::string_view last = known ? path->second.back().text : std::string_view(b.key);
      if (last != wanted || (known && path->second.size() > 2)) continue;
      const ItemObject object = open_object(files, b, options);
      const auto n = object.file ? object.file->root().integer() : std::nullopt;
      if (n) return n;
    }
  }
  return std::nullopt;
}

void add_unknown_classes(Catalog& catalog) {
  for (const auto& [name, trust] : catalog.globals)
    if (trust == GlobalClass::kUnknown)
      catalog.warnings.push_back(cat("class ", escape(name), " is not known: kept as plain data"));
}

void read_shard_files(const Target& target, Builder& builder, Catalog& catalog) {
  HuggingFaceShards shards = read_shards(*target.folder, target.entries);
  check_all_tiled(shards.stored, target.path);
  catalog.description = "PyTorch distributed checkpoint (DCP), Hugging Face shards";
  for (auto& file : shards.files) builder.add_file(file);
  const std::vector<TensorName> names = name_tensors(
      shards.stored, [](const std::string&) { return std::nullopt; }, catalog.warnings);
  builder.add_tensors(shards.stored, shards.items, names);
  for (auto& fact : placement_facts(shards.stored)) catalog.facts.push_back(std::move(fact));
  catalog.warnings.push_back(
      "the shards do not say how large the whole tensors are: they are taken to end "
      "where the shards here end");
}

void read_saved(const Target& target, const OpenOptions& options, Builder& builder, Catalog& catalog) {
  Merger merger;
  std::vector<std::pair<std::string, std::string>> views;
  const std::vector<std::string> names_of_files = metadata_files(target.entries);
  catalog.description = "PyTorch distributed checkpoint (DCP)";
  for (size_t rank = 0; rank < names_of_files.size(); ++rank) {
    const std::shared_ptr<InputFile> file = target.folder->open(names_of_files[rank]);
    Metadata metadata = read_metadata(*file, options.limits, options.want_objects);
    if (metadata.is_megatron) catalog.description = "PyTorch distributed checkpoint (DCP) by Megatron";
    builder.merge(metadata.globals);
    if (metadata.refusal) builder.refuse(*metadata.refusal);
    if (rank == 0 && !metadata.version.empty())
      catalog.facts.emplace_back("format version", metadata.version);
    merger.add(std::move(metadata.stored));
    views.emplace_back(names_of_files[rank], std::move(metadata.json));
  }
  Stored stored = std::move(merger).finish();
  if (views.size() > 1) catalog.facts.emplace_back("metadata", cat("of each of ", views.size(), " ranks"));
  check_all_tiled(stored, target.folder->join(names_of_files.front()));
  const DataFiles files(*target.folder, stored);
  for (uint32_t f = 0; f < stored.files.size(); ++f) builder.add_file(files.at(f));
  std::vector<std::vector<ItemTensor>> items = open_chunks(files, stored, options);
  drop_same_objects(stored, files);
  std::map<std::string_view, const StoredBytes*> object_of;
  for (const StoredBytes& b : stored.bytes) object_of.emplace(b.key, &b);
  const auto read_list = [&](const std::string& key) -> std::optional<std::vector<std::string>> {
    const auto at = object_of.find(key);
    if (at == object_of.end()) return std::nullopt;
    const ItemObject item = open_object(files, *at->second, options);
    return item.file ? texts_in(item.file->root()) : std::nullopt;
  };
  const std::vector<TensorName> names = name_tensors(stored, read_list, catalog.warnings);
  builder.add_tensors(stored, items, names);
  for (auto& [name, json] : views) {
    const std::shared_ptr<InputFile> file = target.folder->open(name);
    const int64_t size = file->size();
    catalog.objects.push_back({name, std::move(json), catalog.add_file(file), 0, size, kNoRecord});
  }
  for (const StoredBytes& b : stored.bytes) builder.add_object(b, open_object(files, b, options));
  catalog.iteration = iteration_of(files, stored, options);
  for (auto& fact : placement_facts(stored)) catalog.facts.push_back(std::move(fact));
}

}  // namespace

bool recognises(const Target& target) {
  if (!target.folder) return false;
  if (has(target.entries, "metadata.json")) return false;  // Megatron-core's own
  return !metadata_files(target.entries).empty() || are_shards(target.entries);
}

Catalog read(const Target& target, const OpenOptions& options) {
  if (!target.folder)
    throw refused("dcp.format", "expected the folder of a distributed checkpoint, found a file")
        .in_file(target.path);
  Catalog catalog;
  catalog.kind = "dcp";
  catalog.path = target.path;
  Builder builder(options, catalog);
  if (!metadata_files(target.entries).empty())
    read_saved(target, options, builder, catalog);
  else if (are_shards(target.entries))
    read_shard_files(target, builder, catalog);
  else
    throw refused("dcp.unfinished", "the folder has no `.metadata`: the save was never finished");
  add_unknown_classes(catalog);
  if (catalog.tensors.empty() && !catalog.refusal)
    catalog.refusal = refused("dcp.no_tensors", "the checkpoint holds no tensors").in_file(catalog.path);
  return catalog;
}

}  // namespace uckpt::dcp
