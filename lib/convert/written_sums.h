// The manifest of what a conversion wrote, from the digests that were computed while it copied.
#pragma once

#include <vector>

#include "lib/convert/manifest.h"
#include "lib/convert/prepare.h"
#include "lib/exec/executor.h"

namespace uckpt {

// As `sum_tensors` of the output would tell them. Needs RunOptions::tensor_digests.
std::vector<TensorSum> written_sums(const Catalog& catalog, const Prepared& prepared,
                                    const exec::Outcome& outcome);

}  // namespace uckpt
