// The folder a model's files lie in. In a Hugging Face cache (`models--org--name/`) that is one of the
// folders under `snapshots/`, whose files are links to `blobs/`: so the folder to stay inside is the one
// above them both.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/input.h"

namespace uckpt::hugging_face {

// Do these entries look like the root of such a cache?
bool is_model_cache(const std::vector<std::string>& entries);

// Where a folder lies that is one snapshot of such a cache.
struct CachePlace {
  std::string root;    // "…/models--org--name"
  std::string inside;  // "snapshots/0123…"
};
// Nothing for a folder that is none.
std::optional<CachePlace> place_in_cache(const std::string& folder);

class ModelFolder {
 public:
  explicit ModelFolder(const InputFolder& root) : root_(&root) {}
  ModelFolder(const InputFolder& root, std::string inside) : root_(&root), inside_(std::move(inside)) {}
  // The snapshot that `refs/main` names, or the only one. Throws refused if there is no telling.
  static ModelFolder in_cache(const InputFolder& root);

  std::string path() const { return inside_.empty() ? root_->path() : root_->join(inside_); }
  std::vector<std::string> list() const { return root_->list(inside_); }
  bool has_file(std::string_view name) const { return root_->has_file(at(name)); }
  std::shared_ptr<InputFile> open(std::string_view name) const;

 private:
  std::string at(std::string_view name) const;
  const InputFolder* root_;
  std::string inside_;  // "snapshots/0123…", or nothing
};

}  // namespace uckpt::hugging_face
