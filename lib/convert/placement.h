// How whole tensors lay over the ranks that saved them, as rules to read.
#pragma once

#include <string>

#include "lib/tensor/catalog.h"

namespace uckpt {

// A UCL program with one rule a weight, drafted from the boxes that each tensor's pieces are, and a guess at
// the mesh. Empty where the pieces are no boxes along the tensors' own dims (flat ranges, say) or nothing is
// cut.
std::string placement_rules(const Catalog& catalog);

}  // namespace uckpt
