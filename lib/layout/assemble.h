// Fragments become logical tensors: the source side of a layout's rules.
#pragma once

#include <map>
#include <string>

#include "lib/layout/facts.h"
#include "lib/tensor/catalog.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout {

// How each tensor was joined, for `plan` and `check`.
struct Assembled {
  std::vector<std::string> trusted;  // sizes that shapes cannot prove, and where each came from
  std::map<std::string, Settings::Solved, std::less<>> givens;  // what the program's givens are
};

// Joins `catalog.ranks` by the rules of the layout into `catalog.tensors` (added to those that are there) and
// empties `catalog.ranks` and `catalog.scattered`. What does not fit goes to `diagnostics`, all of it; then
// the catalog is not whole and must not be converted. Copies of one fragment are added to be compared.
Assembled assemble(Catalog& catalog, const ucl::Spec& spec, ucl::LayoutRef layout, const Settings& settings,
                   ucl::Diagnostics& diagnostics);

}  // namespace uckpt::layout
