// Which shipped spec the names of a checkpoint belong to. Names as Megatron-core 0.16 and transformers give
// them.
#include "lib/convert/found_spec.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/ucl/importer.h"

namespace uckpt {
namespace {

using Names = std::vector<std::string>;

void put(Catalog& catalog, const std::string& name) {
  Tensor t;
  t.name = name;
  t.state = state::kParam;
  t.dtype = DType::kBF16;
  t.shape = {2, 2};
  catalog.tensors.push_back(std::move(t));
}

Catalog catalog_of(const Names& loose, const std::string& layers, const Names& in_layer, int64_t count = 2) {
  Catalog catalog;
  for (const std::string& name : loose) put(catalog, name);
  for (int64_t i = 0; i < count; ++i)
    for (const std::string& name : in_layer) put(catalog, cat(layers, i, ".", name));
  return catalog;
}

const Names kMegatronEnds = {"embedding.word_embeddings.weight", "decoder.final_layernorm.weight",
                             "output_layer.weight"};

Catalog megatron_llama() {
  return catalog_of(
      kMegatronEnds, "decoder.layers.",
      {"input_layernorm.weight", "self_attention.linear_proj.weight", "self_attention.linear_qkv.weight",
       "pre_mlp_layernorm.weight", "mlp.linear_fc1.weight", "mlp.linear_fc2.weight"});
}

Catalog hf_llama() {
  return catalog_of({"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}, "model.layers.",
                    {"input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
                     "self_attn.v_proj.weight", "self_attn.o_proj.weight", "post_attention_layernorm.weight",
                     "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"});
}

const layout::Settings kGated = {{}, {{"swiglu", 1}}, {}};

TEST_CASE("found spec: a layout that takes every name, by the fewest rules that take nothing") {
  const auto llama = find_spec(megatron_llama(), "megatron", "", kGated);
  REQUIRE(llama);
  CHECK(llama->spec == "megatron/llama");
  CHECK(llama->naming == "megatron_llama");
  CHECK(llama->layout == "megatron_llama");
  CHECK(llama->leads_to_hf);
  const auto engine = find_spec(
      catalog_of(kMegatronEnds, "decoder.layers.",
                 {"self_attention.linear_proj.weight", "self_attention.linear_qkv.layer_norm_weight",
                  "self_attention.linear_qkv.weight", "mlp.linear_fc1.layer_norm_weight",
                  "mlp.linear_fc1.weight", "mlp.linear_fc2.weight"}),
      "megatron", "", kGated);
  REQUIRE(engine);
  CHECK(engine->naming == "megatron_llama_te");
}

TEST_CASE("found spec: a naming without a layout by its map") {
  const auto found = find_spec(hf_llama(), "megatron", "", {});
  REQUIRE(found);
  CHECK(found->spec == "megatron/llama");
  CHECK(found->naming == "hf_llama");
  CHECK(found->layout == "megatron_llama");
}

TEST_CASE("found spec: the nearest is the one that knows the most names") {
  const Catalog experts = catalog_of(  // one of Qwen's: most names are those of Llama, one is one of GPT-2's
      {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}, "model.layers.",
      {"input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight",
       "self_attn.v_proj.weight", "self_attn.o_proj.weight", "post_attention_layernorm.weight",
       "mlp.gate.weight", "mlp.experts.0.gate_proj.weight", "mlp.experts.0.up_proj.weight",
       "mlp.experts.0.down_proj.weight"});
  std::string nearest;
  CHECK_FALSE(find_spec(experts, "megatron", "", {}, &nearest));
  CHECK(
      nearest.starts_with("the nearest is `hf_llama` of megatron/llama: no rule of this map takes 8 names"));
}

TEST_CASE("found spec: a layout that fits and leads elsewhere is told") {
  std::string nearest;
  CHECK_FALSE(find_spec(megatron_llama(), "megatron", "hf_nothing", kGated, &nearest));
  CHECK(nearest == "the nearest is `megatron_gpt` of megatron/gpt: no map leads from it to `hf_nothing`");
}

TEST_CASE("found spec: a layout that lacks a few names is nearer than one that lacks most") {
  Catalog further = megatron_llama();
  put(further, "mtp.layers.0.enorm.weight");
  std::string nearest;
  CHECK_FALSE(find_spec(further, "megatron", "", kGated, &nearest));
  CHECK(nearest ==
        "the nearest is `megatron_gpt` of megatron/gpt: no rule takes 1 name: `mtp.layers.0.enorm.weight`");
}

TEST_CASE("found spec: none where a name is foreign, one is missing, or it leads elsewhere") {
  Catalog foreign = megatron_llama();
  put(foreign, "vision_model.conv.weight");
  CHECK_FALSE(find_spec(foreign, "megatron", "", kGated));
  Catalog short_of_one = megatron_llama();
  std::erase_if(short_of_one.tensors,
                [](const Tensor& t) { return t.name == "decoder.layers.1.mlp.linear_fc2.weight"; });
  CHECK_FALSE(find_spec(short_of_one, "megatron", "", kGated));
  CHECK_FALSE(find_spec(megatron_llama(), "torchtitan", "", kGated));
  CHECK_FALSE(find_spec(megatron_llama(), "megatron", "hf_gpt2", kGated));
  CHECK(find_spec(megatron_llama(), "megatron", "hf", kGated));
}

TEST_CASE("found spec: a naming by how it begins is the nearest one") {
  ucl::Diagnostics said;
  const ucl::Spec spec = ucl::open_spec("megatron/gpt2", said);
  REQUIRE_FALSE(said.has_errors());
  CHECK(resolve_naming(spec, "megatron_gpt2", "hf") == "hf_gpt2");  // hf_gpt2_lm is one map further
  CHECK(resolve_naming(spec, "megatron_gpt2", "hf_gpt2_lm") == "hf_gpt2_lm");
  CHECK(resolve_naming(spec, "megatron_gpt2", "mine") == "mine");
  CHECK(nearest_layout(spec, "hf_gpt2_lm") == "megatron_gpt2");
}

}  // namespace
}  // namespace uckpt
