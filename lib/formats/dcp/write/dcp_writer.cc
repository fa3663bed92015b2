#include "lib/formats/dcp/write/dcp_writer.h"

#include <algorithm>
#include <cstring>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/write/chunks.h"
#include "lib/formats/dcp/write/content.h"
#include "lib/formats/dcp/write/data_files.h"
#include "lib/formats/dcp/write/item.h"
#include "lib/formats/dcp/write/metadata_pickle.h"
#include "lib/formats/read_number.h"

namespace uckpt::dcp {

namespace {

using pickle::Value;

class Output {
 public:
  Output(const Catalog& catalog, const WriteRequest& request, const Content& content, RankMesh mesh)
      : catalog_(catalog),
        request_(request),
        content_(content),
        cutter_(catalog, mesh, request.shards.get()),
        loads_(mesh),
        files_(request.shard_size),
        written_(catalog.tensors.size()) {}

  TargetLayout make() {
    for (const ContentTensor& t : content_.tensors) add(t);
    for (const ContentObject& o : content_.objects) add(o);
    const std::vector<ItemRange> places = std::move(files_).lay_out(layout_);
    add_fixed_file(layout_, ".metadata",
                   metadata_pickle(tensors_, objects_, places, layout_.files, content_.has_paths));
    return std::move(layout_);
  }

 private:
  // Is it a further time that this tensor is written? Tied names have the elements of one.
  bool again(uint32_t tensor) {
    const uint32_t source = catalog_.tensors[tensor].alias.value_or(tensor);
    const bool seen = written_[source];
    written_[source] = true;
    return seen;
  }

  void add(const ContentTensor& content) {
    const uint32_t tensor = request_.tensors[content.index];
    const Tensor& t = catalog_.tensors[tensor];
    const DType dtype = request_.dtype_of(catalog_, content.index);
    const bool is_copy = again(tensor);
    WrittenTensor out{content.key, content.path, dtype, t.shape, {}, {}};
    for (const HeldBox& box : cutter_.cut(t.alias.value_or(tensor), content.is_cut)) {
      const int64_t bytes = numel_of(box.sizes) * unit_size(dtype);
      Item item(catalog_, layout_);
      item.box(tensor, dtype, box.offsets, box.sizes, is_copy);
      out.items.push_back(files_.add(loads_.choose(box.ranks, bytes), std::move(item).finish()));
      out.boxes.push_back(box.offsets, box.sizes);
    }
    tensors_.push_back(std::move(out));
  }

  void add(const ContentObject& content) {
    const int64_t rank = loads_.choose({}, 0);
    uint32_t number;
    if (content.raw) {
      TargetLayout item;
      TargetFile& file = item.files.emplace_back();
      file.size = static_cast<int64_t>(content.raw->size());
      file.fixed.push_back({0, *content.raw});
      number = files_.add(rank, std::move(item));
    } else {
      Item item(catalog_, layout_);
      if (content.made)
        content.made(item.out());
      else
        copy(content, item);
      number = files_.add(rank, std::move(item).finish());
    }
    objects_.push_back({content.key, content.path, number});
  }

  void copy(const ContentObject& content, Item& item) {
    item.out().copy(content.copied, [&](const Value& value, pickle::Pickler& out) {
      const auto leaf = content_.leaves.find({value.document(), value.id()});
      if (leaf == content_.leaves.end()) return false;
      if (leaf->second) {
        const uint32_t tensor = request_.tensors[*leaf->second];
        item.whole(tensor, request_.dtype_of(catalog_, *leaf->second), again(tensor));
      } else {
        out.none();
      }
      return true;
    });
  }

  const Catalog& catalog_;
  const WriteRequest& request_;
  const Content& content_;
  TargetLayout layout_;
  const Cutter cutter_;
  RankLoads loads_;
  DataFileBook files_;
  std::vector<bool> written_;  // by tensor
  std::vector<WrittenTensor> tensors_;
  std::vector<WrittenObject> objects_;
};

Content content_of(const Catalog& catalog, const WriteRequest& request, std::vector<std::string>& notes) {
  if (has_own_keys(catalog)) {
    if (auto own = own_content(catalog, request, notes)) return std::move(*own);
  } else if (auto tree = tree_content(catalog, request, notes)) {
    return std::move(*tree);
  }
  return usual_content(catalog, request, notes);
}

float value_of(const Catalog& catalog, const Tensor& t) {
  const Bytes bytes = read_number(catalog, t);
  const auto as = [&]<class T>(T value) {
    std::memcpy(&value, bytes.data(), sizeof value);
    return static_cast<float>(value);
  };
  switch (t.dtype) {
    case DType::kF32:
      return as(float{});
    case DType::kF64:
      return as(double{});
    case DType::kI32:
      return as(int32_t{});
    case DType::kI64:
      return as(int64_t{});
    default:
      throw refused("dcp.step", cat("expected a step as a number of 32 or 64 bits, found ", name_of(t.dtype)))
          .in_file(catalog.path)
          .in_tensor(t.path())
          .hint("--drop leaves it out");
  }
}

}  // namespace

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  const int64_t tp = mesh_of(request, 1).tp;  // what is wrong with it is said before anything is read
  std::vector<std::string> notes;
  Content content = content_of(catalog, request, notes);
  try {
    content.fill_lists();
  } catch (Error& e) {
    throw e.in_file(catalog.path);
  }
  const int64_t dp = content.ranks == 0 ? catalog.mesh.dp : std::max<int64_t>(1, content.ranks / tp);
  const RankMesh mesh = mesh_of(request, dp);
  TargetLayout layout = Output(catalog, request, content, mesh).make();
  layout.notes = std::move(notes);
  return layout;
}

void complete(Catalog& catalog, std::vector<uint32_t>& tensors, bool fill, std::vector<std::string>&) {
  if (fill)
    throw trouble("usage.missing",
                  "--missing: dcp output holds what the input has: nothing is made up for it");
  if (has_own_keys(catalog)) return;
  for (const uint32_t i : tensors) {
    Tensor& t = catalog.tensors[i];
    if (t.state != state::kStep || t.alias || numel_of(t.shape) != 1) continue;
    if (t.dtype == DType::kF32 && t.shape.empty()) continue;
    const float value = value_of(catalog, t);
    Bytes bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    const uint32_t mark = catalog.piece_mark();
    catalog.add_literal(bytes, 1);
    t.pieces = catalog.pieces_since(mark);
    t.dtype = DType::kF32;
    t.shape = {};
    t.copies.clear();
  }
}

}  // namespace uckpt::dcp
