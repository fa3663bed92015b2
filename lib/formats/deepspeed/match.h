// Without ZeRO an optimizer's state has numbers, not names. Within a group the numbers follow the order of
// the parameters in the model: where all assignments that fit the shapes agree, they give the names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

enum class Match { kUnique, kNone, kSeveral };

inline constexpr size_t kNoMatch = ~size_t{0};

// `groups[g][i]` is the shape of the group's i-th parameter, or nothing if it has no state that would tell.
// Every entry takes one of `shapes`, in order within its group; shapes left over are frozen parameters. On
// kUnique, `out[g][i]` is the index of the shape taken; it is kNoMatch for an entry without a shape that
// could take several.
Match match_in_order(const std::vector<Shape>& shapes,
                     const std::vector<std::vector<std::optional<Shape>>>& groups,
                     std::vector<std::vector<size_t>>& out);

}  // namespace uckpt::deepspeed
