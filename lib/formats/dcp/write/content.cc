#include "lib/formats/dcp/write/content.h"

#include "lib/base/text.h"
#include "lib/formats/torch/name_walk.h"

namespace uckpt::dcp {

std::string dotted(const KeyPath& path) {
  std::string out;
  for (size_t i = 0; i < path.size(); ++i) out += cat(i > 0 ? "." : "", path[i].text);
  return out;
}

void Content::add_tensor(KeyPath path, size_t index, bool is_cut) {
  std::string key = dotted(path);
  tensors.push_back({std::move(key), std::move(path), index, is_cut});
}

ContentObject& Content::add_object(KeyPath path) {
  std::string key = dotted(path);
  return objects.emplace_back(ContentObject{std::move(key), std::move(path)});
}

void Content::add_leaves(const Catalog& catalog, const pickle::Document& document, const std::string& prefix,
                         const Names& names, Arrays arrays, std::vector<bool>& taken) {
  const std::vector<uint8_t> is_leaf = torch::leaves_of(document);
  torch::walk_names(
      document.root(), [&](const pickle::Value& value) { return is_leaf[value.id()] != 0; },
      [&](const torch::NamedLeaf& leaf) {
        const bool is_array = leaf.value.kind() == pickle::Kind::kCall &&
                              pickle::known_of(leaf.value) >= pickle::Known::kNumpyDtype;
        if (is_array && arrays == Arrays::kArePlain) return true;
        const std::string name = cat(prefix, leaf.name);
        auto at = names.find(cat(state::kParam, "/", name));
        if (at == names.end()) at = names.find(cat(state::kOther, "/", name));
        const bool found = at != names.end();
        if (found) taken[at->second] = true;
        if (found && leaf.value.kind() == pickle::Kind::kPersistent)
          throw refused("dcp.storage",
                        "it is a storage and no tensor, which cannot be written into an object")
              .in_file(catalog.path)
              .in_tensor(name)
              .hint("--drop leaves it out");
        if (is_array && found) return true;  // its values lie in the pickle
        auto& index = leaves.try_emplace({&document, leaf.value.id()}).first->second;
        if (found && !index) index = at->second;
        return true;
      });
}

Content::Names requested_names(const Catalog& catalog, const WriteRequest& request) {
  Content::Names out;
  for (size_t i = 0; i < request.tensors.size(); ++i)
    if (request.tensors[i] < request.first_object) out.emplace(catalog.tensors[request.tensors[i]].path(), i);
  return out;
}

}  // namespace uckpt::dcp
