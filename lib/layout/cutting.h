// One shape over the ranks of a target: what each distinct share of it is, as boxes that are made once for
// all tensors and ranks that have it.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/layout/shape_solver.h"
#include "lib/tensor/shards.h"

namespace uckpt::layout {

class Cutting {
 public:
  // All must outlive it. There is at least one rank.
  Cutting(Facts& facts, const Scope& scope, const ucl::Shape& shape, const Shape& whole,
          std::span<const Coordinate> ranks);
  ShapeSolver& solver() { return *solver_; }

  // Once the sizes are solved and checked:

  // Which of the distinct shares a rank has.
  size_t share_of(size_t rank) const { return shares_[rank]; }
  const Shape& shape(size_t share) { return part(share).shape; }
  bool is_padded(size_t share) { return part(share).view.volume() != part(share).view.local; }
  Shape full() const { return solver_->full(); }

  struct Boxes {
    BoxRange range;
    bool has_primary = false;
  };
  // The boxes of a share whose elements count elsewhere.
  BoxRange copy(size_t share, Shards& out);
  // The boxes of a tensor that ranks with these shares hold, each share once, in the order of the ranks.
  struct Whole {
    std::vector<Boxes> boxes;  // of each of the shares
    int64_t covered = 0;       // elements of the tensor that some rank holds
  };
  const Whole& whole(const std::vector<size_t>& shares, Shards& out);

 private:
  struct Part {
    Shape shape;
    View view;
    std::optional<BoxRange> copy;
  };
  std::vector<int64_t> key_of(const Coordinate& at) const;
  Part& part(size_t share);
  void add_boxes(const View& view, bool is_primary, Shards& out) const;

  std::set<std::string, std::less<>> axes_;  // of the mesh, that the shape cuts
  std::vector<Coordinate> places_;           // of each distinct share, the first rank's
  std::vector<size_t> shares_;               // of each rank
  std::optional<ShapeSolver> solver_;
  std::map<size_t, Part> parts_;
  std::map<std::vector<size_t>, Whole> wholes_;
};

}  // namespace uckpt::layout
