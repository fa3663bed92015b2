#include "lib/formats/safetensors/safetensors_writer.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/hugging_face/config_writer.h"
#include "lib/formats/plain_names.h"
#include "lib/formats/safetensors/header.h"

namespace uckpt::safetensors {

namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxHeader = 100'000'000;

struct Item {
  uint32_t tensor;
  std::string name;
  DType dtype;
  int64_t bytes;
};

// One file to be.
struct Part {
  std::vector<Item> items;
  int64_t bytes = 0;
};

struct Content {
  std::vector<Item> items;                     // in catalog order
  std::map<std::string, std::string> aliases;  // alias -> name that is written
};

Content content_of(const Catalog& catalog, const WriteRequest& request, TargetLayout& layout) {
  Content out;
  std::unordered_map<uint32_t, std::string> written;  // tensor -> its name in the output
  const std::vector<PlainTensor> taken = plain_tensors(catalog, request, layout.notes);
  for (const PlainTensor& p : taken) {
    const uint32_t index = request.tensors[p.index];
    const Tensor& t = catalog.tensors[index];
    const uint32_t source = t.alias.value_or(index);
    const auto [at, is_new] = written.try_emplace(source, p.name);
    if (!is_new) {
      out.aliases.emplace(p.name, at->second);
      layout.unnamed.push_back(index);
      continue;
    }
    const DType dtype = request.dtype_of(catalog, p.index);
    refuse_metadata_name(catalog, t, p.name);
    if (info(dtype).safetensors.empty())
      throw refused("safetensors.dtype", cat("safetensors files have no type for ", name_of(dtype)))
          .in_file(catalog.path)
          .in_tensor(t.path())
          .hint(way_round(dtype));
    out.items.push_back({source, p.name, dtype, units_of(t) * unit_size(dtype)});
  }
  return out;
}

// Fills one file after the other; a tensor that is larger than a file may be gets one of its own.
std::vector<Part> parts_of(const std::vector<Item>& items, int64_t most) {
  std::vector<Part> parts(1);
  for (const Item& item : items) {
    if (most > 0 && parts.back().bytes > 0 && parts.back().bytes + item.bytes > most) parts.emplace_back();
    parts.back().items.push_back(item);
    parts.back().bytes += item.bytes;
  }
  return parts;
}

// Wider elements first, so that each tensor is aligned, as the reference library does.
void sort_by_width(Part& part) {
  std::ranges::stable_sort(part.items,
                           [](const Item& a, const Item& b) { return bits_of(a.dtype) > bits_of(b.dtype); });
}

std::string numbered(size_t part, size_t parts) {
  char text[64];
  std::snprintf(text, sizeof text, "model-%05zu-of-%05zu.safetensors", part + 1, parts);
  return text;
}

// Room for the digests, which are known last.
std::string digest_places(size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += cat(i > 0 ? " " : "", hex(0, kDigestDigits));
  return text;
}

void check_name(const std::string& name, const Catalog& catalog) {
  if (!valid_utf8(name))
    throw refused("safetensors.name", "its name is not UTF-8, which safetensors files need")
        .in_file(catalog.path)
        .in_tensor(name)
        .hint("leave it out with --drop, or write another kind");
}

// Put together by hand, since the names keep their order and may be a hundred thousand.
std::string header_of(const Catalog& catalog, const Part& part, const Content& content) {
  std::unordered_set<std::string_view> names;
  for (const Item& item : part.items) {
    check_name(item.name, catalog);
    names.insert(item.name);
  }
  Json metadata = {{"format", "pt"}};
  for (const auto& [alias, kept] : content.aliases)
    if (names.contains(kept)) {
      check_name(alias, catalog);
      metadata[alias] = kept;
    }
  metadata.emplace(kDigestKey, digest_places(part.items.size()));  // unless it is a tensor's name
  std::string text = cat(R"({"__metadata__":)", metadata.dump());
  int64_t at = 0;
  for (const Item& item : part.items) {
    const Json entry = {{"dtype", info(item.dtype).safetensors},
                        {"shape", catalog.tensors[item.tensor].shape},
                        {"data_offsets", {at, at + item.bytes}}};
    text += cat(",", Json(item.name).dump(), ":", entry.dump());
    at += item.bytes;
  }
  return text + "}";
}

void add_file(const Catalog& catalog, const Part& part, std::string name, const Content& content,
              TargetLayout& layout) {
  std::string text = header_of(catalog, part, content);
  text.resize(static_cast<size_t>(round_up(static_cast<int64_t>(text.size()), 8)), ' ');
  if (static_cast<int64_t>(text.size()) > kMaxHeader)
    throw refused("safetensors.header", cat("the header would be too long: expected at most ", kMaxHeader,
                                            " bytes, found ", text.size()))
        .in_file(catalog.path)
        .hint("--shard-size cuts the output into several files");
  Bytes start(8 + text.size());
  store_le<uint64_t>(start.data(), text.size());
  std::copy(text.begin(), text.end(), start.begin() + 8);

  const auto file = static_cast<uint32_t>(layout.files.size());
  const std::string digests = cat("\"", kDigestKey, "\":\"");
  const size_t found = text.find(cat(digests, digest_places(part.items.size()), "\""));
  auto digest_at = static_cast<int64_t>(8 + found + digests.size());
  auto offset = static_cast<int64_t>(start.size());
  for (const Item& item : part.items) {
    const uint32_t shard = layout.add_whole_shard(catalog, item.tensor);
    if (found != std::string::npos)
      layout.digests.push_back({static_cast<uint32_t>(layout.holes.size()), digest_at, true});
    digest_at += kDigestDigits + 1;
    layout.holes.push_back({shard, file, offset, 0, layout.shards[shard].numel, item.dtype});
    offset += item.bytes;
  }
  TargetFile& out = layout.files.emplace_back();
  out.name = std::move(name);
  out.size = offset;
  out.fixed.push_back({0, std::move(start)});
}

void add_index(const std::vector<Part>& parts, TargetLayout& layout) {
  int64_t total = 0;
  for (const Part& part : parts) total += part.bytes;
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < parts.size(); ++i)
    for (const Item& item : parts[i].items) weight_map[item.name] = numbered(i, parts.size());
  const Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  const std::string text = index.dump(2) + "\n";
  add_text_file(layout, "model.safetensors.index.json", text);
}

std::map<DType, int64_t> bytes_of_types(const std::vector<Item>& items) {
  std::map<DType, int64_t> out;
  for (const Item& item : items) out[item.dtype] += item.bytes;
  return out;
}

}  // namespace

void refuse_metadata_name(const Catalog& catalog, const Tensor& t, std::string_view name) {
  if (name != "__metadata__") return;
  throw refused("safetensors.name",
                "safetensors files have no tensor named __metadata__: their header has that name itself")
      .in_file(catalog.path)
      .in_tensor(t.path())
      .hint("--drop leaves it out; hdf5, torch and dcp output can hold it");
}

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  TargetLayout layout;
  const Content content = content_of(catalog, request, layout);
  const bool is_file = request.path.ends_with(".safetensors");
  hugging_face::tell_lost_objects(catalog, !is_file, layout.notes);
  std::vector<Part> parts = parts_of(content.items, request.shard_size);
  for (Part& part : parts) sort_by_width(part);
  if (is_file && parts.size() > 1)
    throw trouble("output.name", cat("the tensors fill ", parts.size(), " files: expected a folder to write"))
        .in_file(request.path)
        .hint("a name without .safetensors is a folder's");
  if (parts.size() == 1) {
    add_file(catalog, parts[0], is_file ? "" : "model.safetensors", content, layout);
    if (!is_file) hugging_face::add_model_files(catalog, request, bytes_of_types(content.items), layout);
    return layout;
  }
  for (size_t i = 0; i < parts.size(); ++i)
    add_file(catalog, parts[i], numbered(i, parts.size()), content, layout);
  add_index(parts, layout);
  hugging_face::add_model_files(catalog, request, bytes_of_types(content.items), layout);
  return layout;
}

}  // namespace uckpt::safetensors
