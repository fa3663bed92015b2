// A conversion's plan as text: for `plan`, and for `convert -n`.
#pragma once

#include "lib/convert/convert.h"
#include "tools/output.h"

namespace uckpt::cli {

// `all`: each tensor and each file on a line of its own, with all its parts; else numbered ones together, and
// the first few parts.
void print_plan(const PlanSummary& plan, bool all, Out& out);

}  // namespace uckpt::cli
