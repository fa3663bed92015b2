// The whole path on one page: open → catalog → check → layout → plan → preallocate → copy → verify → commit.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lib/convert/options.h"
#include "lib/convert/plan_summary.h"
#include "lib/exec/progress.h"

namespace uckpt {

struct ConvertReport {
  PlanTotals plan;
  int64_t file_size = 0;
  double seconds = 0;
  int64_t checksums_checked = 0;
  int64_t continued = 0;                         // bytes of output that an interrupted run had written
  std::string device;                            // "cpu", "cuda:0"
  int64_t on_device = 0;                         // bytes of output that it filled
  int64_t direct = 0;                            // bytes that it read and wrote itself (GPUDirect Storage)
  std::vector<std::string> kept_module_weights;  // stored beside their master, because they differ from it
};

// Everything but the writing. Throws what the conversion would throw before it writes.
// `document`: what `plan_document` makes of the plan; null where it is not wanted.
PlanSummary plan_conversion(const std::string& in, const std::string& out, const ConvertOptions& options,
                            std::string* document = nullptr);
// With ConvertOptions::kept exactly what that plan says, or nothing: throws `plan.source` where an input file
// is not the one that was planned for, `plan.differs` where the plan is not the one that is made now.
ConvertReport convert(const std::string& in, const std::string& out, const ConvertOptions& options,
                      Progress& progress, const StopFlag& stop);

}  // namespace uckpt
