// How the elements of a match's source tensors become those of its target tensors, term by term.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/layout/map_book.h"
#include "lib/layout/map_sizes.h"
#include "lib/layout/view.h"

namespace uckpt::layout {

// Captures in the names of a rule's parts. Those that every part of both sides has are what tells matches
// apart. The others are free: they tell the tensors of one part apart, and may be axes on the other side.
class FreeCaptures {
 public:
  explicit FreeCaptures(const MapRuleRef& rule);

  const std::vector<std::string>& of_source(size_t part) const { return source_[part]; }
  const std::vector<std::string>& of_target(size_t part) const { return target_[part]; }
  bool is_free(std::string_view name) const;
  bool any() const;
  // It stands in a shape of the rule too, so that its numbers run from 0.
  bool is_axis(std::string_view name) const;
  // Some part of the source side has it in its name.
  bool in_source(std::string_view name) const;

 private:
  std::vector<std::vector<std::string>> source_, target_;
  std::vector<std::string> axes_;
};

// One term of a target part: the region of a source part that it is, as loops over both.
struct Route {
  size_t part = 0;  // of the source side
  size_t target_part = 0;
  Strand strand;  // `local` in the source tensor, `logical` in the target tensor
  // For each free capture of the source part: as in the target's name (its place among the target part's), or
  // a loop, whose steps in the target tensor are `stride`.
  struct Pick {
    std::optional<size_t> of_target;
    int64_t stride = 0;
  };
  std::vector<Pick> picks;
  // For each free capture of the target part: how far one step of it is in the source tensor.
  std::vector<int64_t> offsets;
};

// One target part: its shape, and the routes that fill it.
struct TargetPart {
  Shape shape;
  int64_t numel = 0;
  std::vector<Route> routes;
};

struct Regrouping {
  std::vector<Shape> sources;
  std::vector<TargetPart> targets;
};

// The sizes must be solved and checked. Nothing where a target tensor would have more elements than 64 bits
// count; `too_large` is then its part.
std::optional<Regrouping> regroup(const MapRuleRef& rule, const FreeCaptures& free, const MapSizes& sizes,
                                  size_t& too_large);

}  // namespace uckpt::layout
