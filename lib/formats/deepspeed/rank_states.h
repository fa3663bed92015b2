// What the ranks of one group say together: which states are cut into partitions, which are one number.
#pragma once

#include <string>
#include <vector>

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"

namespace uckpt::deepspeed {

// The ranks that share one group's buffer, in the order of their partitions.
struct RankFamily {
  std::vector<OptimizerFile*> files;  // null where one is missing or damaged
  std::vector<std::string> names;     // of all files
  size_t group = 0;                   // param group or sub-group

  const RankGroup* at(size_t rank) const;
  // The first file that is there, or null.
  const OptimizerFile* any() const;
};

// The ranks that share a group's buffer: all, or for experts those of one expert rank in order.
RankFamily family_of(Checkpoint& checkpoint, int64_t model_rank, size_t group, int64_t expert_ranks,
                     int64_t expert_rank, bool data_first);

// A state that is one tensor a rank. A null place: that rank's file is not there.
struct CutState {
  std::string name;
  DType dtype{};
  std::vector<const Place*> places;
};

// The states of a group, the master first. `fits(rank, numel)` tells whether a rank's tensor is a partition.
struct GroupStates {
  std::vector<CutState> cut;
  std::vector<std::pair<std::string, Scalar>>
      numbers;  // equal on all ranks, or the first with a problem noted
};
using PartitionTest = std::function<bool(size_t rank, int64_t numel)>;

// Throws `deepspeed.mixed_runs` where a rank lacks a state, `deepspeed.sizes` where a partition does not fit,
// `deepspeed.step_disagrees`. Tensors that are neither are left to the files' loose tensors.
GroupStates read_group_states(const RankFamily& family, const PartitionTest& fits, std::string_view expected);

}  // namespace uckpt::deepspeed
