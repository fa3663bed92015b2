#include "lib/formats/hugging_face/bin_format.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/torch/file_catalog.h"

namespace uckpt::hugging_face {
namespace {

// Is there nothing but tensors right below the root? Then the tree tells no more than the tensors do.
bool is_state_dict(const torch::TorchFile& file) {
  const pickle::Value root = file.root();
  if (!root.is_dict()) return false;
  for (size_t i = 0; i < root.size(); ++i)
    if (!file.tensor(root.entry(i).second)) return false;
  return true;
}

class BinReader final : public ModelReader {
 public:
  explicit BinReader(const OpenOptions& options) : ModelReader(kBinFiles, options) {
    catalog_.kind = kBinFiles.code;
  }

 private:
  void add_tensors(std::shared_ptr<ByteSource> source, const std::string&) override {
    const auto file = torch::open_checked(source, options_);
    const size_t first = catalog_.tensors.size();
    const FileId id = torch::enter_tensors(*file, source, options_, catalog_);
    for (size_t t = first; t < catalog_.tensors.size(); ++t) claim(catalog_.tensors[t].name, *source);
    if (!is_state_dict(*file)) torch::enter_tree(*file, id, options_, catalog_);
  }
};

// The entries of the model's folder; none where a cache does not tell which of its snapshots that is.
std::vector<std::string> entries_of(const Target& target) try {
  return is_model_cache(target.entries) ? ModelFolder::in_cache(*target.folder).list() : target.entries;
} catch (const Error&) {
  return {};
}

}  // namespace

bool recognises_bin(const Target& target) {
  if (!target.folder) return kBinFiles.is_index(base_of(target.path));
  const std::vector<std::string> entries = entries_of(target);
  const auto is_ours = [](std::string_view name) {
    return kBinFiles.is_index(name) || std::ranges::any_of(kUsualBins, [&](std::string_view usual) {
             return name == cat(usual, kBinFiles.ends);
           });
  };
  const auto is_safetensors = [](std::string_view name) { return name.find(".safetensors") != name.npos; };
  return std::ranges::any_of(entries, is_ours) && std::ranges::none_of(entries, is_safetensors);
}

Catalog read_bin(const Target& target, const OpenOptions& options) {
  Catalog catalog = BinReader(options).read(target);
  catalog.warn_of_unknown_classes();
  return catalog;
}

}  // namespace uckpt::hugging_face
