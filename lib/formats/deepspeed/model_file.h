// What is kept of one `*_model_states.pt` file; its tree is freed.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/formats/deepspeed/folder.h"
#include "lib/formats/deepspeed/fused_experts.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/source.h"
#include "lib/formats/deepspeed/universal_info.h"
#include "lib/formats/deepspeed/views.h"
#include "lib/formats/deepspeed/wrapped_names.h"
#include "lib/formats/format.h"

namespace uckpt::deepspeed {

struct NamedTensor {
  std::string name;
  torch::TensorInfo info;
};

// One entry of a torch optimizer's param_groups.
struct OptimizerGroup {
  bool moe = false;
  std::string name;            // "ep_size_2"
  std::optional<Scalar> step;  // where the optimizer keeps it here
  std::vector<int64_t> params;
  std::vector<std::string> param_names;  // newer torch writes them if it was given named parameters
};

// A state value of an optimizer that keeps one entry a parameter.
struct PlainState {
  std::string name;  // "exp_avg"
  torch::TensorInfo info;
  std::optional<Scalar> scalar;  // a number, or a tensor of one element
  bool is_tensor = false;
};

// A torch optimizer's state_dict as it is saved without ZeRO. The 16-bit wrappers add their fp32 weights: one
// flat tensor a group (fused), or one tensor a parameter.
struct PlainOptimizer {
  std::vector<OptimizerGroup> groups;
  std::map<int64_t, std::vector<PlainState>> state;  // by parameter number; of a fused wrapper by group
  std::vector<Place> flat_masters;
  std::vector<std::vector<torch::TensorInfo>> masters;
};

struct ModelFile {
  RankFile file;
  Source source;
  std::optional<Error> damage;            // it could not be read: nothing below is set
  std::optional<Error> refusal;           // it may be looked at, not converted
  std::optional<std::string> difference;  // from the reference, in words: not of the same save

  // Of every file.
  std::map<std::string, int64_t> counts;  // global_steps, dp_world_size, …
  std::string ds_version;
  std::optional<int64_t> tp_degree, pp_degree;
  std::vector<NamedTensor> module;  // of a repeated file: only buffers
  std::vector<Place> fragments;     // frozen_param_fragments, in the order of frozen_shapes
  std::vector<LooseTensor> loose;
  std::string view;  // of a repeated file: only if it differs from the reference
  torch::FileRecord pickle{};
  std::map<std::string, GlobalClass> globals;

  // Of the reference file of a model rank: the others repeat it.
  std::optional<ParamGroups> param_shapes;
  std::optional<ParamList> frozen_shapes;
  std::vector<std::string> buffer_names;
  std::vector<std::pair<std::string, std::string>> shared;  // alias -> stored name
  WrappedModules wrapped;                                   // whose names `module` has, not their keys
  std::string comparable_view;
  std::optional<PlainOptimizer> optimizer;
  std::optional<UniversalInfo> universal;
  std::map<std::string, int64_t, std::less<>> arguments;  // whole numbers among the training run's `args`
  bool data_before_experts = false;
  std::optional<std::vector<int64_t>> experts;  // of each MoE layer; none in a model without any
  std::vector<FusedExperts> fused;              // of AutoEP
};

// Reads one file. With a `reference` (another data rank's file of the same model rank) only what may differ
// is kept. Never throws for what is in the file: see `damage`.
ModelFile read_model_file(const Folder& folder, const RankFile& file, const ModelFile* reference,
                          const OpenOptions& options);

PlainOptimizer read_plain_optimizer(const torch::TorchFile& file, Source& source, const pickle::Value& value);
OptimizerGroup read_optimizer_group(const torch::TorchFile& file, const Source& source,
                                    const pickle::Value& value);
std::vector<int64_t> read_integers(const pickle::Value& value);

// A pipeline layer's or an expert's file: a dict of tensors.
inline constexpr std::string_view kNothing = "{}";
struct WeightFile {
  RankFile file;
  Source source;
  std::optional<Error> damage, refusal;
  std::vector<NamedTensor> tensors;
  std::string view;  // of what else it holds: kNothing where there is none; empty if no views are wanted
  torch::FileRecord pickle{};
  std::map<std::string, GlobalClass> globals;
  std::optional<PlainOptimizer> optimizer;  // of an expp_rank file
};
WeightFile read_weight_file(const Folder& folder, const RankFile& file, const OpenOptions& options);

}  // namespace uckpt::deepspeed
