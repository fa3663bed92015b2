// A legacy Megatron checkpoint to be: its mesh, and everything its files are made from.
#pragma once

#include "lib/formats/megatron/grad_buffers.h"
#include "lib/formats/megatron/write/output_file.h"
#include "lib/formats/megatron/write/rank_parts.h"
#include "lib/formats/megatron/write/state_copier.h"
#include "lib/formats/megatron/write/target_mesh.h"

namespace uckpt::megatron {

// What groups are made with where the source is no Megatron checkpoint: its own numbers, else Megatron's and
// Adam's defaults.
struct OptimizerNumbers {
  double lr = 0.0003, min_lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
};

struct TargetCheckpoint {
  TargetCheckpoint(const Catalog& from, const SourceState& state, const TargetMesh& sizes, RankParts& held,
                   std::vector<std::string>& said)
      : catalog(from), source(state), mesh(sizes), parts(held), notes(said), iteration(from.iteration) {}

  const Catalog& catalog;
  const SourceState& source;
  const TargetMesh& mesh;
  RankParts& parts;
  std::vector<std::string>& notes;
  std::string folder;                // "iter_0000120/"
  std::optional<int64_t> iteration;  // nothing: a release
  bool has_optimizer = false;
  bool is_distributed = true;  // its optimizer's states lie in distrib_optim.pt
  bool has_experts = false;    // of an optimizer of their own
  std::optional<double> step;
  OptimizerNumbers numbers;
  std::string format = "torch";  // as args call it

  // Facts of all ranks.
  std::vector<std::vector<int64_t>> layers;  // of each stage, of each of its chunks
  std::optional<int64_t> padded_vocab;
  DType params_dtype = DType::kBF16;

  // RankParts' number of a chunk of the n-th file.
  size_t rank_of(size_t file, int64_t chunk) const {
    return file * static_cast<size_t>(mesh.vp) + static_cast<size_t>(chunk);
  }
  // The states of a parameter lie with this file. An optimizer that is not distributed is in each rank's.
  bool keeps_states(const RankFile& file, const Held& h) const {
    return has_optimizer && h.is_trained() &&
           (!is_distributed || (h.is_expert ? file.has_expert_states : file.has_dense_states));
  }
  // Elements at which a bucket of gradients is full; 0: each buffer has one bucket.
  int64_t bucket_size(size_t file) const;
  // The element type of a buffer's gradients.
  DType grad_dtype(DType params) const;
  // Plain Adam in fp32 has no masters.
  bool is_fp32() const { return !is_distributed && params_dtype == DType::kF32; }
};

// model_optim_rng.pt and distrib_optim.pt of the n-th file of the mesh.
void add_model_file(const TargetCheckpoint& target, size_t file);
void add_distributed_states(const TargetCheckpoint& target, size_t file);

// Says in the notes what the source has nothing of, and what stands in its place.
void note_what_is_made(const TargetCheckpoint& target);

OptimizerNumbers optimizer_numbers(const Catalog& catalog);

// Values of model_optim_rng.pt.
void write_args(OutputFile& out, const TargetCheckpoint& target, StateCopier& copier);
void write_optimizer(OutputFile& out, const TargetCheckpoint& target, StateCopier& copier, size_t file);
// The entry `param_groups` of one optimizer, without its parameters.
void write_param_groups(OutputFile& out, const TargetCheckpoint& target, StateCopier& copier,
                        bool of_experts);
// The learning rate's schedule where the source has none: a loader wants one beside an optimizer.
void write_scheduler(OutputFile& out, const TargetCheckpoint& target);

}  // namespace uckpt::megatron
