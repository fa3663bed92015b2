#include "lib/formats/dcp/write/item.h"

#include <algorithm>

#include "lib/formats/dcp/items.h"
#include "lib/formats/torch/sizes.h"
#include "lib/formats/writer.h"

namespace uckpt::dcp {

namespace {

// Of a box that is held row-major. Dims that it has whole are one axis with the dim before them: there may be
// millions of boxes.
std::vector<Axis> axes_of(const Shape& shape, const Shape& offsets, const Shape& sizes) {
  const Shape stride = torch::row_major(sizes);
  std::vector<Axis> out;
  for (size_t d = 0; d < shape.size(); ++d) {
    if (out.empty() || sizes[d] != shape[d]) {
      out.push_back({shape[d], offsets[d], sizes[d], stride[d]});
    } else {
      Axis& last = out.back();
      last = {last.size * sizes[d], last.start * sizes[d], last.extent * sizes[d], stride[d]};
    }
  }
  return out;
}

}  // namespace

uint32_t add_box_shard(TargetLayout& layout, const Catalog& catalog, uint32_t tensor, const Shape& offsets,
                       const Shape& sizes, bool is_copy) {
  const Tensor& t = catalog.tensors[tensor];
  const uint32_t source = t.alias.value_or(tensor);
  if (sizes == t.shape) {
    const uint32_t whole = layout.add_whole_shard(catalog, source);
    layout.pieces.back().is_copy = is_copy;
    return whole;
  }
  const auto first_piece = static_cast<uint32_t>(layout.pieces.size());
  layout.shards.push_back({source, numel_of(sizes), first_piece, 1});
  const std::vector<Axis> axes = axes_of(t.shape, offsets, sizes);
  layout.pieces.push_back(
      {0, static_cast<uint32_t>(layout.axes.size()), static_cast<uint8_t>(axes.size()), is_copy});
  layout.axes.insert(layout.axes.end(), axes.begin(), axes.end());
  return static_cast<uint32_t>(layout.shards.size() - 1);
}

void Item::box(uint32_t tensor, DType dtype, const Shape& offsets, const Shape& sizes, bool is_copy) {
  const int64_t numel = numel_of(sizes);
  std::string key;
  if (numel == 0) {
    key = archive_.add_storage(0);
  } else {
    const uint32_t shard = add_box_shard(layout_, catalog_, tensor, offsets, sizes, is_copy);
    key = archive_.add_storage(Hole{shard, 0, 0, 0, layout_.shards[shard].numel, dtype});
  }
  try {
    out_.tensor({dtype, key, numel, sizes, torch::row_major(sizes), 0, false});
  } catch (Error& e) {
    throw e.in_tensor(catalog_.tensors[tensor].path()).in_file(catalog_.path).hint(way_round(dtype));
  }
}

void Item::whole(uint32_t tensor, DType dtype, bool is_copy) {
  const Shape& shape = catalog_.tensors[tensor].shape;
  box(tensor, dtype, Shape(shape.size(), 0), shape, is_copy);
}

TargetLayout Item::finish() && {
  TargetLayout out;
  std::move(archive_).lay_out("", out_.finish(), out);
  return out;
}

}  // namespace uckpt::dcp
