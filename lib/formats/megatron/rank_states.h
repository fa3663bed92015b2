// The optimizer's states of a rank, given to its parameters: neither of the ways in which Megatron saves them
// has names. See formats of the distributed optimizer in grad_buffers.h; a plain optimizer numbers its
// parameters through its groups, each group's in order of registration, virtual chunk 0 first.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/formats/megatron/rank_file.h"
#include "lib/formats/megatron/rank_folder.h"

namespace uckpt::megatron {

struct StateTensor {
  std::string name;          // "fp32", "exp_avg", …
  torch::TensorInfo info;    // of the parameter's shape
  Source* source = nullptr;  // the file it lies in
};
struct ParameterStates {
  std::vector<StateTensor> tensors;
  std::vector<std::pair<std::string, Scalar>> numbers;  // "step"
  bool is_trained = false;                              // an optimizer has it, even if it has no state yet
};
using RankStates = std::vector<std::vector<ParameterStates>>;  // of each chunk, of each tensor in it

struct RankFiles {
  Rank rank;
  ModelFile* model = nullptr;
  OptimFile* optim = nullptr;  // null where there is none
};

// Which of a rank's optimizers has a parameter: the dense ones first (one, or one for chunk 0 and one for the
// others), then that of experts, where these are spread over ranks.
class OptimizerShares {
 public:
  // Throws refused `megatron.optimizers` for a number of optimizers that cannot be.
  OptimizerShares(const ModelFile& model, const Parallelism& p, size_t optimizers);
  size_t owner(size_t chunk, const ModelTensor& t) const;
  bool is_expert(const ModelTensor& t) const { return has_experts_ && t.is_expert; }

 private:
  size_t dense_;
  bool has_experts_;
};

// Throws refused `megatron.optimizer_size` where no layout of buffers has the size of the file's arrays, and
// `megatron.unnamed_states` where numbers cannot be told to parameters.
void add_flat_states(const RankFiles& files, const Parallelism& p, RankStates& out);
void add_plain_states(const RankFiles& files, const Parallelism& p, RankStates& out);
// The step counts that stand in param_groups.
void add_group_steps(const RankFiles& files, const Parallelism& p, RankStates& out);

// The group of an optimizer that takes a parameter, by the rules that Megatron makes groups by; nothing if
// several or none do.
std::optional<size_t> group_of(const OptimizerEntry& optimizer, const ModelTensor& t);

}  // namespace uckpt::megatron
