// The manifest of what a conversion wrote, from the digests that were computed while it copied.
#pragma once

#include <string>
#include <vector>

#include "lib/convert/manifest.h"
#include "lib/convert/prepare.h"
#include "lib/exec/executor.h"

namespace uckpt {

// As `sum_tensors` of the output would tell them. Needs RunOptions::tensor_digests. The output is opened
// where it still lies, since its format may name tensors otherwise than the input, or leave some out; its
// tensors are read only where names or types are not those that were written.
std::vector<TensorSum> written_sums(const Catalog& catalog, const Prepared& prepared,
                                    const exec::Outcome& outcome, const std::string& output,
                                    const RuleOptions& rules, Progress& progress, const StopFlag& stop);

}  // namespace uckpt
