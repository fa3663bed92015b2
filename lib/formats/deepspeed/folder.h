// What lies in a DeepSpeed checkpoint's folder, told from the names alone, and which folder is meant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/format.h"
#include "lib/io/input.h"

namespace uckpt::deepspeed {

enum class Role : uint8_t { kModel, kZeroModel, kOptimizer, kLayer, kExpert, kExpertOptimizer };

// A file name taken apart. DeepSpeed prints the data parallel rank as "pp_rank", for historical reasons.
struct RankFile {
  Role role{};
  std::string name;
  int64_t model = 0;   // mp_rank: the model rank; for a layer file the tensor parallel rank
  int64_t data = 0;    // zero_pp_rank: the data parallel rank; expp_rank: the expert parallel rank
  int64_t layer = -1;  // layer_L: of the pipeline, or the number of the MoE layer
  int64_t expert = -1;
};

std::optional<RankFile> parse_name(std::string_view name);

// The files of one checkpoint (one tag), each list sorted by model rank, data rank, layer, expert.
struct Folder {
  explicit Folder(std::string path) : files(std::move(path)) {}
  InputFolder files;  // the tag folder
  std::string tag;
  bool universal = false;
  std::string note;  // how the tag was chosen where `latest` did not say it
  std::vector<RankFile> models, zero_models, optimizers, layers, experts, expert_optimizers;

  std::vector<RankFile>& list(Role role);
};

// A folder, a file of it, or the root above it that looks like ours. Never throws for foreign files.
bool looks_like_deepspeed(const Target& target);

// Throws `deepspeed.no_tag` and `deepspeed.no_latest` where the root does not say which checkpoint is meant.
Folder find_folder(const Target& target);

}  // namespace uckpt::deepspeed
