#include "lib/formats/megatron/write/state_copier.h"

#include "lib/base/text.h"
#include "lib/formats/torch/name_walk.h"
#include "lib/formats/torch/tensor_path.h"

namespace uckpt::megatron {

using pickle::Value;

void StateCopier::copy(const Value& value, const SourceFile& from) {
  const auto [known, is_new] = leaves_.try_emplace(value.document());
  if (is_new) known->second = torch::leaves_of(*value.document());
  const std::vector<uint8_t>& leaves = known->second;
  file_.out().copy(value, [&](const Value& node, pickle::Pickler& out) {
    const bool is_tensor = node.kind() == pickle::Kind::kCall && leaves[node.id()] != 0 &&
                           torch::is_rebuild(pickle::known_of(node));
    if (!is_tensor) return false;
    const std::string path = torch::path_to(*node.document(), node.id());
    if (const auto tensor = find(path, from)) {
      file_.tensor(target_.parts.whole(*tensor), target_.catalog.tensors[*tensor].shape);
    } else {
      target_.notes.push_back(
          cat("left out: the tensor ", escape(path), " of ", escape(from.origin), ", which is not selected"));
      out.none();
    }
    return true;
  });
}

// Readers put the file before a path where files differ.
std::optional<uint32_t> StateCopier::find(const std::string& path, const SourceFile& from) const {
  const std::string stem =
      from.origin.ends_with(".pt") ? from.origin.substr(0, from.origin.size() - 3) : from.origin;
  const std::string last = stem.substr(stem.rfind('/') + 1);
  for (const std::string& name :
       {cat(from.folder, "/", last, ".", path), cat(from.folder, ".", path), cat(stem, ".", path),
        cat(stem, "/", path), cat(from.folder, ".", last, ".", path), cat(from.origin, ".", path), path})
    if (const auto found = target_.parts.loose(name)) return found;
  return std::nullopt;
}

}  // namespace uckpt::megatron
