#include "lib/formats/dcp/write/chunks.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::dcp {

namespace {

constexpr size_t kMostBoxes = 1 << 16;  // of one rank's part of a tensor

// A range along one dim of a tensor, and how many elements of the shard come before it.
struct Range {
  int64_t start, extent, at;
};

// One factor of one dim.
struct Factor {
  int64_t size, start, extent, stride;
};

// The axes of a box, factor by factor of each dim, innermost first; nothing where an axis spans several dims
// and its range is no box of them.
std::optional<std::vector<std::vector<Factor>>> factors_of(const Shape& shape, std::span<const Axis> axes) {
  std::vector<std::vector<Factor>> out(shape.size());
  size_t next = axes.size();
  std::optional<Factor> rest;
  for (size_t d = shape.size(); d-- > 0;) {
    int64_t left = shape[d];
    while (left > 1) {
      if (!rest) {
        if (next == 0) return std::nullopt;
        const Axis& a = axes[--next];
        rest = Factor{a.size, a.start, a.extent, a.stride};
      }
      Factor inner = *rest;
      if (inner.size <= left) {
        if (left % inner.size != 0) return std::nullopt;
        rest.reset();
      } else {
        if (inner.size % left != 0) return std::nullopt;
        rest->size /= left;
        rest->stride *= left;
        if (inner.start % left == 0 && inner.extent % left == 0) {
          rest->start /= left;
          rest->extent /= left;
          inner = {left, 0, left, inner.stride};
        } else if (inner.start / left == (inner.start + inner.extent - 1) / left) {
          rest->start = inner.start / left;
          rest->extent = 1;
          inner = {left, inner.start % left, inner.extent, inner.stride};
        } else {
          return std::nullopt;
        }
      }
      left /= inner.size;
      if (inner.size > 1) out[d].push_back(inner);
    }
  }
  return out;
}

// The ranges that a product of factors is along its dim. `row`: the shard's elements between neighbours,
// which must lie as in the tensor; 0 where that does not matter.
std::optional<std::vector<Range>> ranges_of(std::span<const Factor> factors, int64_t row) {
  std::vector<Range> out = {{0, 1, 0}};
  int64_t size = 1;
  for (const Factor& f : factors) {
    const bool is_whole = out.size() == 1 && out[0].start == 0 && out[0].extent == size;
    if (is_whole) {
      if (row > 0 && f.extent > 1 && f.stride != row * size) return std::nullopt;
      out[0] = {f.start * size, f.extent * size, 0};
    } else {
      if (static_cast<size_t>(f.extent) * out.size() > kMostBoxes) return std::nullopt;
      std::vector<Range> all;
      for (int64_t i = 0; i < f.extent; ++i)
        for (const Range& r : out)
          all.push_back({(f.start + i) * size + r.start, r.extent, r.at + i * f.stride});
      out = std::move(all);
    }
    size *= f.size;
  }
  return out;
}

// A box of a tensor, and the first of the shard's rows that it fills.
struct LocalBox {
  Shape offsets, sizes;
  int64_t row = 0;
};

std::optional<std::vector<LocalBox>> local_boxes(const Shape& shape, const ShardBox& box,
                                                 std::span<const Axis> axes, int64_t row_size) {
  const auto factors = factors_of(shape, axes);
  if (!factors) return std::nullopt;
  std::vector<LocalBox> out = {{{}, {}, box.offset / row_size}};
  for (size_t d = 0; d < shape.size(); ++d) {
    const auto ranges = ranges_of((*factors)[d], d == 0 ? row_size : 0);
    if (!ranges || ranges->size() * out.size() > kMostBoxes) return std::nullopt;
    std::vector<LocalBox> all;
    for (const LocalBox& b : out)
      for (const Range& r : *ranges) {
        LocalBox& next = all.emplace_back(b);
        next.offsets.push_back(r.start);
        next.sizes.push_back(r.extent);
        if (d == 0) next.row += r.at / row_size;
      }
    out = std::move(all);
  }
  return out;
}

// Calls `take(rank, first, count)` for each part of the rows [first, first + count) of `rows`.
template <class Take>
void chunk(int64_t rows, int64_t ranks, int64_t first, int64_t count, Take take) {
  const int64_t each = std::max<int64_t>(1, rows / ranks + (rows % ranks != 0));
  for (int64_t at = first; at < first + count;) {
    const int64_t rank = at / each;
    const int64_t end = std::min((rank + 1) * each, first + count);
    take(rank, at, end - at);
    at = end;
  }
}

// Boxes of the same ranks that follow each other along dim 0 are one.
std::vector<HeldBox> joined(std::vector<HeldBox> boxes) {
  std::ranges::sort(boxes, [](const HeldBox& a, const HeldBox& b) {
    if (a.ranks != b.ranks) return a.ranks < b.ranks;
    const auto x = std::mismatch(a.offsets.begin() + 1, a.offsets.end(), b.offsets.begin() + 1);
    return x.first != a.offsets.end() ? *x.first < *x.second : a.offsets[0] < b.offsets[0];
  });
  std::vector<HeldBox> out;
  for (HeldBox& box : boxes) {
    if (!out.empty() && out.back().ranks == box.ranks &&
        out.back().offsets[0] + out.back().sizes[0] == box.offsets[0] &&
        std::equal(box.offsets.begin() + 1, box.offsets.end(), out.back().offsets.begin() + 1) &&
        std::equal(box.sizes.begin() + 1, box.sizes.end(), out.back().sizes.begin() + 1))
      out.back().sizes[0] += box.sizes[0];
    else
      out.push_back(std::move(box));
  }
  return out;
}

}  // namespace

RankMesh mesh_of(const WriteRequest& request, int64_t otherwise) {
  constexpr int64_t kMostRanks = 1 << 20;
  RankMesh mesh{otherwise, request.shards ? static_cast<int64_t>(request.shards->ranks.size()) : 1};
  for (const auto& [axis, size] : request.mesh) {
    if (axis == "dp")
      mesh.dp = size;
    else if (axis == "zero")
      throw trouble("usage.layout", "--layout zero: a distributed checkpoint has no ZeRO stage");
    else if (axis != "tp" && size != 1)
      throw trouble(
          "usage.layout",
          cat("--layout ", axis,
              ": expected 1, as a distributed checkpoint is cut over dp and tp alone, found ", size));
  }
  if (mesh.dp < 1 || mesh.dp > kMostRanks)
    throw trouble("usage.layout", cat("--layout dp: expected 1 to ", kMostRanks, " ranks, found ", mesh.dp));
  if (!request.stage_sizes.empty())
    throw trouble("usage.stages", "--stages: a distributed checkpoint has no pipeline stages");
  return mesh;
}

int64_t RankLoads::choose(const std::vector<int64_t>& ranks, int64_t bytes) {
  const auto load = [this](int64_t rank) { return bytes_[static_cast<size_t>(rank)]; };
  const int64_t chosen = ranks.empty() ? std::ranges::min_element(bytes_) - bytes_.begin()
                                       : *std::ranges::min_element(ranks, {}, load);
  bytes_[static_cast<size_t>(chosen)] += std::max<int64_t>(1, bytes);
  return chosen;
}

Cutter::Cutter(const Catalog& catalog, RankMesh mesh, const Shards* shards)
    : catalog_(catalog), mesh_(mesh), shards_(shards) {
  if (!shards || shards->ranks.size() < 2) return;
  for (size_t rank = 0; rank < shards->ranks.size(); ++rank)
    for (const Shard& s : shards->ranks[rank].shards) {
      auto& all = shards_of_[s.tensor];
      all.resize(shards->ranks.size());
      if (!all[rank]) all[rank] = &s;
    }
}

std::vector<HeldBox> Cutter::cut(uint32_t tensor, bool is_cut) const {
  const Tensor& t = catalog_.tensors[tensor];
  if (t.shape.empty() || numel_of(t.shape) == 0 || item_size(t.dtype) == 0 || mesh_.size() == 1)
    return {{Shape(t.shape.size(), 0), t.shape, {}}};
  if (shards_of_.contains(tensor)) return cut_shards(tensor);
  if (!is_cut) return {{Shape(t.shape.size(), 0), t.shape, {}}};
  std::vector<HeldBox> out;
  chunk(t.shape[0], mesh_.dp, 0, t.shape[0], [&](int64_t dp, int64_t first, int64_t count) {
    HeldBox& box = out.emplace_back(HeldBox{Shape(t.shape.size(), 0), t.shape, {}});
    box.offsets[0] = first;
    box.sizes[0] = count;
    for (int64_t tp = 0; tp < mesh_.tp; ++tp) box.ranks.push_back(dp * mesh_.tp + tp);
  });
  return out;
}

std::vector<HeldBox> Cutter::cut_shards(uint32_t tensor) const {
  const Tensor& t = catalog_.tensors[tensor];
  std::vector<HeldBox> out;
  std::map<std::pair<Shape, Shape>, size_t> places;  // in `out`
  const auto& shards = shards_of_.at(tensor);
  for (const bool primary : {true, false}) {
    for (size_t tp = 0; tp < shards.size(); ++tp) {
      if (!shards[tp] || shards[tp]->shape.empty()) continue;
      const Shard& s = *shards[tp];
      const int64_t rows = s.shape[0], row_size = rows > 0 ? numel_of(s.shape) / rows : 0;
      if (row_size == 0) continue;
      for (const ShardBox& box : shards_->boxes_of(s)) {
        if (box.is_primary != primary) continue;
        const auto axes = shards_->axes_of(box);
        if (std::ranges::any_of(axes, [](const Axis& a) { return a.extent == 0; })) continue;
        const auto boxes = local_boxes(t.shape, box, axes, row_size);
        if (!boxes)
          throw refused("dcp.cut",
                        "the rules give a rank a part of it whose rows are not rows of the whole tensor, "
                        "which no chunk of a distributed checkpoint can be")
              .in_file(catalog_.path)
              .in_tensor(t.path())
              .hint("--layout tp=1 writes it whole");
        for (const LocalBox& b : *boxes) {
          chunk(rows, mesh_.dp, b.row, b.sizes[0], [&](int64_t dp, int64_t first, int64_t count) {
            std::pair<Shape, Shape> place(b.offsets, b.sizes);
            place.first[0] += first - b.row;
            place.second[0] = count;
            const int64_t rank = dp * mesh_.tp + static_cast<int64_t>(tp);
            const auto known = places.find(place);
            if (known != places.end())
              out[known->second].ranks.push_back(rank);
            else if (primary) {
              places.emplace(place, out.size());
              out.push_back({place.first, place.second, {rank}});
            }
          });
        }
      }
    }
  }
  for (HeldBox& box : out) std::ranges::sort(box.ranks);
  return joined(std::move(out));
}

}  // namespace uckpt::dcp
