// How a rank's parameters lie in the flat arrays of its distributed optimizer, found out from the arrays'
// sizes: which buckets a run had is not always in its arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/formats/megatron/grad_buffers.h"
#include "lib/formats/megatron/rank_file.h"

namespace uckpt::megatron {

// Where a parameter's elements begin: in which array, at which element.
struct FlatPlace {
  size_t parameter;  // index in the list of the chunk's parameters
  size_t array = 0;
  int64_t start = 0;
  bool operator==(const FlatPlace&) const = default;
};
using FlatPlaces = std::vector<FlatPlace>;

// One buffer of a chunk: what is known of it, and what the file has.
struct FlatQuestion {
  const std::vector<GradParameter>* parameters;  // of the chunk, in order of registration
  size_t buffer;                                 // index in what `grad_buffers` makes of them
  const FlatBuffer* found;
  BucketRule rule;           // the likeliest
  int64_t bucket_size = 0;   // as the arguments have it; 0: not at all
  int64_t most_padding = 0;  // at the end of a bucket that is stored with it
};

// The layout by the rule, else by one of its variants. Nothing fits: empty.
std::optional<FlatPlaces> lay_out_by_rule(const FlatQuestion& question);

// All layouts that another bucket size gives and that fit: for a run that did not save its own. The search is
// bounded.
std::vector<FlatPlaces> lay_out_by_size(const FlatQuestion& question);

}  // namespace uckpt::megatron
