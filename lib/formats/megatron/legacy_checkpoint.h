// All rank files of a legacy checkpoint, read and checked against each other.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/formats/megatron/folder.h"
#include "lib/formats/megatron/rank_file.h"
#include "lib/formats/megatron/rank_folder.h"
#include "lib/formats/megatron/rank_states.h"

namespace uckpt::megatron {

inline constexpr std::string_view kModelFile = "model_optim_rng.pt", kOptimFile = "distrib_optim.pt";

struct LoadedRank {
  Rank rank;
  std::string name;                // of its folder
  std::optional<ModelFile> model;  // nothing: missing or damaged
  std::optional<OptimFile> optim;
  RankStates states;     // of the model's tensors
  std::string unplaced;  // not empty: why it is not known which parameters `optim` has states of
};

struct LegacyCheckpoint {
  explicit LegacyCheckpoint(Folder f) : folder(std::move(f)) {}
  Folder folder;
  Parallelism parallelism;
  std::vector<LoadedRank> ranks;  // all that there must be, as `ranks_of` counts them

  std::vector<std::string> missing;  // names of folders and files
  std::string here;                  // of those that are there: "mp_rank_00 and mp_rank_01 are here"
  std::vector<Error> problems;       // why it cannot be converted, the gravest first
  std::vector<std::string> warnings;

  const LoadedRank& first() const;  // one that was read
};

// Throws if not one rank's file can be read, and where the folders are not one checkpoint's: refused
// `megatron.arguments`, `megatron.ranks`, `megatron.old_layout`.
LegacyCheckpoint load_legacy(Folder folder, const OpenOptions& options);

}  // namespace uckpt::megatron
