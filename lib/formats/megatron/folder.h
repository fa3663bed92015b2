// Where a Megatron checkpoint lies, told from names alone: which iteration of a run, written in which way.
//
// `<save>/latest_checkpointed_iteration.txt` names the iteration, a decimal number, or `release`; the folder
// is `iter_%07d` or `release` (checkpointing.py of Megatron-LM).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/format.h"
#include "lib/io/input.h"

namespace uckpt::megatron {

inline constexpr std::string_view kTracker = "latest_checkpointed_iteration.txt";

enum class FolderKind : uint8_t {
  kCore,      // metadata.json: Megatron-core's distributed checkpoint, "torch_dist"
  kPlainDcp,  // .metadata without it: "torch_dcp", "fsdp_dtensor", written by torch itself
  kLegacy,    // mp_rank_* sub-folders: "torch"
};

struct Folder {
  explicit Folder(std::string path) : files(std::move(path)) {}
  InputFolder files;  // of the iteration
  std::string name;   // its last part: "iter_0000120", "release"
  FolderKind kind{};
  std::vector<std::string> entries;  // naturally sorted; folders end in '/'
  std::optional<int64_t> iteration;  // as the folder's name has it; nothing for `release`
  std::string note;                  // how it was chosen, where no tracker says it; else empty
};

// "iter_0000120" for 120.
std::string iteration_folder_name(int64_t iteration);
// 120 for "iter_0000120"; nothing for what is no such name.
std::optional<int64_t> iteration_of(std::string_view folder_name);

// How the folder of an iteration was written, from its entries; nothing if it is none.
std::optional<FolderKind> kind_of(std::span<const std::string> entries);

// The target is a checkpoint of this kind: the folder of an iteration, a file of it, the root above it, or
// the tracker file. A root whose tracker leads nowhere counts as legacy, so that reading it says what is
// wrong. Never throws for foreign files.
bool looks_like(const Target& target, FolderKind kind);

// Throws refused `megatron.tracker` for a tracker that holds something else, `megatron.no_iteration` where
// the iteration is not there or is not to be told, `megatron.backend` for an old zarr checkpoint.
Folder find_folder(const Target& target);

}  // namespace uckpt::megatron
