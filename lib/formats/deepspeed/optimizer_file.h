// What is kept of one ZeRO optimizer file; its tree is freed.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/formats/deepspeed/model_file.h"

namespace uckpt::deepspeed {

// One optimizer state of one group on one rank: a flat partition, a number, or something else.
struct RankState {
  std::string name;              // "exp_avg"
  Place place;                   // if it is a tensor
  Shape shape;                   // of that tensor
  std::optional<Scalar> scalar;  // a number, or the value of a tensor of one element
  bool is_tensor = false;
};

// A param group (stages 1, 2) or sub-group (stage 3) on one rank.
struct RankGroup {
  std::optional<Place> master;
  std::vector<RankState> states;
};

struct OptimizerFile {
  RankFile file;
  Source source;
  std::optional<Error> damage, refusal;
  std::optional<std::string> difference;  // from the reference, in words

  std::optional<int> zero_stage;  // absent in files of BF16_Optimizer
  bool elastic = false;
  std::optional<bool> round_robin;    // round_robin_gradients of ds_config, if that is there
  bool has_partition_groups = false;  // AutoEP with stage 3
  std::string ds_version;
  std::vector<int64_t> partition_count;  // of each group; one number at stage 3
  std::vector<RankGroup> groups;
  std::vector<int64_t> paddings;             // of each group in this rank's partition
  std::vector<OptimizerGroup> param_groups;  // not stored by elastic files
  std::optional<Scalar> step;                // elastic, where the optimizer keeps it in its groups
  std::vector<LooseTensor> loose;
  std::optional<uint64_t> content;  // equal only for files whose tensors are all the same bytes
  std::string view;                 // of a repeated file: only if it differs from the reference
  torch::FileRecord pickle{};
  std::map<std::string, GlobalClass> globals;

  // Of the reference (the first data rank of a model rank) all of it, of the others the first of each group;
  // all of it from BF16_Optimizer.
  struct Mapping {
    std::string name;
    int64_t start, numel;
  };
  std::vector<std::vector<Mapping>> mappings;  // param_slice_mappings of this rank

  // Of the reference only.
  std::vector<std::vector<int64_t>> alignment;  // filler after each parameter, by group

  int stage() const { return zero_stage.value_or(1); }
};

// As read_model_file: keeps what may differ from `reference`, never throws for what is in the file.
OptimizerFile read_optimizer_file(const Folder& folder, const RankFile& file, const OptimizerFile* reference,
                                  const OpenOptions& options);

// Parts that the universal folder's optimizer_state.pt shares with these files.
std::optional<int> read_stage(const pickle::Value& value);
// {name: tensor or number} of one group.
std::vector<RankState> read_rank_states(const torch::TorchFile& file, Source& source,
                                        const pickle::Value& entry);
// The view of the inner dict without what describes the layout.
std::string view_of_zero_state(const torch::TorchFile& file, const pickle::Value& state);

}  // namespace uckpt::deepspeed
