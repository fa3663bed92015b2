// What a plan comes to, for people: where each tensor comes from, and what each file of the target is given.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/plan/plan.h"
#include "lib/tensor/catalog.h"
#include "lib/tensor/target.h"

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

// What an owner of the target holds of a tensor.
struct PlannedShard {
  std::string path;  // "exp_avg/emb.weight"
  std::string state;
  std::string dtype;  // of the tensor
  int64_t elements;   // padding counted
  std::string boxes;  // of the tensor: "[0:4/8, 16]"; empty where it is all of it
};

// A range of it in a file.
struct PlannedPart {
  size_t shard;
  int64_t offset;        // bytes in the file; -1 where the library that makes the file tells it
  int64_t first, count;  // elements of the shard
  int64_t bytes;
  std::string_view dtype;  // as written
  bool is_copy;            // another file has these elements, too
};

struct PlannedFile {
  std::string name;   // relative to the output; empty where it is one file
  int64_t bytes = 0;  // 0 where a library makes it
  int64_t fixed = 0;  // of them known now: headers, pickles, indices
  int64_t filled = 0;
  bool is_made = false;  // by a library
  int64_t late_fields = 0;
  std::vector<PlannedPart> parts;
  // Padding, and what lies between parts.
  int64_t zeros() const { return is_made ? 0 : bytes - fixed - filled; }
};

struct PlanTotals {
  std::string kind, to;
  int64_t tensors = 0, links = 0, objects = 0;
  int64_t files_in = 0, files_out = 0;
  int64_t bytes_in = 0, bytes_out = 0, bytes_compared = 0;
  int64_t moves = 0;
  int64_t peak_memory = 0;  // buffers and the plan itself, bytes
  // What computes ("cpu", "cuda:0"), and why. Empty where there is nothing to choose from.
  std::string device, device_why;
  std::vector<std::string> warnings;
};

// With every tensor and every shard: many times the plan's own size.
struct PlanSummary : PlanTotals {
  std::vector<TensorRecipe> recipes;
  std::vector<PlannedShard> shards;
  std::vector<PlannedFile> files;
};

// `tensors`: those that were chosen, each alias after its source.
PlanTotals total_up(const Catalog& catalog, std::span<const uint32_t> tensors, const TargetLayout& layout,
                    const plan::Plan& plan);
PlanSummary summarise(const Catalog& catalog, std::span<const uint32_t> tensors, const TargetLayout& layout,
                      const plan::Plan& plan);

}  // namespace uckpt
