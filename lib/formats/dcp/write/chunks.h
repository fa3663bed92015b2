// How a tensor is cut over the ranks of a distributed checkpoint: into boxes, each of which one or several
// ranks hold.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "lib/formats/writer.h"
#include "lib/tensor/catalog.h"

namespace uckpt::dcp {

// Ranks are numbered as torch's init_device_mesh((dp, tp)) has them: dp * tp size + tp.
struct RankMesh {
  int64_t dp = 1, tp = 1;
  int64_t size() const { return dp * tp; }
};

// The ranks that are asked for: tensor parallel ones by the shards; data parallel ones, where --layout does
// not say them, `otherwise`. Throws trouble `usage.layout` for other axes, and for too few or too many.
RankMesh mesh_of(const WriteRequest& request, int64_t otherwise);

// A box of a tensor, in elements. Of a tensor without elements the one box is all of it; else none is empty.
struct HeldBox {
  Shape offsets, sizes;
  std::vector<int64_t> ranks;  // that hold it, ascending; empty: all of them
};

// Which rank writes what several hold: that with the fewest bytes up to now, as torch's planner chooses.
class RankLoads {
 public:
  explicit RankLoads(RankMesh mesh) : bytes_(static_cast<size_t>(mesh.size())) {}
  // `ranks`: those that hold it; empty: all. `bytes` are of the value alone.
  int64_t choose(const std::vector<int64_t>& ranks, int64_t bytes);

 private:
  std::vector<int64_t> bytes_;
};

class Cutter {
 public:
  // `shards`: what each tensor parallel rank holds; null where all hold all. Outlives the cutter.
  Cutter(const Catalog& catalog, RankMesh mesh, const Shards* shards);

  // Boxes that tile the tensor. Those of the tensor parallel ranks are cut along dim 0 of what the rank
  // holds, as torch.chunk cuts: each data parallel rank gets the rows over the ranks, rounded up, the last
  // ones fewer or none. Without `is_cut` it is whole on every rank. Throws refused `dcp.cut` for shards whose
  // rows are not rows of the tensor.
  std::vector<HeldBox> cut(uint32_t tensor, bool is_cut) const;

 private:
  std::vector<HeldBox> cut_shards(uint32_t tensor) const;

  const Catalog& catalog_;
  const RankMesh mesh_;
  const Shards* shards_;
  std::map<uint32_t, std::vector<const Shard*>> shards_of_;  // by tensor; of each rank, null: none
};

}  // namespace uckpt::dcp
