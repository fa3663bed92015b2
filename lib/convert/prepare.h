// A conversion up to its plan: open → catalog → check → layout → plan. Nothing is written.
#pragma once

#include <string>

#include "lib/convert/options.h"
#include "lib/convert/plan_summary.h"
#include "lib/exec/tasks.h"
#include "lib/formats/writer.h"
#include "lib/plan/plan.h"

namespace uckpt {

// A conversion as far as it is decided before anything is written.
struct Prepared {
  TargetLayout layout;
  plan::Plan plan;
  exec::Buffers buffers;
  int64_t held_bytes = 0;  // what this and the catalog take in memory, estimated
  const Writer* writer = nullptr;
  WriteRequest request;
};

// open → catalog → check: joined, renamed, and without copies that cannot be compared.
Catalog open_for_conversion(const std::string& in, const std::string& out, const ConvertOptions& options);

// A module weight that is stored beside its master, because it differs from it. Tied names follow, and its
// replicas are compared with it.
void keep_module_weight(Catalog& catalog, uint32_t tensor, uint32_t copy);

// layout → plan. `first_object`: what `Catalog::add_object_tensors` told.
Prepared prepare(Catalog& catalog, uint32_t first_object, const std::string& out,
                 const ConvertOptions& options);

PlanTotals total_up(const Catalog& catalog, const Prepared& prepared);
PlanSummary summarise(const Catalog& catalog, const Prepared& prepared);

// Throws trouble where the output is one of the input's files, a folder that holds one, or a folder that
// holds something else than a checkpoint.
void refuse_output_among_inputs(const Catalog& catalog, const std::string& out);

}  // namespace uckpt
