#include "lib/formats/torch/name_walk.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/formats/torch/tensor_path.h"
#include "lib/pickle/fields.h"
#include "lib/pickle/numpy.h"
#include "lib/pickle/value_text.h"

namespace uckpt::torch {

namespace {

using pickle::Field;
using pickle::Kind;
using pickle::Known;
using pickle::Value;

bool is_training_key(std::string_view key) {
  static constexpr std::string_view kKeys[] = {"optimizer",    "optim",     "optimizer_state_dict",
                                               "lr_scheduler", "scheduler", "rng_state"};
  return std::ranges::find(kKeys, key) != std::end(kKeys) || key.find("rng") != std::string_view::npos;
}

class Walk {
 public:
  Walk(const std::function<bool(const Value&)>& is_leaf, const std::function<bool(const NamedLeaf&)>& visit)
      : is_leaf_(is_leaf), visit_(visit) {}

  WalkEnd run(const Value& root) {
    const pickle::Document& document = *root.document();
    holds_ = nodes_above(document, [&](uint32_t id) { return is_leaf_(Value(&document, id)); });
    visit({root, {}, {}, root.kind() == Kind::kDict ? "" : "tensor", root.is_dict(), false});
    while (!path_.empty() && end_ == WalkEnd::kWhole) step();
    return end_;
  }

 private:
  struct Step {
    Value value;
    size_t next;
    size_t name_size;  // of the name up to here
    bool is_param;     // dicts only so far, and no optimizer's
    bool in_state;     // the attributes of a dict come after its entries
  };

  void step() {
    Step& top = path_.back();
    Field field = field_at(top.value, top.next);
    if (!field.value && top.value.is_dict() && top.value.state() && !top.in_state) {
      top.in_state = true;
      field = {top.value.state(), {}, "__state__"};
    }
    if (!field.value) {
      open_.erase(top.value.id());
      path_.pop_back();
      return;
    }
    const size_t index = top.next++;
    if (!holds_[field.value.id()]) return;
    name_.resize(top.name_size);
    const std::string part = field.key            ? pickle::key_text(field.key)
                             : field.name.empty() ? cat(index)
                                                  : std::string(field.name);
    const bool is_top = path_.size() == 1;
    name_ += cat(is_top ? "" : ".", part);
    if (name_.size() > kMaxName) {
      end_ = WalkEnd::kLongName;
      return;
    }
    const bool is_entry = top.value.is_dict() && !top.in_state;
    const bool is_param = top.is_param && is_entry && !(is_top && is_training_key(part));
    visit({field.value, top.value, is_entry ? std::optional(index) : std::nullopt, name_, is_param, false});
  }

  void visit(const NamedLeaf& at) {
    if (is_leaf_(at.value)) return visit_leaf(at);
    if (!holds_[at.value.id()] || !open_.insert(at.value.id()).second) return;
    const size_t name_size = path_.empty() ? 0 : at.name.size();
    path_.push_back({at.value, 0, name_size, at.is_param, false});
  }

  void visit_leaf(const NamedLeaf& at) {
    std::string name = at.name;
    for (size_t number = 2; !taken_.insert(name).second; ++number) {
      size_t& next = numbers_[at.name];
      number = std::max(number, next);
      name = cat(at.name, "#", number);
      next = number + 1;
    }
    const bool is_numbered = name.size() != at.name.size();
    if (!visit_({at.value, at.parent, at.entry, name, at.is_param, is_numbered})) end_ = WalkEnd::kStopped;
  }

  const std::function<bool(const Value&)>& is_leaf_;
  const std::function<bool(const NamedLeaf&)>& visit_;
  std::unordered_set<std::string> taken_;            // names of leaves
  std::unordered_map<std::string, size_t> numbers_;  // the next one, by name
  WalkEnd end_ = WalkEnd::kWhole;
  std::vector<uint8_t> holds_;
  std::string name_;
  std::vector<Step> path_;
  std::unordered_set<uint32_t> open_;
};

}  // namespace

bool is_rebuild(Known known) { return known >= Known::kRebuildTensor && known <= Known::kDistributedTensor; }

WalkEnd walk_names(const Value& root, const std::function<bool(const Value&)>& is_leaf,
                   const std::function<bool(const NamedLeaf&)>& visit) {
  return Walk(is_leaf, visit).run(root);
}

std::vector<uint8_t> leaves_of(const pickle::Document& document) {
  const auto is_tensor = [&](uint32_t id) {
    const Value value(&document, id);
    return value.kind() == Kind::kPersistent ||
           (is_call(value.kind()) && is_rebuild(pickle::known_of(value)));
  };
  const std::vector<uint8_t> bears = nodes_above(document, is_tensor);
  std::vector<uint8_t> out(document.node_count());
  for (uint32_t id = 0; id < document.node_count(); ++id) {
    const Value value(&document, id);
    const bool hides = is_call(value.kind()) && value.global_class() != GlobalClass::kKnown && bears[id] != 0;
    bool leaf = hides || is_tensor(id);
    if (!leaf) {
      const auto array = pickle::numpy_array(value);
      leaf = array && !array->is_scalar;
    }
    out[id] = leaf;
  }
  return out;
}

}  // namespace uckpt::torch
