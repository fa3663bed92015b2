// How the checksum of each record of the input comes about: internal to lib/plan.
#pragma once

#include "lib/plan/plan.h"

namespace uckpt::plan {

// Fills Plan::checks, check_of_record and check_reads, from moves, compares and addends that are planned. A
// record whose bytes are each read once is checked on the way, with further reads of the bytes that nobody
// wants; any other is read once more, in a pass of its own.
void plan_checks(const Catalog& catalog, const TargetLayout& target, bool check_digests, Plan& plan);

}  // namespace uckpt::plan
