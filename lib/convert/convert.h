// The whole path on one page: open → catalog → check → layout → plan → preallocate → copy → verify → commit.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lib/convert/options.h"
#include "lib/exec/progress.h"

namespace uckpt {

// How one tensor comes about, in the words of Universal Checkpointing: Extract the pieces, Union them,
// StripPad.
struct TensorRecipe {
  std::string path;  // "fp32/emb.weight"
  std::string dtype, shape;
  int64_t bytes;
  int64_t pieces;        // in the input
  int64_t copies;        // compared while reading
  std::string how;       // "2 dp shards, flat"
  std::string alias_of;  // hard link to this path
  int64_t files;         // that the pieces lie in
  int64_t mean_of;       // wholes that are averaged; 1 where nothing is
};

struct PlanSummary {
  std::string kind, to;
  int64_t tensors = 0, links = 0, objects = 0;
  int64_t files_in = 0, files_out = 0;
  int64_t bytes_in = 0, bytes_out = 0, bytes_compared = 0;
  int64_t moves = 0;
  int64_t peak_memory = 0;  // buffers and the plan itself, bytes
  std::vector<TensorRecipe> recipes;
  std::vector<std::string> warnings;
};

struct ConvertReport {
  PlanSummary plan;
  int64_t file_size = 0;
  double seconds = 0;
  int64_t checksums_checked = 0;
  std::vector<std::string> kept_module_weights;  // stored beside their master, because they differ from it
};

// Everything but the writing. Throws what the conversion would throw before it writes.
PlanSummary plan_conversion(const std::string& in, const std::string& out, const ConvertOptions& options);
ConvertReport convert(const std::string& in, const std::string& out, const ConvertOptions& options,
                      Progress& progress, const StopFlag& stop);

}  // namespace uckpt
