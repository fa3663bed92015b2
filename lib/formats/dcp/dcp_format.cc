#include "lib/formats/dcp/dcp_format.h"

#include <algorithm>
#include <map>

#include "lib/base/memory.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/hugging_face.h"
#include "lib/formats/dcp/lost_state.h"
#include "lib/formats/dcp/naming.h"
#include "lib/formats/dcp/placement.h"
#include "lib/formats/dcp/saved.h"
#include "lib/formats/file_path.h"
#include "lib/formats/hugging_face/companions.h"
#include "lib/formats/hugging_face/model_config.h"
#include "lib/formats/not_read.h"
#include "lib/formats/read_number.h"
#include "lib/formats/strangers.h"

namespace uckpt::dcp {

namespace {

// How far training had come, where a number near the root says so.
std::optional<int64_t> iteration_of(const DataFiles& files, const Stored& stored, const Catalog& catalog,
                                    const OpenOptions& options) {
  for (const std::string_view word : kIterationWords) {
    for (const StoredBytes& b : stored.bytes) {
      if (!is_iteration_key(b.key, word)) continue;
      const ItemObject object = open_object(files, b, options);
      const auto n = object.file ? object.file->root().integer() : std::nullopt;
      if (n) return n;
    }
    for (const Tensor& t : catalog.tensors) {  // torchtitan's are tensors
      const bool is_whole = t.dtype == DType::kI64 || t.dtype == DType::kI32;
      if (t.state != state::kOther || !is_iteration_key(t.name, word) || !is_whole || !t.shape.empty() ||
          t.pieces.count != 1)
        continue;
      const Bytes bytes = read_number(catalog, t);
      return t.dtype == DType::kI64 ? load_le<int64_t>(bytes.data()) : load_le<int32_t>(bytes.data());
    }
  }
  return std::nullopt;
}

void add_tensors(CatalogBuilder& builder, const Stored& stored, std::vector<std::vector<ItemTensor>>& items,
                 const std::vector<TensorName>& names) {
  constexpr size_t kWorthTrimming = size_t{8} << 20;
  size_t released = 0;
  builder.reserve(stored);
  for (size_t t = 0; t < stored.tensors.size(); ++t) {
    builder.add_tensor(stored.tensors[t], items[t], names[t].state, names[t].name);
    released += items[t].capacity() * sizeof(ItemTensor);
    release(items[t]);
    if (released > kWorthTrimming) trim_memory(), released = 0;
  }
}

void read_shard_files(const Target& target, CatalogBuilder& builder, Catalog& catalog) {
  HuggingFaceShards shards = read_shards(*target.folder, target.entries);
  check_all_tiled(shards.stored, target.path);
  catalog.description = "PyTorch distributed checkpoint (DCP), Hugging Face shards";
  for (auto& file : shards.files) builder.add_file(file);
  const std::vector<std::string>& own = shards.stored.files;
  warn_of_strangers(
      target.entries, [&](std::string_view name) { return std::ranges::find(own, name) != own.end(); },
      catalog);
  const std::vector<TensorName> names = name_tensors(
      shards.stored, [](const std::string&) { return std::nullopt; }, catalog.warnings);
  add_tensors(builder, shards.stored, shards.items, names);
  // transformers' save_pretrained(distributed_checkpoint=True) leaves a model's configuration beside them.
  const hugging_face::ModelFolder model(*target.folder);
  hugging_face::add_model_config(model, catalog);
  hugging_face::add_companions(model, catalog);
  if (auto lost = lost_rows(shards.stored, catalog.arguments)) catalog.refusal = lost->in_file(target.path);
  for (auto& fact : placement_facts(shards.stored)) catalog.facts.push_back(std::move(fact));
  catalog.warnings.push_back(
      "the shards do not say how large the whole tensors are: they are taken to end "
      "where the shards here end");
}

// FSDP 1 with LOCAL_STATE_DICT: each rank's part of what it made of many parameters. What else it has are the
// same keys on every rank with other values, of which torch keeps the first.
void warn_of_flat_parameters(const Stored& stored, Catalog& catalog) {
  std::vector<std::string_view> flat;
  for (const StoredTensor& t : stored.tensors) {
    const std::string_view key = t.key;
    const std::string_view last = key.substr(key.rfind('.') + 1);
    if (last == "_flat_param" || last == "flat_param") flat.push_back(key);  // the older one
  }
  if (flat.empty()) return;
  catalog.warnings.push_back(
      cat(flat.size(), flat.size() == 1 ? " tensor is a flat parameter" : " tensors are flat parameters",
          " of FSDP: ", escape(flat.front()), flat.size() == 1 ? "" : ", …",
          "; the checkpoint does not tell which parameters lie in them, and of the others and of the "
          "optimizer's states it keeps one rank's part: SHARDED_STATE_DICT saves all"));
}

// A save that took no dict apart has whole state dicts for objects, and no key that names a weight.
void warn_of_whole_dicts(size_t tensors_inside, Catalog& catalog) {
  catalog.warnings.push_back(
      cat(tensors_inside, tensors_inside == 1 ? " tensor lies" : " tensors lie",
          " inside objects, as flatten_state_dict=False leaves them, and are no weights and states here: "
          "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch` makes a torch.save file, of "
          "which they are known"));
}

void read_saved(const Target& target, const OpenOptions& options, CatalogBuilder& builder, Catalog& catalog) {
  Saved saved = open_saved(*target.folder, target.entries, options);
  const Stored& stored = saved.stored;
  const DataFiles& files = *saved.files;
  const bool in_parts = is_of_part(saved.views.front().first);
  catalog.description = cat("PyTorch distributed checkpoint (DCP)", saved.is_megatron ? " by Megatron" : "",
                            in_parts ? ", model and optimizer apart" : "");
  builder.add_saved(saved);
  if (!saved.version.empty()) catalog.facts.emplace_back("format version", saved.version);
  if (saved.views.size() > 1 && !in_parts)
    catalog.facts.emplace_back("metadata", cat("of each of ", saved.views.size(), " ranks"));
  std::map<std::string_view, const StoredBytes*> object_of;
  for (const StoredBytes& b : stored.bytes) object_of.emplace(b.key, &b);
  const auto read_list = [&](const std::string& key) -> std::optional<TextList> {
    const auto at = object_of.find(key);
    if (at == object_of.end()) return std::nullopt;
    const ItemObject item = open_object(files, *at->second, options);
    return item.file ? texts_in(item.file->root()) : std::nullopt;
  };
  const auto read_number = [&](const StoredBytes& object) {
    const ItemObject item = open_object(files, object, options);
    return item.file ? deepspeed::scalar_of(item.file->root()) : std::nullopt;
  };
  warn_of_flat_parameters(stored, catalog);
  const Naming naming = name_all(stored, read_list, read_number, catalog.warnings);
  add_tensors(builder, stored, saved.items, naming.tensors);
  for (const StateNumber& number : naming.numbers) builder.add_state_number(number);
  builder.add_views(*target.folder, saved);
  warn_of_other_files(*target.folder, target.entries, saved, catalog);
  const size_t outside = catalog.tensors.size();
  for (const StoredBytes& b : stored.bytes) builder.add_object(b, open_object(files, b, options));
  const size_t inside = catalog.tensors.size() - outside;
  if (inside > 0 && stored.paths.empty()) warn_of_whole_dicts(inside, catalog);
  catalog.iteration = iteration_of(files, stored, catalog, options);
  for (auto& fact : placement_facts(stored)) catalog.facts.push_back(std::move(fact));
}

// A file that means nothing but in its folder.
bool is_part(const Target& target) {
  const std::string_view name = base_of(target.path);
  return name.ends_with(".distcp") || name == ".metadata" ||
         (name.starts_with("__") && name.ends_with(".metadata"));
}

}  // namespace

bool recognises(const Target& target) {
  if (target.file) return is_part(target);
  // Megatron-core's own have that file.
  if (std::ranges::find(target.entries, "metadata.json") != target.entries.end()) return false;
  return !metadata_files(*target.folder, target.entries).empty() || are_shards(target.entries);
}

Catalog read(const Target& target, const OpenOptions& options) {
  if (target.file && is_part(target)) {
    const Target folder = open_target(parent_of(target.path));
    if (metadata_files(*folder.folder, folder.entries).empty()) throw not_read(folder).in_file(folder.path);
    return read(folder, options);
  }
  if (!target.folder)
    throw refused("dcp.format", "expected the folder of a distributed checkpoint, found a file")
        .in_file(target.path);
  Catalog catalog;
  catalog.kind = "dcp";
  catalog.path = target.path;
  CatalogBuilder builder(options, catalog);
  if (!metadata_files(*target.folder, target.entries).empty())
    read_saved(target, options, builder, catalog);
  else if (are_shards(target.entries))
    read_shard_files(target, builder, catalog);
  else
    throw refused("dcp.unfinished", "the folder has no `.metadata`: the save was never finished");
  catalog.warn_of_unknown_classes();
  if (catalog.tensors.empty() && !catalog.refusal)
    catalog.refusal = refused("dcp.no_tensors", "the checkpoint holds no tensors").in_file(catalog.path);
  return catalog;
}

}  // namespace uckpt::dcp
