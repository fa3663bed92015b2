// Whole tensors become what each rank holds: the target side of a layout's rules.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/tensor/shards.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout {

// Every coordinate of a mesh of these sizes. The axes are in the order of their names, the last one fastest.
std::vector<Coordinate> grid_of(const std::map<std::string, int64_t, std::less<>>& mesh);

struct Distributed {
  Shards shards;
  std::vector<std::string> trusted;  // sizes that shapes cannot prove, and where each came from
};

// Cuts `tensors` (indices in the catalog's list) by the rules of the layout, for the mesh of the settings.
// `ranks` are the coordinates that the target has: `grid_of` the mesh, or other ones where a format's axes
// form no grid; there is at least one. An axis that no coordinate has is the format's to cut, and rules
// cannot mark it.
//
// A rank whose share of a tensor is empty lacks it. A tied rule makes its tensor where the catalog has no
// such name. What does not fit goes to `diagnostics`, all of it; then the result must not be used.
Distributed distribute(const Catalog& catalog, std::span<const uint32_t> tensors, const ucl::Spec& spec,
                       ucl::LayoutRef layout, const Settings& settings, std::span<const Coordinate> ranks,
                       ucl::Diagnostics& diagnostics);

}  // namespace uckpt::layout
