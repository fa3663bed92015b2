#include "lib/formats/hugging_face/model_folder.h"

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::hugging_face {
namespace {

bool has(const std::vector<std::string>& entries, std::string_view name) {
  return std::ranges::find(entries, name) != entries.end();
}

// The commit that a ref file names; nothing unless it is one of the snapshots.
std::string snapshot_of_ref(const InputFolder& root, const std::vector<std::string>& snapshots) {
  constexpr int64_t kMostBytes = 256;
  if (!root.has_file("refs/main")) return "";
  const std::shared_ptr<InputFile> ref = root.open("refs/main");
  const Bytes bytes = ref->read_range(0, std::min(ref->size(), kMostBytes));
  std::string name(bytes.begin(), bytes.end());
  name.erase(name.find_last_not_of(" \n\r") + 1);
  return has(snapshots, name + "/") ? name : "";
}

}  // namespace

bool is_model_cache(const std::vector<std::string>& entries) {
  return has(entries, "snapshots/") && has(entries, "blobs/");
}

// By the names above it, as they were given or else as they are.
std::optional<CachePlace> place_in_cache(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path path = fs::path(folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.parent_path().filename() != "snapshots" || path.parent_path().parent_path().empty())
    path = fs::canonical(path, error);
  const fs::path snapshots = path.parent_path(), root = snapshots.parent_path();
  if (error || snapshots.filename() != "snapshots" || !fs::is_directory(root / "blobs", error))
    return std::nullopt;
  return CachePlace{root.string(), cat("snapshots/", path.filename().string())};
}

ModelFolder ModelFolder::in_cache(const InputFolder& root) {
  const std::vector<std::string> snapshots = root.list("snapshots");
  std::string name = snapshot_of_ref(root, snapshots);
  if (name.empty() && snapshots.size() == 1 && snapshots.front().ends_with('/')) {
    name = snapshots.front().substr(0, snapshots.front().size() - 1);
  }
  if (name.empty()) {
    throw refused("safetensors.ambiguous",
                  cat("Hugging Face cache: expected `refs/main` to name a snapshot, found ", snapshots.size(),
                      " snapshots and no such name"))
        .in_file(root.path())
        .hint("name one of the folders under snapshots/");
  }
  ModelFolder folder(root);
  folder.inside_ = "snapshots/" + name;
  return folder;
}

std::string ModelFolder::at(std::string_view name) const {
  return inside_.empty() ? std::string(name) : cat(inside_, "/", name);
}

std::shared_ptr<InputFile> ModelFolder::open(std::string_view name) const { return root_->open(at(name)); }

}  // namespace uckpt::hugging_face
