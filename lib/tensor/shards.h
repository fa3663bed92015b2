// What every rank of a target is to hold: what a layout says, and a writer puts into files. Plain values.
//
// A *shard* is one rank's part of one tensor, row-major. Its boxes say which elements it has and where; what
// no box covers is padding, and holds zeros.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt {

// One box of a shard's tensor inside the shard. Its axes are along a factoring of the whole tensor, as in
// `Piece`; strides count elements of the shard.
struct ShardBox {
  int64_t offset;  // elements from the shard's first one to the box's first one
  uint32_t axes_at;
  uint8_t rank;
  bool is_primary;  // of all ranks with these elements, this one comes first: the others hold copies
};

struct BoxRange {
  uint32_t first = 0, count = 0;
};

struct Shard {
  uint32_t tensor = 0;  // index in the catalog: the one that has the pieces, where this is a further name
  std::string name;     // as this rank's files call it: with its own numbers
  std::string logical_name;    // with global numbers
  std::optional<DType> dtype;  // what its rule wants its weights to be
  Shape shape;                 // as the rank holds it, padding counted
  Shape full_shape;            // as one rank would hold it if nothing were cut: the tensor's, and padding
  BoxRange boxes;              // in Shards::boxes; shards that hold the same may share them
  double factor = 1;           // the rank holds the tensor times this, plus `summand`
  double summand = 0;
  bool is_padded = false;   // no box covers some of it
  bool is_primary = false;  // some box of it is; of a tensor without elements, it is the first rank's
  bool is_number = false;   // one value a parameter (`step`), which lies beside each shard of that
  // Another name of a tensor of which this rank holds the same elements under its own name: index in the
  // same list of shards. A further name without it is a copy of its own.
  std::optional<uint32_t> tied_to;
  // The place of its name in the order of the layout's rules, index by index: what takes the place of a
  // registration order where the source has none. The same for all states of a parameter.
  uint32_t order = 0;
};

struct RankShards {
  Coordinate at;
  std::vector<Shard> shards;  // in the order of the source's tensors
};

struct Shards {
  std::vector<RankShards> ranks;  // in the order of the coordinates that were asked for
  std::vector<ShardBox> boxes;
  std::vector<Axis> axes;

  std::span<const ShardBox> boxes_of(const Shard& s) const {
    return {boxes.data() + s.boxes.first, s.boxes.count};
  }
  std::span<const Axis> axes_of(const ShardBox& b) const { return {axes.data() + b.axes_at, b.rank}; }
};

}  // namespace uckpt
