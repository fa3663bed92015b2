// The keys of Megatron-core's distributed checkpoints and the names of the modules' parameters.
//
// Facts: megatron-core 0.16.1. A stack of like layers is one tensor, whose key has no number and whose first
// axis counts them (transformer_block.py); experts likewise (moe/experts.py). Keys follow Transformer
// Engine's fused layers: `sharded_state_dict_keys_map` in models/gpt/gpt_layer_specs.py (and those of BERT,
// T5 and heterogeneous layers) renames the norms of layers without it. With `singleton_local_shards` every
// layer and expert has keys of its own, and gated layers are cut into `_w` and `_v` (transformer/mlp.py).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/megatron/arguments.h"

namespace uckpt::megatron {

// How the run's modules name what the keys have in one way.
struct NameStyle {
  bool transformer_engine = false;  // a norm is a part of the matrix behind it
  bool grouped_experts = false;     // the experts of a rank are numbered weights of one layer

  static NameStyle of(const Arguments& arguments);
};

// A parameter's name with a number left open for each stacked axis, outermost first.
struct ModuleName {
  std::vector<std::string> parts;  // one more than there are axes

  size_t axes() const { return parts.size() - 1; }
  std::string at(std::span<const int64_t> numbers) const;
};

// The name that a model's key stands for: "decoder.layers.mlp.linear_fc1.weight" is
// "decoder.layers.{}.mlp.linear_fc1.weight".
ModuleName module_name(std::string_view key, const NameStyle& style);

// A parameter's layer, with its number, and the name below it; without a layer the first is empty.
struct LayerName {
  std::string layer, below;
};
LayerName split_layer(std::string_view name);
// Is the parameter of latent attention (MLA)? No spec of such a layer renames its norms.
bool is_latent_attention(std::string_view below_layer);

// The key of a parameter and its place on the stacked axes; `stacked`: layers have no number in the key.
struct CoreKey {
  std::string key;
  std::vector<int64_t> numbers;
};
CoreKey core_key(std::string_view name, const NameStyle& style, bool stacked);

// What else a key of a checkpoint may be, besides a model's.
struct StateKey {
  std::string state;  // as the catalog calls it: "fp32", "exp_avg"
  std::string key;    // of the model
};
// "optimizer.state.exp_avg.KEY", with or without "chained_N." before it.
std::optional<StateKey> parse_state_key(std::string_view key);

// "optimizer.distributed.dp_group_idx_G.gbuf_idx_B.dtype_(…).bucket_idx_K.STATE"
struct BucketKey {
  int64_t optimizer = 0, group = 0, buffer = 0, bucket = 0;
  std::string dtypes, state;
};
std::optional<BucketKey> parse_bucket_key(std::string_view key);
// The same of an object of a group, ".optimizer/shard_0_1": which optimizer, which group, and its name.
struct GroupKey {
  int64_t optimizer = 0, group = 0;
  std::string name;  // "optimizer", "param_state"
};
std::optional<GroupKey> parse_group_key(std::string_view key);

// A state as Megatron calls it, in the catalog's words: "param" and "fp32_param" are "fp32".
std::string state_of(std::string_view megatron_state);

// Is it part of an expert of a mixture? Those that all tokens share are none.
bool is_expert(std::string_view name);

}  // namespace uckpt::megatron
