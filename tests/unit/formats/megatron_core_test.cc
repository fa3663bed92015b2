// Keys of Megatron-core's checkpoints and the names that they stand for; what is malformed is refused.
#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/megatron/core/names.h"
#include "lib/formats/megatron/core/stacks.h"
#include "lib/formats/megatron/core/unstacked.h"

using namespace uckpt;
using namespace uckpt::megatron;

namespace {

std::string named(std::string_view key, const NameStyle& style, const std::vector<int64_t>& numbers) {
  const ModuleName name = module_name(key, style);
  REQUIRE(name.axes() == numbers.size());
  return name.at(numbers);
}

struct Case {
  const char *name, *key;
  std::vector<int64_t> numbers;
};

void check_both_ways(const NameStyle& style, const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    CAPTURE(c.name);
    CHECK(named(c.key, style, c.numbers) == c.name);
    const CoreKey key = core_key(c.name, style, true);
    CHECK(key.key == c.key);
    CHECK(key.numbers == c.numbers);
  }
}

dcp::Stored stored_of(std::initializer_list<std::pair<std::string, Shape>> tensors) {
  dcp::Stored out;
  for (const auto& [key, shape] : tensors) {
    dcp::StoredTensor& t = out.tensors.emplace_back();
    t.key = key;
    t.dtype = DType::kF32;
    t.shape = shape;
    if (numel_of(shape) > 0) t.chunks.push_back({Shape(shape.size(), 0), shape, {}, ""});
  }
  return out;
}

std::string code_of(const dcp::Stored& stored) {
  try {
    const Unstacked model(stored, {}, false);
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}

}  // namespace

TEST_CASE("names of the local layers and their keys") {
  check_both_ways(
      {}, {{"embedding.word_embeddings.weight", "embedding.word_embeddings.weight", {}},
           {"decoder.layers.7.input_layernorm.weight",
            "decoder.layers.self_attention.linear_qkv.layer_norm_weight",
            {7}},
           {"decoder.layers.0.pre_mlp_layernorm.bias", "decoder.layers.mlp.linear_fc1.layer_norm_bias", {0}},
           {"decoder.layers.12.mlp.linear_fc2.weight", "decoder.layers.mlp.linear_fc2.weight", {12}},
           {"decoder.layers.3.mlp.experts.local_experts.5.linear_fc1.weight",
            "decoder.layers.mlp.experts.experts.linear_fc1.weight",
            {3, 5}},
           {"mtp.layers.0.transformer_layer.input_layernorm.weight",
            "mtp.layers.0.transformer_layer.self_attention.linear_qkv.layer_norm_weight",
            {}},
           {"decoder.layers.3.mlp.shared_experts.linear_fc1.weight",
            "decoder.layers.mlp.shared_experts.linear_fc1.weight",
            {3}}});
}

TEST_CASE("names of Transformer Engine's layers and their keys") {
  check_both_ways(
      {true, true},
      {{"decoder.layers.7.self_attention.linear_qkv.layer_norm_weight",
        "decoder.layers.self_attention.linear_qkv.layer_norm_weight",
        {7}},
       {"decoder.layers.1.pre_mlp_layernorm.weight", "decoder.layers.pre_mlp_layernorm.weight", {1}},
       {"decoder.layers.3.mlp.experts.linear_fc1.weight5",
        "decoder.layers.mlp.experts.experts.linear_fc1.weight",
        {3, 5}}});
}

TEST_CASE("keys with a number for each layer and expert") {
  CHECK(named("decoder.layers.7.self_attention.linear_qkv.layer_norm_weight", {}, {}) ==
        "decoder.layers.7.input_layernorm.weight");
  CHECK(named("decoder.layers.7.mlp.experts.experts.3.linear_fc1.weight", {}, {}) ==
        "decoder.layers.7.mlp.experts.local_experts.3.linear_fc1.weight");
  CHECK(named("decoder.layers.7.mlp.experts.experts.linear_fc2.weight", {}, {4}) ==
        "decoder.layers.7.mlp.experts.local_experts.4.linear_fc2.weight");
  CHECK(core_key("decoder.layers.7.input_layernorm.weight", {}, false).key ==
        "decoder.layers.7.self_attention.linear_qkv.layer_norm_weight");
}

TEST_CASE("norms of layers with latent attention keep their keys") {
  std::vector<Held> held;
  for (const char* layer : {"decoder.layers.0.", "decoder.layers.1."})
    for (const char* name :
         {"input_layernorm.weight", "self_attention.linear_kv_down_proj.weight", "pre_mlp_layernorm.weight"})
      held.emplace_back().logical_name = cat(layer, name);
  held.emplace_back().logical_name = "mtp.layers.0.transformer_layer.input_layernorm.weight";
  std::vector<std::string> keys;
  for (const Stack& s : stacks_of(held, {}, {})) keys.push_back(s.key);
  CHECK(keys == std::vector<std::string>{
                    "decoder.layers.input_layernorm.weight",
                    "decoder.layers.self_attention.linear_kv_down_proj.weight",
                    "decoder.layers.pre_mlp_layernorm.weight",
                    "mtp.layers.0.transformer_layer.self_attention.linear_qkv.layer_norm_weight"});
}

TEST_CASE("keys of optimizer states and of buckets") {
  const auto state = parse_state_key("chained_1.optimizer.state.fp32_param.decoder.final_layernorm.weight");
  REQUIRE(state);
  CHECK(state->state == "fp32");
  CHECK(state->key == "decoder.final_layernorm.weight");
  CHECK_FALSE(parse_state_key("optimizer.state.exp_avg."));
  const auto bucket = parse_bucket_key(
      "chained_1.optimizer.distributed.dp_group_idx_3.gbuf_idx_1.dtype_(torch.bfloat16, "
      "torch.float32).bucket_idx_12.param");
  REQUIRE(bucket);
  CHECK(bucket->optimizer == 1);
  CHECK(bucket->group == 3);
  CHECK(bucket->buffer == 1);
  CHECK(bucket->bucket == 12);
  CHECK(bucket->state == "fp32");
  CHECK_FALSE(
      parse_bucket_key("optimizer.distributed.dp_group_idx_x.gbuf_idx_1.dtype_().bucket_idx_1.param"));
  CHECK_FALSE(parse_bucket_key("optimizer.distributed.dp_group_idx_0.gbuf_idx_1.dtype_(bucket_idx_1.param"));
}

TEST_CASE("stacks come apart, layer by layer") {
  const dcp::Stored stored = stored_of({{"embedding.word_embeddings.weight", {4, 2}},
                                        {"decoder.layers.mlp.linear_fc1.weight", {2, 3, 2}},
                                        {"decoder.layers.mlp.linear_fc2.weight", {2, 2, 3}},
                                        {"output_layer.weight", {4, 2}}});
  const Unstacked model(stored, {}, false);
  std::vector<std::string> names;
  for (const Logical& t : model.all()) names.push_back(t.name);
  CHECK(names == std::vector<std::string>{
                     "embedding.word_embeddings.weight", "decoder.layers.0.mlp.linear_fc1.weight",
                     "decoder.layers.0.mlp.linear_fc2.weight", "decoder.layers.1.mlp.linear_fc1.weight",
                     "decoder.layers.1.mlp.linear_fc2.weight", "output_layer.weight"});
  CHECK(model.all()[1].shape == Shape{3, 2});
}

TEST_CASE("what cannot be a stack is refused") {
  CHECK(code_of(stored_of({{"decoder.layers.mlp.linear_fc1.weight", {}}})) == "megatron.stack");
  CHECK(code_of(stored_of({{"decoder.layers.mlp.experts.experts.linear_fc1.weight", {3}}})) ==
        "megatron.stack");
  CHECK(code_of(stored_of({{"decoder.layers.mlp.x", {int64_t{1} << 40, 1}}})) == "limit.tensors");
  CHECK(code_of(stored_of({{"decoder.layers.x", {2, 1}}, {"decoder.layers.1.x", {1}}})) == "megatron.name");
  CHECK(code_of(stored_of({{"a.b", {4, 6}}, {"optimizer.state.exp_avg.a.b", {2, 4, 6}}})) ==
        "megatron.flattened");
}
