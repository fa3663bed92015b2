#include "lib/formats/safetensors/model_folder.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::safetensors {
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
        .in_file(root.path());
  }
  ModelFolder folder(root);
  folder.inside_ = "snapshots/" + name;
  return folder;
}

std::string ModelFolder::at(std::string_view name) const {
  return inside_.empty() ? std::string(name) : cat(inside_, "/", name);
}

std::shared_ptr<InputFile> ModelFolder::open(std::string_view name) const try {
  return root_->open(at(name));
} catch (Error& e) {
  if (e.code() == "name.escapes" && path().find("/snapshots/") != std::string::npos) {
    e.hint("in a Hugging Face cache, name the `models--…` folder above `snapshots/`");
  }
  throw;
}

}  // namespace uckpt::safetensors
