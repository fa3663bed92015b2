// The options of an optimizer in a distributed checkpoint, which keeps each of them as an object.
#pragma once

#include <memory>
#include <string>

#include "lib/pickle/document.h"
#include "lib/tensor/catalog.h"

namespace uckpt::dcp {

// A list with the dict of each group: `params`, the names or numbers of its parameters, and the options.
struct SavedGroups {
  std::unique_ptr<pickle::Document> list;  // null where the source has none, or those of several optimizers
  bool is_ordered = false;                 // `params` are in the order in which the optimizer has them
};

// Out of the objects `….param_groups.N.OPTION`; or out of `….param_groups.NAME.OPTION`, as flattened
// optimizer state has them: then parameters with the same options make a group, and their order is that of
// the state dict, which a consolidated file does not keep. An option that is a tensor is one here, too: the
// key of its storage is its name in the catalog.
SavedGroups read_param_groups(const Catalog& catalog);
// Is it the key of one of those?
bool is_option(const std::string& key);

}  // namespace uckpt::dcp
