// Which tensors of a catalog a conversion takes.
#pragma once

#include <vector>

#include "lib/convert/options.h"

namespace uckpt {

// Indices of the chosen tensors in catalog order, each alias after its source. An alias whose source is not
// chosen takes over its pieces (hence the mutable catalog). Throws for refused tensors among them
// (`tensor.refused`), for two tensors of one path (`name.twice`), and if nothing is chosen
// (`select.nothing`).
std::vector<uint32_t> select_tensors(Catalog& catalog, const Selection& selection);

// Throws refused (`select.no_match`) for a pattern of the command line or of a spec's `convert` that no
// tensor matches: whoever misspelt it would get another output than the one that was asked for.
void check_patterns_match(const Catalog& catalog, const Selection& selection, const DTypeRules& dtypes);

}  // namespace uckpt
