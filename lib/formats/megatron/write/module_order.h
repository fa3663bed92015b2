// The order in which a model registers its parameters, as state dicts show it.
//
// A state dict is a walk of the tree of modules, and modules that differ by a number only (layers, experts)
// register alike. So the dicts of a few ranks tell the order of any rank's names.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace uckpt::megatron {

// "decoder.layers.#.mlp" for "decoder.layers.12.mlp"; the numbers go to `numbers`.
std::string template_of(std::string_view name, std::vector<int64_t>* numbers = nullptr);

class ModuleOrder {
 public:
  // The names of a state dict, in its order.
  void add(std::string_view name);
  bool empty() const { return nodes_.size() == 1; }
  bool knows(std::string_view name) const;
  // Names are in the order of their keys.
  using Key = std::vector<int64_t>;
  Key key_of(std::string_view name) const;  // of what it does not know: after what it knows

  // Names that end in `._extra_state`, as templates.
  const std::set<std::string>& extra_states() const { return extra_; }
  // Is there a parameter in a module of this template ("decoder.layers.#.mlp.")?
  bool has_parameters(const std::string& module) const;

 private:
  struct Node {
    std::map<std::string, uint32_t, std::less<>> children;  // by the segment's text before its number
    std::map<std::string, int64_t, std::less<>> places;
  };
  std::vector<Node> nodes_{1};
  std::set<std::string> extra_, parameters_;
};

}  // namespace uckpt::megatron
