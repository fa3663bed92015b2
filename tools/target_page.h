// The target's half of a plan as text: which of its files gets which box of which tensor.
#pragma once

#include "lib/convert/plan_summary.h"
#include "tools/output.h"

namespace uckpt::cli {

// `all`: every file and every part; else files whose names differ in numbers together, and a few parts each.
void print_target(const PlanSummary& plan, bool all, Out& out);

}  // namespace uckpt::cli
