// The universal folder: one small file a parameter and state, whole tensors.
#pragma once

#include <string>
#include <vector>

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"
#include "lib/formats/deepspeed/weights.h"

namespace uckpt::deepspeed {

struct UniversalFile {
  std::string param, state;  // zero/<param>/<state>.pt
  Source source;
  std::optional<Error> damage, refusal;
  std::optional<torch::TensorInfo> tensor;
  std::optional<Scalar> scalar;  // a number, or the value of a tensor of one element
  bool bare = false;             // no dict around it: the shape may be lost
  std::map<std::string, GlobalClass> globals;
};

// zero/optimizer_state.pt: what the optimizer files of all ranks have in common.
struct UniversalState {
  Source source;
  std::optional<Error> damage, refusal;
  std::optional<int> zero_stage;
  std::vector<std::vector<RankState>> states;  // numbers of each (sub-)group
  std::vector<OptimizerGroup> groups;
  std::vector<LooseTensor> loose;
  std::string view;
  torch::FileRecord pickle{};
  std::map<std::string, GlobalClass> globals;
};

struct UniversalFolder {
  std::vector<UniversalFile> files;  // by parameter
  UniversalState state;
};

UniversalFolder read_universal_folder(const Folder& folder, const OpenOptions& options);

// Adds the masters and their states. Buffers, second names and frozen parameters, which DeepSpeed writes as
// fp32 folders too, are left to the model files.
void add_universal(Builder& builder, Checkpoint& checkpoint, UniversalFolder& folder);
// Those folders, once the model files' weights are there: copies of buffers and frozen parameters where they
// have the same type. Others may be rounded, and are not compared.
void add_universal_copies(Builder& builder, const Checkpoint& checkpoint, UniversalFolder& folder);

}  // namespace uckpt::deepspeed
