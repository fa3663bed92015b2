#include <algorithm>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/formats/dcp/write/content.h"
#include "lib/formats/deepspeed/folder.h"
#include "lib/formats/torch/name_walk.h"
#include "lib/io/input.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/value_text.h"

namespace uckpt::dcp {

namespace {

using pickle::Kind;
using pickle::Value;

constexpr size_t kMostKeys = 1 << 22;

// Walks dicts, and lists that hold a tensor or a dict, as torch's planner does; anything else is one value.
class Flattening {
 public:
  Flattening(const Catalog& catalog, const WriteRequest& request, const pickle::Document& document,
             Content& content)
      : catalog_(catalog), content_(content), is_leaf_(torch::leaves_of(document)), root_(document.root()) {
    const Content::Names names = requested_names(catalog, request);
    taken_.assign(request.tensors.size(), false);
    content.add_leaves(catalog, document, "", names, Arrays::kAreTensors, taken_);
    wanted_ = names.size();
  }

  bool has_all() const {
    return static_cast<size_t>(std::count(taken_.begin(), taken_.end(), true)) == wanted_;
  }

  // Tells how many tensors are left out.
  size_t run() {
    stack_.push_back({root_, {}});
    while (!stack_.empty()) {
      Place place = std::move(stack_.back());
      stack_.pop_back();
      visit(place);
    }
    return dropped_;
  }

 private:
  struct Place {
    Value value;
    KeyPath path;
  };

  bool is_leaf(const Value& value) const { return is_leaf_[value.id()] != 0; }

  bool is_walked(const Value& value) const {
    if (value.is_dict()) return true;
    if (value.kind() != Kind::kList) return false;
    std::vector<Value> lists = {value};
    while (!lists.empty()) {
      const Value list = lists.back();
      lists.pop_back();
      for (size_t i = 0; i < list.size(); ++i) {
        const Value item = list.at(i);
        if (item.is_dict() || is_leaf(item)) return true;
        if (item.kind() == Kind::kList) lists.push_back(item);
      }
    }
    return false;
  }

  void visit(const Place& place) {
    if (is_leaf(place.value)) return add_leaf(place);
    if (!is_walked(place.value)) {
      new_key(place.path);
      content_.add_object(place.path).copied = place.value;
      return;
    }
    const size_t count = place.value.size();
    for (size_t i = count; i-- > 0;) {  // the last one is taken from the stack first
      KeyPath path = place.path;
      if (place.value.is_dict()) {
        const auto [key, value] = place.value.entry(i);
        path.push_back({key.text() ? std::string(*key.text()) : pickle::key_text(key), false});
        stack_.push_back({value, std::move(path)});
      } else {
        path.push_back({cat(i), true});
        stack_.push_back({place.value.at(i), std::move(path)});
      }
    }
  }

  void add_leaf(const Place& place) {
    const auto at = content_.leaves.find({place.value.document(), place.value.id()});
    if (at == content_.leaves.end()) {  // an array, whose values are in the pickle
      new_key(place.path);
      content_.add_object(place.path).copied = place.value;
    } else if (!at->second) {
      ++dropped_;
      content_.dropped.push_back(place.path);
    } else {
      new_key(place.path);
      content_.add_tensor(place.path, *at->second, true);
    }
  }

  void new_key(const KeyPath& path) {
    std::string key = dotted(path);
    if (keys_.size() >= kMostKeys)
      throw refused("limit.tensors", "shared parts of its tree show their values far too often")
          .in_file(catalog_.path);
    if (!keys_.insert(key).second)
      throw refused("dcp.key", "two values of its tree come to this key, and a checkpoint holds one of each")
          .in_file(catalog_.path)
          .in_tensor(key);
  }

  const Catalog& catalog_;
  Content& content_;
  const std::vector<uint8_t> is_leaf_;
  const Value root_;
  std::vector<bool> taken_;
  size_t wanted_ = 0, dropped_ = 0;
  std::vector<Place> stack_;
  std::unordered_set<std::string> keys_;
};

}  // namespace

std::optional<Content> tree_content(const Catalog& catalog, const WriteRequest& request,
                                    std::vector<std::string>& notes) {
  if (catalog.objects.size() != 1) return std::nullopt;
  const Object& object = catalog.objects.front();
  const std::string name = object.origin.substr(object.origin.rfind('/') + 1);
  if (object.size == 0 || (catalog.kind != "torch" && deepspeed::parse_name(name))) return std::nullopt;
  Content content;
  try {
    content.documents.push_back(
        pickle::parse_whole(catalog.files[object.file]->read_range(object.offset, object.size), {}));
  } catch (const Error&) {
    return std::nullopt;
  }
  const pickle::Document& document = *content.documents.front();
  if (document.cyclic() || !document.root().is_dict()) return std::nullopt;
  Flattening flattening(catalog, request, document, content);
  if (!flattening.has_all()) return std::nullopt;
  if (const size_t dropped = flattening.run(); dropped > 0)
    notes.push_back(
        cat(dropped, dropped == 1 ? " tensor is" : " tensors are", " left out, since not selected"));
  return content;
}

}  // namespace uckpt::dcp
