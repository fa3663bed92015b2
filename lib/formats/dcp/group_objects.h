// The options of an optimizer in a distributed checkpoint, which keeps each of them as an object.
#pragma once

#include <memory>

#include "lib/pickle/document.h"
#include "lib/tensor/catalog.h"

namespace uckpt::dcp {

// A list with the dict of each group, out of the objects `….param_groups.N.OPTION`: `params`, the names or
// numbers of its parameters, and the options. Null where the source has none, or those of several optimizers.
std::unique_ptr<pickle::Document> read_param_groups(const Catalog& catalog);

}  // namespace uckpt::dcp
