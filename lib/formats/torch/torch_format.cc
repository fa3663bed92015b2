#include "lib/formats/torch/torch_format.h"

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/hugging_face/bin_format.h"
#include "lib/formats/torch/file_catalog.h"

namespace uckpt::torch {

namespace {

std::optional<int64_t> iteration_of(const pickle::Value& root) {
  for (std::string_view key : {"iteration", "global_steps", "global_step"})
    if (const auto n = root.get(key).integer()) return n;
  return std::nullopt;
}

std::string_view describe(const TorchFile& file) {
  if (file.is_legacy()) return "PyTorch file, the stream of torch before 1.6";
  return file.pickle_record().name.empty() ? "pickle file" : "PyTorch file";
}

}  // namespace

bool recognises(const Target& target) { return target.file && looks_like_torch(target.head); }

Catalog read(const Target& target, const OpenOptions& options) {
  if (!target.file)
    throw refused("torch.format", "expected a torch.save file, found a folder").in_file(target.path);
  const auto file = open_checked(target.file, options);
  Catalog catalog;
  catalog.kind = "torch";
  catalog.path = target.path;
  catalog.description = describe(*file);
  catalog.iteration = iteration_of(file->root());
  enter_tree(*file, enter_tensors(*file, target.file, options, catalog), options, catalog);
  catalog.warn_of_unknown_classes();
  if (catalog.tensors.empty() && !catalog.refusal)
    catalog.refusal = refused("torch.no_tensors", "the file holds no tensors").in_file(catalog.path);
  if (const std::string index = hugging_face::index_of_shard(target.path, hugging_face::kBinFiles);
      !index.empty())
    catalog.warnings.push_back(hugging_face::one_shard_warning(index));
  return catalog;
}

}  // namespace uckpt::torch
