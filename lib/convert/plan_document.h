// A plan as JSON, whole: what `plan --json` prints, `plan -o` keeps and `convert --plan` holds to. The same
// request, input and tool make the same text, but for what the machine adds: its memory and device.
#pragma once

#include <string>
#include <vector>

#include "lib/convert/plan_summary.h"

namespace uckpt {

inline constexpr uint64_t kPlanVersion = 1;

struct DocumentFacts {
  std::string in;                    // the input as it was named: its files are told relative to it
  std::string created_by;            // "uckpt 0.1.0"
  std::vector<std::string> request;  // the command line's flags that decide the plan, IN and OUT
};

// The top-level keys of a document that say how the plan was asked for and on what machine, and nothing about
// what it does.
inline bool is_about_the_request(std::string_view key) {
  return key == "request" || key == "peak_memory" || key == "device" || key == "device_why";
}

std::string plan_document(const Catalog& catalog, const TargetLayout& layout, const plan::Plan& plan,
                          const PlanSummary& summary, const DocumentFacts& facts);

// An input file, as a document tells whether it is the same.
struct SourceFile {
  std::string name;  // relative to the input
  uint64_t bytes = 0;
  std::string modified;  // "2026-01-31T12:00:00.000000000Z"
  bool operator==(const SourceFile&) const = default;
};
// In the order of Catalog::files.
std::vector<SourceFile> source_files(const Catalog& catalog, const std::string& in);

}  // namespace uckpt
