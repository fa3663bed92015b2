// Is a conversion the one that was interrupted, and how far did that come?
//
// A run is told by lines of text, which its journal keeps: the version, the flags that decide the plan, every
// input file (size, time, inode), which module weights are stored beside their masters, and what the plan
// came to.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/convert/options.h"
#include "lib/exec/journal.h"
#include "lib/exec/tasks.h"

namespace uckpt {

// A module weight that differs from its master, so that both are stored: found by comparing.
struct KeptModuleWeight {
  uint32_t tensor, copy;
};

// The lines that are known before there is a plan.
std::vector<std::string> lines_of_request(const Catalog& catalog, const ConvertOptions& options);
// The others.
std::vector<std::string> lines_of_plan(const Catalog& catalog, const TargetLayout& layout,
                                       const plan::Plan& plan, const exec::Buffers& buffers,
                                       const std::vector<KeptModuleWeight>& kept);

// What is no more as it was when the run of the journal began: one clause for people. Nothing: all is.
std::optional<std::string> what_changed(const std::vector<std::string>& then,
                                        const std::vector<std::string>& request);
// Those that the run of the journal had come to keep, in its order.
std::vector<KeptModuleWeight> kept_in(const std::vector<std::string>& run);

}  // namespace uckpt
