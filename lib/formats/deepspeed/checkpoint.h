// All rank files of one checkpoint, read and checked against each other.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "lib/formats/deepspeed/model_file.h"
#include "lib/formats/deepspeed/optimizer_file.h"

namespace uckpt::deepspeed {

// Runs f(0) … f(n-1) on all cores.
void in_parallel(size_t n, const std::function<void(size_t)>& f);

struct Checkpoint {
  explicit Checkpoint(Folder f) : folder(std::move(f)) {}
  Folder folder;
  Mesh mesh;                              // as the files say, not as the listing does
  int stage = 0;                          // of ZeRO
  std::vector<ModelFile> models;          // by model rank, then data rank; at stages below 3 one a model rank
  std::vector<OptimizerFile> optimizers;  // by model rank, then data rank
  std::vector<WeightFile> layers, experts, expert_optimizers;

  std::vector<std::string> missing;  // names of files that must be there
  std::string missing_note;          // "ranks 0-2, 4-7 are here"
  std::vector<Error> problems;       // why it cannot be converted, the gravest first
  std::vector<std::string> warnings;

  // Good files only; null where one is missing or damaged.
  ModelFile* model(int64_t model_rank, int64_t data_rank);
  OptimizerFile* optimizer(int64_t model_rank, int64_t data_rank);
  // The file of a model rank that says what all its data ranks share.
  ModelFile* reference_model(int64_t model_rank);
  OptimizerFile* reference_optimizer(int64_t model_rank);
  // What the optimizer file of a rank is called, whether it is there or not.
  std::string optimizer_name(int64_t model_rank, int64_t data_rank) const;
  // AutoEP's layers; none in other models.
  const std::vector<FusedExperts>& fused() const;
  int64_t model_ranks() const { return mesh.tp * mesh.pp; }
};

// Throws if not one model file can be read. A universal folder has no optimizer files: its own state says the
// stage.
Checkpoint load_checkpoint(Folder folder, const OpenOptions& options, std::optional<int> universal_stage);

}  // namespace uckpt::deepspeed
