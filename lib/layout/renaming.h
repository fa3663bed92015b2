// Names and shapes of one naming become those of another: the maps of a program applied to whole tensors.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/tensor/catalog.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout {

// Renames and regroups the catalog's whole tensors by the one chain of maps from a naming to another. All
// states of a parameter go the same way; values that it has one of (`step`) follow it, and must agree where
// several become one. Tensors that belong to no parameter stay as they are, unless there are no others.
//
// What does not fit goes to `diagnostics`; then the catalog's tensors are those of before. Throws trouble
// (`usage.as`) where there is not one chain. Returns what was taken on trust, and where it came from.
std::vector<std::string> rename(Catalog& catalog, const ucl::Spec& spec, std::string_view from,
                                std::string_view to, const Settings& settings, ucl::Diagnostics& diagnostics);

}  // namespace uckpt::layout
