// Without ZeRO an optimizer's state has numbers, not names: the order in which the program gave it the
// parameters, which is most often, and not always, the model's. Shapes prove names where no two parameters
// are alike; else the order of the model is assumed, which must be said.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

// The same by shapes alone, whatever the order, where every shape wanted is that of one of `shapes` only
// (`is_proven`); else in the order of the model.
Match match_numbers(const std::vector<Shape>& shapes,
                    const std::vector<std::vector<std::optional<Shape>>>& groups,
                    std::vector<std::vector<size_t>>& out, bool& is_proven);

// What to warn of where the order of the model was assumed.
std::string order_assumed(std::string_view optimizer);

// The shape of the parameter that an optimizer keeps these states for: moments have it, and the rows and
// columns of torch's and transformers' Adafactor make it; where others have several, none is sure. Numbers
// have none.
std::optional<Shape> shape_of_states(const std::vector<std::pair<std::string_view, Shape>>& states);

// The wrapper for 16-bit types that has one flat tensor a group keeps a group's parameters as views into one
// memory.
struct MemoryView {
  std::string memory;
  int64_t offset, numel;  // elements
};
// Indices of the views of the one memory that is filled by just so many elements, in its order; empty where
// no memory is, or several are.
std::vector<size_t> views_that_fill(const std::vector<MemoryView>& views, int64_t numel);

}  // namespace uckpt::deepspeed
