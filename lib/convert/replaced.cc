#include "lib/convert/replaced.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/format.h"
#include "lib/formats/hugging_face/companions.h"

namespace uckpt {

namespace {

namespace fs = std::filesystem;

// Of files that frameworks write beside those that hold tensors: whole names, beginnings and ends.
constexpr std::array<std::string_view, 9> kNames = {".metadata",
                                                    "latest",
                                                    "latest_universal",
                                                    "latest_checkpointed_iteration.txt",
                                                    "zero_to_fp32.py",
                                                    "config.json",
                                                    "zero",
                                                    "generation_config.json",
                                                    "metadata.json"};
constexpr std::array<std::string_view, 6> kBeginnings = {"mp_rank_", "zero_pp_rank_", "bf16_zero_pp_rank_",
                                                         "layer_",   "expp_rank_",    "shard-"};
constexpr std::array<std::string_view, 2> kEnds = {".distcp", ".safetensors.index.json"};

bool is_companion(std::string_view name) {
  return std::ranges::find(kNames, name) != kNames.end() || hugging_face::is_companion(name) ||
         std::ranges::any_of(kBeginnings, [&](std::string_view begin) { return name.starts_with(begin); }) ||
         std::ranges::any_of(kEnds, [&](std::string_view end) { return name.ends_with(end); });
}

// The entries of the folder that files are read from. None where it cannot be opened.
std::set<std::string> entries_read(const fs::path& folder) try {
  OpenOptions options;
  options.check_crc = options.want_objects = false;
  const Catalog catalog = open_catalog(folder.string(), options);
  std::set<std::string> out;
  for (const auto& file : catalog.files) {
    std::error_code error;
    const fs::path inside = fs::weakly_canonical(file->name(), error).lexically_relative(folder);
    if (!error && !inside.empty()) out.insert(inside.begin()->string());
  }
  return out;
} catch (const Error&) {
  return {};
}

}  // namespace

void refuse_to_take_strangers(const std::string& out) {
  std::error_code error;
  const fs::path folder = fs::canonical(out, error);
  if (error || !fs::is_directory(folder, error)) return;
  std::vector<std::string> left;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    if (!is_companion(entry.path().filename().string())) left.push_back(entry.path().filename().string());
  if (left.empty()) return;
  const std::set<std::string> read = entries_read(folder);
  std::erase_if(left, [&](const std::string& name) { return read.contains(name); });
  if (left.empty()) return;
  std::ranges::sort(left);
  throw trouble("output.folder",
                cat("the output is a folder that holds more than one checkpoint: ", some_of(left),
                    left.size() == 1 ? " is not part of it" : " are not part of it"))
      .in_file(out)
      .hint("-f replaces the whole folder: move what is to be kept, or give another name");
}

}  // namespace uckpt
