// Which tensors of two checkpoints are the same one, by their paths (state/name).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/convert/options.h"

namespace uckpt {

std::pair<std::string_view, std::string_view> split_path(std::string_view path);  // state and name

// Would the selection take a weight of this name, were it a master, a module weight or a buffer?
bool takes_any_weight(const Selection& selection, std::string_view name);

struct PathMatches {
  std::vector<std::optional<uint32_t>> second;  // of each of the first: its partner
  std::vector<uint32_t> extra;                  // of the second, in their order: those without one
};

// No path stands twice in a list. A tensor's partner has its path; of weights what is left are partners where
// their names are equal, for a weight may count as another kind of weight in another format: fp32 before
// param before buffer.
PathMatches match_paths(std::span<const std::string> first, std::span<const std::string> second);

}  // namespace uckpt
