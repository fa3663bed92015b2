#include "lib/formats/megatron/core/stacks.h"

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/megatron/write/source_state.h"

namespace uckpt::megatron {

namespace {

// As transformer_block.py tells it from the configuration.
bool differ_by_args(const pickle::Value& args) {
  const pickle::Value dict = args && !args.is_dict() ? args.state() : args;
  for (const std::string_view name : {"moe_layer_freq", "linear_attention_freq"}) {
    const pickle::Value v = entry(dict, name);
    if (v && (v.is_sequence() || v.integer().value_or(0) > 1)) return true;
  }
  for (const std::string_view name : {"hetereogenous_dist_checkpoint", "heterogeneous_block_specs"})
    if (const pickle::Value v = entry(dict, name); v && v.boolean() == true) return true;
  for (const std::string_view name :
       {"heterogeneous_layers_config_path", "heterogeneous_layers_config_encoded_json"})
    if (const pickle::Value v = entry(dict, name); v && v.text()) return true;
  return false;
}

std::set<std::string> latent_layers(const std::vector<Held>& held) {
  std::set<std::string> out;
  for (const Held& h : held)
    if (LayerName name = split_layer(h.logical_name); is_latent_attention(name.below))
      out.insert(std::move(name.layer));
  return out;
}

std::vector<Stack> group(const std::vector<Held>& held, const NameStyle& style, bool stacked) {
  const std::set<std::string> latent = latent_layers(held);
  std::vector<Stack> out;
  std::map<std::string, size_t> index;
  for (const Held& h : held) {
    if (h.tied_to) continue;
    NameStyle own = style;  // as with Transformer Engine, norms keep the names that they have
    own.transformer_engine |= latent.contains(split_layer(h.logical_name).layer);
    CoreKey key = core_key(h.logical_name, own, stacked);
    const auto [at, is_new] = index.try_emplace(key.key, out.size());
    if (is_new)
      out.push_back({key.key,
                     Shape(key.numbers.size(), 0),
                     {},
                     !stacked && key.key.find("layers.") != std::string::npos});
    Stack& stack = out[at->second];
    if (stack.sizes.size() != key.numbers.size())
      throw refused("megatron.name", cat("two parameters come to one key, ", escape(key.key)))
          .in_tensor(h.logical_name);
    for (size_t i = 0; i < stack.sizes.size(); ++i)
      stack.sizes[i] = std::max(stack.sizes[i], key.numbers[i] + 1);
    stack.members.push_back({std::move(key.numbers), &h});
  }
  return out;
}

// All numbers are there, and all members are alike.
bool is_whole(const Stack& stack) {
  const Held& first = *stack.members.front().held;
  const auto alike = [&](const Stack::Member& m) {
    return m.held->shape == first.shape && m.held->dtype == first.dtype &&
           m.held->is_trained() == first.is_trained() && m.held->states.size() == first.states.size();
  };
  return checked_product(stack.sizes) == static_cast<int64_t>(stack.members.size()) &&
         std::ranges::all_of(stack.members, alike);
}

}  // namespace

std::vector<Stack> stacks_of(const std::vector<Held>& held, const NameStyle& style,
                             const pickle::Value& args) {
  bool stacked = !differ_by_args(args);
  std::vector<Stack> out = group(held, style, stacked);
  if (stacked) {
    // The layers of one stack have the same parameters, or none of them is stacked.
    std::map<std::string, int64_t> layers;
    for (const Stack& s : out) {
      stacked &= is_whole(s);
      if (s.sizes.empty()) continue;
      const std::string prefix = s.key.substr(0, s.key.find("layers."));
      stacked &= layers.try_emplace(prefix, s.sizes[0]).first->second == s.sizes[0];
    }
    if (!stacked) out = group(held, style, false);
  }
  for (const Stack& s : out)
    if (!is_whole(s))
      throw refused("megatron.stack", cat("expected experts that are alike under ", escape(s.key), ", found ",
                                          s.members.size(), " of ", shape_text(s.sizes)))
          .in_tensor(s.members.front().held->logical_name);
  return out;
}

}  // namespace uckpt::megatron
