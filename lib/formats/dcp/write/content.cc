#include "lib/formats/dcp/write/content.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/name_walk.h"

namespace uckpt::dcp {

namespace {

int64_t index_of(const KeyPart& part) {
  int64_t out = -1;
  std::from_chars(part.text.data(), part.text.data() + part.text.size(), out);
  return out;
}

}  // namespace

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

void Content::fill_lists() {
  if (dropped.empty()) return;
  std::map<KeyPath, int64_t> last;  // of each list that is written: its last index
  std::set<KeyPath> there;          // items of lists
  std::set<KeyPath> flattened;      // lists that still have a tensor or a dict in them
  const auto first = [](const KeyPath& path, size_t n) {
    return KeyPath(path.begin(), path.begin() + static_cast<ptrdiff_t>(n));
  };
  const auto note = [&](const KeyPath& path, bool is_tensor) {
    bool has_more = is_tensor;
    for (size_t i = path.size(); i-- > 0;) {
      if (!path[i].is_index) {
        has_more = true;
        continue;
      }
      if (has_more) flattened.insert(first(path, i));
      int64_t& end = last.try_emplace(first(path, i), -1).first->second;
      end = std::max(end, index_of(path[i]));
      there.insert(first(path, i + 1));
    }
  };
  for (const ContentTensor& t : tensors) note(t.path, true);
  for (const ContentObject& o : objects) note(o.path, false);
  for (const KeyPath& path : dropped) {
    for (size_t i = 0; i < path.size(); ++i) {
      if (!path[i].is_index) continue;
      const auto list = last.find(first(path, i));
      if (list == last.end()) break;  // all of it is dropped, and what is around it was looked at
      if (!flattened.contains(list->first))
        throw refused("dcp.list",
                      "what is left of this list has no tensor in it, and then torch expects it as one value")
            .in_tensor(dotted(list->first))
            .hint("take one of its tensors, too, or write a torch.save file");
      KeyPath item = first(path, i + 1);
      if (there.contains(item)) continue;
      if (index_of(path[i]) < list->second) {
        there.insert(item);
        add_object(std::move(item)).made = [](pickle::Pickler& out) { out.none(); };
      }
      break;
    }
  }
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
