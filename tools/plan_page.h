// A conversion's plan as text and as JSON: for `plan`, and for `convert -n`.
#pragma once

#include "lib/convert/convert.h"
#include "tools/output.h"

namespace uckpt::cli {

// `all`: each tensor on a line of its own, else numbered layers together.
void print_plan(const PlanSummary& plan, bool all, Out& out);
void print_plan_json(const PlanSummary& plan, Out& out);

}  // namespace uckpt::cli
