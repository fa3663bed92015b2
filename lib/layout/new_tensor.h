// One tensor under its new name: its value, shape and pieces from the source tensors that it is made of.
#pragma once

#include <vector>

#include "lib/layout/map_jobs.h"
#include "lib/layout/regrouped.h"

namespace uckpt::layout {

// A contribution, and the part of the rule's source side that it is of.
struct PartContribution {
  size_t part = 0;
  Contribution what;
};

// Fills in a tensor that has its name and state; `from` is not empty. False where something does not fit,
// which is told.
bool make_tensor(Catalog& catalog, const MapJobs& jobs, const MapJob& job, size_t target_part,
                 const Facts& facts, const std::vector<PartContribution>& from, Tensor& tensor);

}  // namespace uckpt::layout
