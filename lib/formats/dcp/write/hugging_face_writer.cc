#include "lib/formats/dcp/write/hugging_face_writer.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/write/chunks.h"
#include "lib/formats/dcp/write/item.h"
#include "lib/formats/hugging_face/config_writer.h"
#include "lib/formats/plain_names.h"
#include "lib/formats/safetensors/safetensors_writer.h"

namespace uckpt::dcp {

namespace {

using Json = nlohmann::json;

// What a rank has of a tensor.
struct Entry {
  std::string name;
  uint32_t tensor;
  DType dtype;
  bool is_copy;  // a further name of the tensor
  Shape offsets, sizes;

  int64_t bytes(const Catalog& catalog) const {
    const Tensor& t = catalog.tensors[tensor];
    return (sizes == t.shape ? units_of(t) : numel_of(sizes)) * unit_size(dtype);
  }
};

using Place = std::pair<int64_t, int64_t>;  // rank, target file

class HuggingFaceOutput {
 public:
  HuggingFaceOutput(const Catalog& catalog, const WriteRequest& request)
      : catalog_(catalog),
        request_(request),
        mesh_(mesh_of(request, catalog.mesh.dp)),
        cutter_(catalog, mesh_, request.shards.get()),
        loads_(mesh_) {}

  TargetLayout make() {
    std::vector<bool> written(catalog_.tensors.size());
    for (const PlainTensor& plain : plain_tensors(catalog_, request_, layout_.notes)) {
      const uint32_t tensor = request_.tensors[plain.index];
      const uint32_t source = catalog_.tensors[tensor].alias.value_or(tensor);
      add(plain, tensor, written[source]);
      written[source] = true;
    }
    hugging_face::tell_lost_objects(catalog_, true, layout_.notes);
    std::map<int64_t, int64_t> numbers;  // of ranks that write
    for (const auto& [place, entries] : files_) numbers.try_emplace(place.first, numbers.size() + 1);
    for (auto& [place, entries] : files_) add_file(numbers.at(place.first), place.second, entries);
    hugging_face::add_model_files(catalog_, request_, bytes_, layout_);
    return std::move(layout_);
  }

 private:
  // Fills one target file after the other; a larger tensor gets one of its own.
  int64_t target_file(int64_t bytes) {
    if (request_.shard_size > 0 && filled_ > 0 && filled_ + bytes > request_.shard_size) {
      ++targets_;
      filled_ = 0;
    }
    filled_ += bytes;
    return targets_;
  }

  void add(const PlainTensor& plain, uint32_t tensor, bool is_copy) {
    const Tensor& t = catalog_.tensors[tensor];
    const DType dtype = request_.dtype_of(catalog_, plain.index);
    safetensors::refuse_metadata_name(catalog_, t, plain.name);
    if (info(dtype).safetensors.empty())
      throw refused("safetensors.dtype", cat("safetensors files have no type for ", name_of(dtype)))
          .in_file(catalog_.path)
          .in_tensor(t.path())
          .hint(way_round(dtype));
    const int64_t size = units_of(t) * unit_size(dtype), file = target_file(size);
    bytes_[dtype] += size;
    const bool is_cut = t.state != state::kBuffer && t.state != state::kOther;
    for (HeldBox& box : cutter_.cut(t.alias.value_or(tensor), is_cut)) {
      Entry entry{plain.name, tensor, dtype, is_copy, std::move(box.offsets), std::move(box.sizes)};
      const int64_t rank = loads_.choose(box.ranks, entry.bytes(catalog_));
      auto& entries = files_[{rank, file}];
      if (!entries.empty() && entries.back().name == plain.name)
        throw refused(
            "dcp.cut",
            "the rules give a rank several boxes of it, and a safetensors shard holds one of a name")
            .in_file(catalog_.path)
            .in_tensor(t.path())
            .hint("--to dcp writes them; --layout tp=1 gives each rank one");
      entries.push_back(std::move(entry));
    }
  }

  std::string header_of(const std::vector<Entry>& entries) const try {
    Json offsets = Json::object();
    for (const Entry& e : entries) offsets[e.name] = {{"saved_offsets", e.offsets}};
    const Json metadata = {{"format", "pt"}, {"DCP_VERSION", "1.0"}, {"DCP_SHARDING_INFO", offsets.dump()}};
    std::string text = cat(R"({"__metadata__":)", metadata.dump());
    int64_t at = 0;
    for (const Entry& e : entries) {
      const int64_t end = at + e.bytes(catalog_);
      const Json entry = {
          {"dtype", info(e.dtype).safetensors}, {"shape", e.sizes}, {"data_offsets", {at, end}}};
      text += cat(",", Json(e.name).dump(), ":", entry.dump());
      at = end;
    }
    text += "}";
    text.resize(static_cast<size_t>(round_up(static_cast<int64_t>(text.size()), 8)), ' ');
    return text;
  } catch (const Json::exception&) {
    throw refused("safetensors.name", "a tensor's name is not UTF-8, which safetensors files need")
        .in_file(catalog_.path);
  }

  void add_file(int64_t rank, int64_t target, std::vector<Entry>& entries) {
    std::ranges::stable_sort(  // wider elements first, so that each tensor is aligned
        entries, [](const Entry& a, const Entry& b) { return bits_of(a.dtype) > bits_of(b.dtype); });
    const std::string text = header_of(entries);
    Bytes start(8 + text.size());
    store_le<uint64_t>(start.data(), text.size());
    std::ranges::copy(text, start.begin() + 8);
    const auto number = static_cast<uint32_t>(layout_.files.size());
    auto offset = static_cast<int64_t>(start.size());
    for (const Entry& e : entries) {
      const int64_t bytes = e.bytes(catalog_);
      if (bytes > 0) {
        const uint32_t shard = add_box_shard(layout_, catalog_, e.tensor, e.offsets, e.sizes, e.is_copy);
        layout_.holes.push_back({shard, number, offset, 0, layout_.shards[shard].numel, e.dtype});
      }
      offset += bytes;
    }
    char name[96];
    std::snprintf(name, sizeof name, "shard-%05lld-model-%05lld-of-%05lld.safetensors",
                  static_cast<long long>(rank), static_cast<long long>(target),
                  static_cast<long long>(targets_));
    TargetFile& out = layout_.files.emplace_back();
    out.name = name;
    out.size = offset;
    out.fixed.push_back({0, std::move(start)});
  }

  const Catalog& catalog_;
  const WriteRequest& request_;
  TargetLayout layout_;
  const RankMesh mesh_;
  const Cutter cutter_;
  RankLoads loads_;
  std::map<Place, std::vector<Entry>> files_;
  int64_t targets_ = 1, filled_ = 0;
  std::map<DType, int64_t> bytes_;
};

}  // namespace

TargetLayout lay_out_hugging_face(const Catalog& catalog, const WriteRequest& request) {
  return HuggingFaceOutput(catalog, request).make();
}

}  // namespace uckpt::dcp
