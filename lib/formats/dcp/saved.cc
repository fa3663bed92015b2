#include "lib/formats/dcp/saved.h"

#include <algorithm>
#include <filesystem>
#include <unordered_set>

#include "lib/base/memory.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/merge.h"
#include "lib/formats/dcp/metadata.h"
#include "lib/formats/dcp/placement.h"
#include "lib/formats/dcp/tiling.h"
#include "lib/formats/strangers.h"
#include "lib/formats/torch/guards.h"
#include "lib/formats/torch/name_walk.h"

namespace uckpt::dcp {

namespace {

using pickle::Value;

constexpr std::string_view kMetadata = ".metadata";

bool has(const std::vector<std::string>& entries, std::string_view name) {
  return std::ranges::find(entries, name) != entries.end();
}

// The one folder of this kind that has a save in it; empty where there is none, or another one.
std::string only_part(const InputFolder& folder, const std::vector<std::string>& entries,
                      std::string_view kind) {
  std::string out;
  for (const std::string& name : entries) {
    if (!name.starts_with(kind) || !name.ends_with('/') || !folder.has_file(cat(name, kMetadata))) continue;
    if (!out.empty()) return {};
    out = name;
  }
  return out;
}

}  // namespace

std::vector<std::string> metadata_files(const InputFolder& folder, const std::vector<std::string>& entries) {
  if (has(entries, kMetadata)) return {std::string(kMetadata)};
  std::vector<std::string> out;
  while (has(entries, cat("__", out.size(), kMetadata))) out.push_back(cat("__", out.size(), kMetadata));
  if (!out.empty()) return out;
  const std::string model = only_part(folder, entries, "pytorch_model_fsdp_");
  const std::string optimizer = only_part(folder, entries, "optimizer_");
  if (model.empty() || optimizer.empty()) return out;
  return {cat(model, kMetadata), cat(optimizer, kMetadata)};
}

bool is_of_part(std::string_view metadata_file) { return metadata_file.ends_with("/.metadata"); }

void warn_of_other_files(const InputFolder& folder, const std::vector<std::string>& entries,
                         const Saved& saved, Catalog& catalog) {
  std::unordered_set<std::string_view> own = {"common.pt"};  // Megatron's, in a folder that torch reads too
  for (const std::string& name : saved.stored.files) own.insert(name);
  for (const auto& [name, json] : saved.views) own.insert(name);
  const auto is_empty = [&](std::string_view name) {
    std::error_code error;  // where it cannot be told, it is a stranger
    return name.ends_with(".distcp") && std::filesystem::file_size(folder.join(name), error) == 0;
  };
  warn_of_strangers(
      entries, [&](std::string_view name) { return own.contains(name) || is_empty(name); }, catalog);
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

Saved open_saved(const InputFolder& folder, const std::vector<std::string>& entries,
                 const OpenOptions& options) {
  Saved out;
  Merger merger;
  const std::vector<std::string> names = metadata_files(folder, entries);
  if (names.empty())
    throw refused("dcp.unfinished", "the folder has no `.metadata`: the save was never finished")
        .in_file(folder.path());
  for (size_t rank = 0; rank < names.size(); ++rank) {
    const std::shared_ptr<InputFile> file = folder.open(names[rank]);
    Metadata metadata = read_metadata(*file, options.limits, options.want_objects);
    out.is_megatron |= metadata.is_megatron;
    merge_globals(out.globals, metadata.globals);
    if (metadata.refusal && !out.refusal) out.refusal = metadata.refusal;
    if (rank == 0) out.version = metadata.version;
    const std::string part = names[rank].substr(0, names[rank].rfind('/') + 1);
    for (std::string& data_file : metadata.stored.files) data_file.insert(0, part);
    merger.add(std::move(metadata.stored));
    out.views.emplace_back(names[rank], std::move(metadata.json));
  }
  out.stored = std::move(merger).finish();
  trim_memory();  // what reading took
  check_all_tiled(out.stored, folder.join(names.front()));
  out.files = std::make_unique<DataFiles>(folder, out.stored);
  OpenedChunks opened = open_chunks(*out.files, out.stored, options);
  out.items = std::move(opened.items);
  merge_globals(out.globals, opened.globals);
  trim_memory();  // what opening took
  drop_same_objects(out.stored, *out.files);
  return out;
}

void CatalogBuilder::add_saved(const Saved& saved) {
  merge_globals(catalog_.globals, saved.globals);
  if (saved.refusal) refuse(*saved.refusal);
  for (uint32_t f = 0; f < saved.stored.files.size(); ++f) add_file(saved.files->at(f));
}

void CatalogBuilder::add_views(const InputFolder& folder, Saved& saved) {
  for (auto& [name, json] : saved.views) {
    const std::shared_ptr<InputFile> file = folder.open(name);
    const int64_t size = file->size();
    catalog_.objects.push_back({name, std::move(json), catalog_.add_file(file), 0, size, kNoRecord});
  }
}

void CatalogBuilder::add_object(const StoredBytes& stored, const ItemObject& item, bool tensors_inside) {
  Object object{stored.key, "", files_[stored.item.file], stored.item.offset, stored.item.length, kNoRecord};
  if (!item.file) {
    if (!stored.transforms.empty()) {
      refuse(
          refused("dcp.transforms", cat("its bytes went through ", stored.transforms, ", which is not read"))
              .in_file(item.source->name())
              .in_tensor(stored.key)
              .hint("torch.distributed.checkpoint loads it; saved again without extensions it can be read"));
    }
    if (options_.want_objects) object.json = cat("{\"__raw_bytes__\": ", stored.item.length, "}");
    catalog_.objects.push_back(std::move(object));
    return;
  }
  merge_globals(catalog_.globals, item.file->globals());
  if (item.file->refusal()) refuse(Error(*item.file->refusal()).in_tensor(stored.key));
  if (tensors_inside) add_tensors_inside(stored, *item.file);
  const torch::FileRecord pickle = item.file->pickle_record();
  object.offset = stored.item.offset + pickle.offset;
  object.size = pickle.size;
  if (pickle.crc)
    object.record = catalog_.add_record(object.file, object.offset, pickle.size, *pickle.crc, pickle.name);
  try {
    if (options_.want_objects) object.json = item.file->json();
  } catch (Error& e) {
    refuse(e.in_file(item.source->name()).in_tensor(stored.key));
  }
  catalog_.objects.push_back(std::move(object));
}

Tensor& CatalogBuilder::enter(std::string_view state, const std::string& name, DType dtype,
                              const Shape& shape) {
  Tensor& tensor = catalog_.tensors.emplace_back();
  tensor.state = state;
  tensor.name = name;
  tensor.dtype = dtype;
  tensor.shape = shape;
  tensor.pieces.first = catalog_.piece_mark();
  return tensor;
}

void CatalogBuilder::reserve(const Stored& stored) {
  size_t pieces = 0, axes = 0;
  for (const StoredTensor& t : stored.tensors) {
    pieces += t.item_count();
    axes += t.item_count() * t.shape.size();
  }
  const auto reserve_more = [](auto& list, size_t count) {
    list.reserve(list.size() + count + count / 64 + 64);  // objects have a few, too
  };
  reserve_more(catalog_.pieces, pieces);
  reserve_more(catalog_.records, pieces);
  reserve_more(catalog_.axes, axes);
}

CatalogBuilder::Place CatalogBuilder::place(uint32_t data_file, ItemTensor& item) {
  const FileId file = files_[data_file];
  if (item.is_checked() && item.number == kNoRecord)
    item.number = catalog_.add_record(file, item.record_offset(), item.form->record_size, item.record_crc,
                                      item.form->record_name);
  return {file, item.number, item.offset, item.form->flags};
}

std::string CatalogBuilder::refusal_of(const StoredTensor& stored, const std::vector<ItemTensor>& items) {
  std::string out = stored.refusal;
  for (const ItemTensor& item : items) {
    const ItemTrouble* trouble = item.trouble();
    if (!trouble) continue;
    if (trouble->danger) refuse(*trouble->danger);
    if (out.empty()) out = trouble->refusal;
  }
  for (size_t c = 0; c < items.size() && out.empty(); ++c) {
    torch::TensorInfo as_view;
    as_view.dtype = stored.dtype;
    as_view.shape = stored.item(c).sizes;
    as_view.stride = items[c].stride();
    out = torch::expansion_refusal(as_view, options_.allow_expand);
  }
  return out;
}

void CatalogBuilder::add_tensor(const StoredTensor& stored, std::vector<ItemTensor>& items,
                                const std::string& state, const std::string& name) {
  std::string refusal = refusal_of(stored, items);
  Tensor& tensor = enter(state, name, stored.dtype, stored.shape);
  tensor.layout = layout_text(stored);
  tensor.refusal = std::move(refusal);
  if (!tensor.refusal.empty() || add_number(tensor, stored, items)) return;
  for (size_t c = 0; c < items.size(); ++c) {
    const Chunk& chunk = stored.item(c);
    std::vector<Axis> box;
    for (size_t d = 0; d < stored.shape.size(); ++d)
      box.push_back({stored.shape[d], chunk.offsets[d], chunk.sizes[d], items[c].stride()[d]});
    const Place at = place(chunk.item.file, items[c]);
    catalog_.add_piece(at.file, at.record, at.offset, box, at.flags);
  }
  const PieceRange all = catalog_.pieces_since(tensor.pieces.first);
  const auto own = static_cast<uint32_t>(stored.chunks.size());
  tensor.pieces = {all.first, std::min(own, all.count)};
  if (all.count > own)
    tensor.copies.push_back(
        {{all.first + own, all.count - own}, tensor.dtype, false, "replica on another rank"});
}

// One value a parameter, a step count: it is read now, as other formats keep it in their pickles.
bool CatalogBuilder::add_number(Tensor& tensor, const StoredTensor& stored,
                                const std::vector<ItemTensor>& items) {
  constexpr int64_t kSmall = 4096;
  const bool is_state = !is_weight(tensor.state) && tensor.state != state::kOther;
  if (!is_state || !stored.shape.empty() || items.size() != 1 || items[0].form->flags != kPlain) return false;
  const ItemTensor& item = items[0];
  if (item.is_checked() && item.form->record_size > kSmall) return false;
  const ByteSource& file = *catalog_.files[files_[stored.chunks.item(0).file]];
  if (item.is_checked() && options_.check_crc)
    torch::check_crc(file,
                     {item.form->record_name, item.record_offset(), item.form->record_size, item.record_crc});
  catalog_.add_literal(file.read_range(item.offset, item_size(stored.dtype)), 1);
  tensor.pieces = catalog_.pieces_since(tensor.pieces.first);
  return true;
}

void CatalogBuilder::add_state_number(const StateNumber& number) {
  Tensor& tensor = enter(number.name.state, number.name.name, number.value.dtype, number.value.shape);
  tensor.layout = "one number";
  catalog_.add_literal(number.value.span(), 1);
  tensor.pieces = catalog_.pieces_since(tensor.pieces.first);
}

// An object may hold tensors of its own: a data loader's state, say.
void CatalogBuilder::add_tensors_inside(const StoredBytes& stored, const torch::TorchFile& file) {
  const auto is_leaf = [&](const Value& value) { return file.tensor(value).has_value(); };
  std::map<uint32_t, uint32_t> records;
  torch::walk_names(file.root(), is_leaf, [&](const torch::NamedLeaf& leaf) {
    const torch::TensorInfo info = *file.tensor(leaf.value);
    Tensor& tensor = enter(state::kOther, cat(stored.key, ".", leaf.name), info.dtype, info.shape);
    tensor.layout = "inside an object";
    tensor.refusal =
        info.refusal.empty() ? torch::expansion_refusal(info, options_.allow_expand) : info.refusal;
    if (tensor.refusal.empty()) {
      uint32_t number = kNoRecord;
      if (info.record != kNoRecord) {
        const auto [at, fresh] = records.try_emplace(info.record, kNoRecord);
        const torch::FileRecord& r = file.records()[info.record];
        if (fresh && r.crc)
          at->second = catalog_.add_record(files_[stored.item.file], stored.item.offset + r.offset, r.size,
                                           *r.crc, r.name);
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

}  // namespace uckpt::dcp
