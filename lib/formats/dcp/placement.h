// How chunks lie over the ranks that saved them, as far as their boxes tell: which dims are cut, into how
// many parts, evenly or not. A guess at the mesh follows from it; which rank held a chunk is not told by the
// format.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/formats/dcp/stored.h"

namespace uckpt::dcp {

// For the LAYOUT column: "whole", "dim 0 in 4", "dim 0 in 4: 10, 10, 10, 7", "dims 0, 1 in 2 x 2".
std::string layout_text(const StoredTensor& tensor);

// Lines for `inspect`: what is cut how, the mesh, the data files and the ranks that wrote them.
std::vector<std::pair<std::string, std::string>> placement_facts(const Stored& stored);

// The rank that wrote a data file, `__RANK_NUMBER.distcp`, below any folders; -1 if its name says none.
int64_t writer_of(std::string_view name);

}  // namespace uckpt::dcp
