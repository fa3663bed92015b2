#include "lib/formats/safetensors/safetensors_format.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/safetensors/header.h"
#include "lib/formats/safetensors/index.h"
#include "lib/formats/safetensors/model_config.h"
#include "lib/formats/safetensors/model_folder.h"
#include "lib/formats/safetensors/sharding_info.h"
#include "lib/formats/strangers.h"

namespace uckpt::safetensors {
namespace {

constexpr std::string_view kFileSuffix = ".safetensors";
constexpr std::string_view kDcpVersionKey = "DCP_VERSION";

std::vector<std::string> with_suffix(const std::vector<std::string>& names, std::string_view suffix) {
  std::vector<std::string> out;
  std::ranges::copy_if(names, std::back_inserter(out),
                       [&](const std::string& n) { return n.ends_with(suffix); });
  return out;
}

// "a, b and 3 more"
std::string some_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  std::string out;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i)
    out += cat(i ? ", " : "", "`", escape(names[i]), "`");
  if (names.size() > kShown) out += cat(" and ", names.size() - kShown, " more");
  return out;
}

Error sharded_save() {
  return refused("safetensors.sharded",
                 "this is one rank's shard of a PyTorch DCP save in Hugging Face format")
      .hint("name the folder that holds all shards");
}

// Without save_distributed, torch's HuggingFaceStorageWriter says of whole tensors, too, where their boxes
// begin. A rank's shard has the rank in its name; the first rank's boxes also begin at zero.
bool is_shard_of_rank(const Header& header, std::string_view name) {
  return header.metadata_value(kShardingKey) != nullptr &&
         (name.starts_with("shard-") || !are_boxes_at_zero(header));
}

// Gathers the files of one checkpoint into a catalog.
class Reader {
 public:
  explicit Reader(const OpenOptions& options) : options_(options) { catalog_.kind = "safetensors"; }

  void add_file(std::shared_ptr<ByteSource> file, const std::string& origin);
  // Holds what was read against what the index promised.
  void check_index(const Index& index);
  void add_config(const ModelFolder& folder) { add_model_config(folder, catalog_); }
  void warn(std::string text) { catalog_.warnings.push_back(std::move(text)); }
  // Of other formats; files of this one are told apart by the index.
  void warn_of_others(const std::vector<std::string>& entries) {
    warn_of_strangers(
        entries, [](std::string_view name) { return name.ends_with(kFileSuffix); }, catalog_);
  }
  Catalog finish(std::string path);

 private:
  void add_tensor(FileId file, const Header& header, Entry&& entry, std::optional<uint64_t> digest);
  void add_metadata(const Header& header, const std::string& origin);
  void sort_by_name();

  const OpenOptions& options_;
  Catalog catalog_;
  int64_t file_count_ = 0;
  std::vector<std::string> origins_;                   // names of the files
  std::unordered_map<std::string, size_t> origin_of_;  // of each tensor, by name: index of its file
};

// Nothing where there are none, or not one for each tensor: then another program changed the file.
std::vector<uint64_t> digests_in(const Header& header) {
  const std::string* text = header.metadata_value(kDigestKey);
  const size_t count = header.entries.size();
  if (text == nullptr || text->size() + 1 != count * (kDigestDigits + 1)) return {};
  std::vector<uint64_t> digests(count);
  for (size_t i = 0; i < count; ++i) {
    const char* digits = text->data() + i * (kDigestDigits + 1);
    const auto [end, error] = std::from_chars(digits, digits + kDigestDigits, digests[i], 16);
    if (error != std::errc() || end != digits + kDigestDigits) return {};
  }
  return digests;
}

void Reader::add_file(std::shared_ptr<ByteSource> file, const std::string& origin) {
  Header header = read_header(*file);
  const FileId id = catalog_.add_file(std::move(file));
  if (is_shard_of_rank(header, origin) && !catalog_.refusal)
    catalog_.refusal = sharded_save().in_file(catalog_.files[id]->name());
  ++file_count_;
  origins_.push_back(origin);
  origin_of_.reserve(origin_of_.size() + header.entries.size());
  catalog_.tensors.reserve(catalog_.tensors.size() + header.entries.size());
  const std::vector<uint64_t> digests = digests_in(header);
  for (size_t i = 0; i < header.entries.size(); ++i) {
    Entry& entry = header.entries[i];
    const auto [at, fresh] = origin_of_.emplace(entry.name, origins_.size() - 1);
    if (!fresh) {
      throw refused("safetensors.duplicate",
                    cat("the tensor is in two files: ", escape(origins_[at->second]), " and ", origin))
          .in_file(catalog_.files[id]->name())
          .in_tensor(entry.name);
    }
    add_tensor(id, header, std::move(entry), digests.empty() ? std::nullopt : std::optional(digests[i]));
  }
  add_metadata(header, origin);
}

void Reader::add_tensor(FileId file, const Header& header, Entry&& entry, std::optional<uint64_t> digest) {
  Tensor tensor;
  tensor.name = std::move(entry.name);
  tensor.state = state::kParam;
  tensor.dtype = entry.dtype;
  tensor.shape = std::move(entry.shape);
  const int64_t numel = numel_of(tensor.shape);
  const uint32_t mark = catalog_.piece_mark();
  if (numel > 0) {
    const int64_t at = header.data_at + entry.begin;
    const uint32_t record =
        digest ? catalog_.add_digest(file, at, bytes_of(tensor), *digest, tensor.path()) : kNoRecord;
    catalog_.add_flat(file, record, at, numel, 0, numel);
  }
  tensor.digest = digest;
  tensor.pieces = catalog_.pieces_since(mark);
  tensor.layout = "whole";
  catalog_.tensors.push_back(std::move(tensor));
}

void Reader::add_metadata(const Header& header, const std::string& origin) {
  const std::string* format = header.metadata_value("format");
  if (format != nullptr && file_count_ == 1) catalog_.facts.emplace_back("written for", *format);
  // Every file by transformers says {"format": "pt"} and no more: that alone is no state worth keeping.
  // Nor are digests, and where boxes begin.
  const auto is_of_the_file = [](const std::string& key) {
    return key == kDigestKey || key == kShardingKey || key == kDcpVersionKey;
  };
  if (std::ranges::all_of(header.metadata, [&](const auto& item) {
        return item.first == "format" || is_of_the_file(item.first);
      }))
    return;
  nlohmann::ordered_json json;
  if (options_.want_objects) {
    for (const auto& [key, value] : header.metadata)
      if (!is_of_the_file(key)) json["__metadata__"][key] = value;
  }
  catalog_.objects.push_back({.origin = origin, .json = options_.want_objects ? json.dump() : ""});
}

void Reader::check_index(const Index& index) {
  for (const auto& [name, shard] : index.shard_of) {
    const auto at = origin_of_.find(name);
    const bool is_there = at != origin_of_.end();
    if (is_there && origins_[at->second] == shard) continue;
    throw refused("safetensors.missing_tensor",
                  cat("the index promises this tensor in ", escape(shard), ": expected it there, found it ",
                      is_there ? cat("in ", escape(origins_[at->second])) : std::string("nowhere")))
        .in_tensor(name);
  }
  std::vector<std::string> extra;
  for (const Tensor& t : catalog_.tensors) {
    if (!index.shard_of.contains(t.name)) extra.push_back(t.name);
  }
  if (!extra.empty()) {
    warn(cat(extra.size(), extra.size() == 1 ? " tensor is" : " tensors are",
             " in the files but not in the index: ", some_of(extra)));
  }
}

// Tensors are large: their numbers are sorted, and each moves once.
void Reader::sort_by_name() {
  std::vector<Tensor>& tensors = catalog_.tensors;
  if (std::ranges::is_sorted(tensors, natural_less, &Tensor::name)) return;
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(
      order, [&](size_t a, size_t b) { return natural_less(tensors[a].name, tensors[b].name); });
  std::vector<Tensor> sorted;
  sorted.reserve(tensors.size());
  for (const size_t i : order) sorted.push_back(std::move(tensors[i]));
  tensors = std::move(sorted);
}

Catalog Reader::finish(std::string path) {
  sort_by_name();
  const bool is_model =
      std::ranges::any_of(catalog_.objects, [](const Object& o) { return o.origin == kConfigName; });
  catalog_.description = is_model           ? "Hugging Face model"
                         : file_count_ == 1 ? "safetensors file"
                                            : "safetensors folder";
  if (file_count_ != 1) catalog_.description += cat(" in ", file_count_, " safetensors files");
  catalog_.path = std::move(path);
  return std::move(catalog_);
}

void check_all_there(const ModelFolder& folder, const Index& index, const std::vector<std::string>& shards) {
  std::vector<std::string> missing;
  for (const std::string& shard : shards) {
    if (!folder.has_file(shard)) missing.push_back(shard);
  }
  if (missing.empty()) return;
  const auto lost = std::ranges::count_if(index.shard_of, [&](const auto& item) {
    return std::ranges::find(missing, item.second) != missing.end();
  });
  throw refused("safetensors.missing_shard",
                cat(some_of(missing), missing.size() == 1 ? " is" : " are", " missing (",
                    shards.size() - missing.size(), " of ", shards.size(), " files are here); ", lost,
                    lost == 1 ? " tensor" : " tensors", " cannot be read"))
      .in_file(folder.path());
}

Catalog read_indexed(const ModelFolder& folder, const std::string& index_name, const OpenOptions& options) {
  const std::shared_ptr<InputFile> index_file = folder.open(index_name);
  const Index index = read_index(*index_file);
  const std::vector<std::string> shards = index.shards();
  check_all_there(folder, index, shards);
  Reader reader(options);
  for (const std::string& shard : shards) reader.add_file(folder.open(shard), shard);
  try {
    reader.check_index(index);
  } catch (Error& e) {
    throw e.in_file(index_file->name());
  }
  std::vector<std::string> left = with_suffix(folder.list(), kFileSuffix);
  std::erase_if(left, [&](const std::string& n) { return std::ranges::find(shards, n) != shards.end(); });
  if (!left.empty()) reader.warn(cat("left out, as ", index_name, " does not name them: ", some_of(left)));
  reader.warn_of_others(folder.list());
  reader.add_config(folder);
  return reader.finish(folder.path());
}

Catalog read_folder(const ModelFolder& folder, const OpenOptions& options) {
  const std::vector<std::string> entries = folder.list();
  const std::vector<std::string> indexes = with_suffix(entries, kIndexSuffix);
  const std::string usual = cat("model", kIndexSuffix);
  if (std::ranges::find(indexes, usual) != indexes.end()) return read_indexed(folder, usual, options);
  if (indexes.size() == 1) return read_indexed(folder, indexes.front(), options);
  if (indexes.size() > 1) {
    throw refused("safetensors.ambiguous", cat("the folder holds several models: ", some_of(indexes)))
        .in_file(folder.path())
        .hint("name one of these index files instead of the folder");
  }
  std::vector<std::string> files = with_suffix(entries, kFileSuffix);
  const std::string single = cat("model", kFileSuffix);
  Reader reader(options);
  if (std::erase(files, single) > 0) {
    if (!files.empty()) reader.warn(cat("left out, as there is no index: ", some_of(files)));
    files = {single};
  }
  if (files.size() != 1) {
    throw refused("safetensors.no_index", cat("expected one safetensors file or an index `*", kIndexSuffix,
                                              "`, found ", files.size(), " files without an index"))
        .in_file(folder.path())
        .hint("name one of the files, or fetch the index that belongs to them");
  }
  reader.add_file(folder.open(files.front()), files.front());
  reader.warn_of_others(entries);
  reader.add_config(folder);
  return reader.finish(folder.path());
}

// The path of the index beside `model-00001-of-00002.safetensors`, told from names alone: in a cache of
// Hugging Face it is a link to elsewhere. Nothing for a file that is no shard.
std::string index_of_shard(const std::string& path) {
  const std::string_view name = base_of(path);
  const size_t of = name.rfind("-of-"), dash = of == name.npos ? of : name.rfind('-', of - 1);
  if (of == name.npos || of == 0 || dash == name.npos) return {};
  const std::string index = cat(name.substr(0, dash), kIndexSuffix), parent = parent_of(path);
  const std::vector<std::string> entries = InputFolder(parent).list();
  if (std::ranges::find(entries, index) == entries.end()) return {};
  return path.substr(0, path.size() - name.size()) + index;
}

}  // namespace

bool recognises(const Target& target) {
  const auto has = [&](std::string_view suffix) {
    return std::ranges::any_of(target.entries, [&](const std::string& n) { return n.ends_with(suffix); });
  };
  if (target.folder) return has(kIndexSuffix) || has(kFileSuffix) || is_model_cache(target.entries);
  if (target.path.ends_with(kFileSuffix) || target.path.ends_with(kIndexSuffix)) return true;
  if (target.head.size() < 10) return false;
  const bool plausible = load_le<uint64_t>(target.head.data()) <=
                         static_cast<uint64_t>(std::min(kMaxHeaderBytes, target.file->size() - 8));
  const auto first =
      std::find_if(target.head.begin() + 8, target.head.end(), [](uint8_t c) { return c != ' '; });
  return plausible && first != target.head.end() && *first == '{';
}

Catalog read(const Target& target, const OpenOptions& options) {
  if (target.folder) {
    if (const auto place = place_in_cache(target.path)) {
      const InputFolder root(place->root);
      return read_folder(ModelFolder(root, place->inside), options);
    }
    const bool cached = is_model_cache(target.entries);
    return read_folder(cached ? ModelFolder::in_cache(*target.folder) : ModelFolder(*target.folder), options);
  }
  const std::string name(base_of(target.path));
  if (name.ends_with(kIndexSuffix)) {
    const std::string parent = parent_of(target.path);
    const auto place = place_in_cache(parent);
    const InputFolder root(place ? place->root : parent);
    return read_indexed(place ? ModelFolder(root, place->inside) : ModelFolder(root), name, options);
  }
  Reader reader(options);
  reader.add_file(target.file, name);
  if (const std::string index = index_of_shard(target.path); !index.empty())
    reader.warn(cat("this is one shard of a larger model, and the others are not read: name ", escape(index),
                    " for all of it"));
  return reader.finish(target.path);
}

}  // namespace uckpt::safetensors
