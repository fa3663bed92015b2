#include "lib/formats/megatron/write/state_copier.h"

#include "lib/base/text.h"
#include "lib/formats/file_path.h"
#include "lib/formats/torch/name_walk.h"
#include "lib/formats/torch/tensor_path.h"

namespace uckpt::megatron {

pickle::Pickler::Replace StateCopier::replace(const pickle::Value& value, const SourceFile& from) {
  const auto [at, is_new] = leaves_.try_emplace(value.document());
  if (is_new) at->second = torch::leaves_of(*value.document());
  return [this, &leaves = at->second, &from](const pickle::Value& node, pickle::Pickler& out) {
    const bool is_tensor = node.kind() == pickle::Kind::kCall && leaves[node.id()] != 0 &&
                           torch::is_rebuild(pickle::known_of(node));
    if (!is_tensor) return false;
    const std::string path = torch::path_to(*node.document(), node.id());
    if (const auto tensor = find(path, from)) {
      file_.tensor(parts_.whole(*tensor), parts_.catalog().tensors[*tensor].shape);
    } else {
      notes_.push_back(
          cat("left out: the tensor ", escape(path), " of ", escape(from.origin), ", which is not selected"));
      out.none();
    }
    return true;
  };
}

// Readers put the file before the path, that of a distributed checkpoint with its ending.
std::optional<uint32_t> StateCopier::find(const std::string& path, const SourceFile& from) const {
  const std::string& origin = from.origin;
  for (const std::string& name : {cat(stem_of(origin), ".", path), cat(origin, ".", path), path})
    if (const auto found = parts_.loose(name)) return found;
  return std::nullopt;
}

}  // namespace uckpt::megatron
