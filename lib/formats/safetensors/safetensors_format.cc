#include "lib/formats/safetensors/safetensors_format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <numeric>

#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/hugging_face/model_reader.h"
#include "lib/formats/safetensors/header.h"
#include "lib/formats/safetensors/sharding_info.h"

namespace uckpt::safetensors {
namespace {

constexpr std::array<std::string_view, 1> kUsual = {"model"};
constexpr hugging_face::WeightFiles kFiles = {
    .code = "safetensors", .what = "safetensors", .ends = ".safetensors", .usual = kUsual};
constexpr std::string_view kDcpVersionKey = "DCP_VERSION";

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

class Reader final : public hugging_face::ModelReader {
 public:
  explicit Reader(const OpenOptions& options) : ModelReader(kFiles, options) {
    catalog_.kind = "safetensors";
  }

 private:
  void add_tensors(std::shared_ptr<ByteSource> file, const std::string& name) override;
  void check_size(uint64_t promised) override;
  void add_tensor(FileId file, const Header& header, Entry&& entry, std::optional<uint64_t> digest);
  void add_metadata(const Header& header, const std::string& origin);

  bool has_boxes_ = false;  // as torch's HuggingFaceStorageWriter says where they begin
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

void Reader::add_tensors(std::shared_ptr<ByteSource> file, const std::string& name) {
  Header header = read_header(*file);
  const FileId id = catalog_.add_file(file);
  if (is_shard_of_rank(header, name) && !catalog_.refusal)
    catalog_.refusal = sharded_save().in_file(file->name());
  has_boxes_ |= header.metadata_value(kShardingKey) != nullptr;
  catalog_.tensors.reserve(catalog_.tensors.size() + header.entries.size());
  const std::vector<uint64_t> digests = digests_in(header);
  for (size_t i = 0; i < header.entries.size(); ++i) {
    Entry& entry = header.entries[i];
    claim(entry.name, *file);
    add_tensor(id, header, std::move(entry), digests.empty() ? std::nullopt : std::optional(digests[i]));
  }
  add_metadata(header, name);
}

// That writer expects whole tensors unless it is told save_distributed: ranks that have parts of them write
// all to the same files, one over the other, and the index counts the bytes of all.
void Reader::check_size(uint64_t promised) {
  uint64_t found = 0;
  for (const Tensor& t : catalog_.tensors) found += static_cast<uint64_t>(bytes_of(t));
  if (!has_boxes_ || found >= promised || catalog_.refusal) return;
  catalog_.refusal =
      refused("safetensors.sharded", cat("the index promises ", promised, " bytes of tensors, found ", found,
                                         ": ranks wrote their parts of the tensors over each other's"))
          .in_file(catalog_.path)
          .hint("save it again, with save_distributed=True or from whole tensors");
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
  if (format != nullptr && file_count() == 1) catalog_.facts.emplace_back("written for", *format);
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

// Tensors are large: their numbers are sorted, and each moves once.
void sort_by_name(std::vector<Tensor>& tensors) {
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

}  // namespace

bool recognises(const Target& target) {
  const auto is_ours = [](std::string_view name) {
    return name.ends_with(kFiles.ends) || kFiles.is_index(name);
  };
  if (target.folder)
    return std::ranges::any_of(target.entries, is_ours) || hugging_face::is_model_cache(target.entries);
  if (is_ours(base_of(target.path))) return true;
  if (target.head.size() < 10) return false;
  const bool plausible = load_le<uint64_t>(target.head.data()) <=
                         static_cast<uint64_t>(std::min(kMaxHeaderBytes, target.file->size() - 8));
  const auto first =
      std::find_if(target.head.begin() + 8, target.head.end(), [](uint8_t c) { return c != ' '; });
  return plausible && first != target.head.end() && *first == '{';
}

Catalog read(const Target& target, const OpenOptions& options) {
  Catalog catalog = Reader(options).read(target);
  sort_by_name(catalog.tensors);
  return catalog;
}

}  // namespace uckpt::safetensors
