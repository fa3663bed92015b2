// What is kept of the files of one rank of a legacy checkpoint: model_optim_rng.pt, and distrib_optim.pt
// where the optimizer is distributed. The pickles' trees are freed.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/error.h"
#include "lib/formats/deepspeed/source.h"
#include "lib/formats/deepspeed/views.h"
#include "lib/formats/format.h"
#include "lib/formats/megatron/arguments.h"

namespace uckpt::megatron {

using deepspeed::LooseTensor;
using deepspeed::Place;
using deepspeed::Scalar;
using deepspeed::Source;

// What a module saves beside its parameters. Parameters have gradients, so they are floating; of buffers that
// are floating, the names are those that modules of megatron-core and torch's norms register.
bool is_buffer(std::string_view name, DType dtype);

struct ModelTensor {
  std::string name;  // as the file has it: layers and experts count from 0; nested dicts are joined by dots
  torch::TensorInfo info;
  // It is no parameter: a buffer that a module saves. Gradients and the optimizer know nothing of it.
  bool is_buffer = false;
  bool is_expert = false;  // of a module of experts
};
// The tensors of one virtual chunk, parameters in order of registration.
using Chunk = std::vector<ModelTensor>;

// One entry of param_groups. What it does not say is absent.
struct OptimizerGroup {
  std::optional<bool> decays;     // its parameters have weight decay
  std::optional<bool> decoupled;  // they have a learning rate of their own: embedding and output
  std::optional<Scalar> step;
  std::vector<int64_t> params;  // numbers of the parameters; empty with the distributed optimizer
};

// A state of a parameter: a tensor, or a number.
struct NumberedState {
  std::string name;  // "exp_avg"
  std::optional<torch::TensorInfo> info;
  std::optional<Scalar> number;  // also of a tensor of one element
};

// An entry of the model file's `optimizer`: of a run with several optimizers there are several.
struct OptimizerEntry {
  std::vector<OptimizerGroup> groups;
  std::map<int64_t, std::vector<NumberedState>> states;  // by number of parameter
  // fp32_from_fp16_params: the fp32 weights of each group's 16-bit parameters, in order.
  std::vector<std::vector<torch::TensorInfo>> masters;
  bool has_masters = false;
  bool is_plain() const { return has_masters || !states.empty(); }
};

// A gradient buffer's worth of optimizer states: flat arrays without names.
struct FlatBuffer {
  std::optional<DType> dtype;  // of the module's weights, where the file says it
  bool is_coalesced = false;   // one array a state, without the padding at the ends of buckets
  std::optional<int64_t> numel_unpadded;
  // Of each state ("param" is the fp32 weight) the array, or one of each bucket.
  std::vector<std::pair<std::string, std::vector<Place>>> states;
};
// Of one distributed optimizer; nothing where this rank's file does not have its states.
using FlatOptimizer = std::optional<std::vector<FlatBuffer>>;

struct OptimFile {
  Source source;
  std::optional<Error> refusal;
  std::vector<FlatOptimizer> optimizers;
  std::string view;
  torch::FileRecord pickle{};
  std::map<std::string, GlobalClass> globals;
};

struct ModelFile {
  Source source;
  std::optional<Error> refusal;  // it may be looked at, not converted
  Arguments arguments;
  std::optional<double> version;  // checkpoint_version
  std::optional<int64_t> iteration;
  std::map<std::string, std::string> numbers;  // further numbers at the top, for people
  std::vector<Chunk> chunks;
  bool is_chunked = false;  // model0, model1, … rather than model
  bool has_optimizer = false;
  std::vector<OptimizerEntry> optimizers;
  std::vector<LooseTensor> loose;  // random states, a grad scaler's numbers, extra states
  std::string view;
  torch::FileRecord pickle{};
  std::map<std::string, GlobalClass> globals;
};

inline Error malformed(std::string what) { return refused("megatron.malformed", std::move(what)); }

// `name` is inside the iteration's folder. Both throw for what is malformed: `megatron.malformed`, and what
// torch files are refused for.
ModelFile read_model_file(const InputFolder& folder, const std::string& name, const OpenOptions& options);
OptimFile read_optim_file(const InputFolder& folder, const std::string& name, const OpenOptions& options);

}  // namespace uckpt::megatron
