// Without ZeRO an optimizer's state has numbers, not names. Within a group the numbers follow the order of
// the parameters in the model: the only assignment that fits all shapes gives the names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

enum class Match { kUnique, kNone, kSeveral };

// `groups[g][i]` is the shape of the group's i-th parameter, or nothing if it is not known. Every entry takes
// one of `shapes`, in order within its group; shapes left over are frozen parameters. On kUnique, `out[g][i]`
// is the index of the shape taken.
Match match_in_order(const std::vector<Shape>& shapes,
                     const std::vector<std::vector<std::optional<Shape>>>& groups,
                     std::vector<std::vector<size_t>>& out);

}  // namespace uckpt::deepspeed
