// A group of AutoEP's weights: each expert rank has a share of their rows.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/formats/deepspeed/fused_experts.h"
#include "lib/formats/deepspeed/rank_states.h"

namespace uckpt::deepspeed {

// What the ranks that have one share hold of a group.
struct FusedPart {
  GroupStates states;
  std::string layout;  // of its flat buffers, in words
  // Adds the pieces of a parameter's state, from the element `base` on of a tensor of `numel` elements.
  // Returns a file that is missing.
  std::function<std::optional<std::string>(size_t state, size_t parameter, int64_t base, int64_t numel)>
      add_pieces;
};

// `families`: of each expert rank the ranks that have its share. Throws refused `deepspeed.experts`,
// `deepspeed.mixed_runs`.
void add_fused_group(Builder& builder, const std::vector<FusedExperts>& layers, const ParamList& params,
                     const std::vector<RankFamily>& families,
                     const std::function<FusedPart(const RankFamily&)>& read);

}  // namespace uckpt::deepspeed
