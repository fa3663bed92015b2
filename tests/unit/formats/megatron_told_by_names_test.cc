// What the names of weights tell beside a run's arguments.
#include "lib/formats/megatron/told_by_names.h"
#include "megatron_support.h"

using namespace megatron_test;
using namespace uckpt::megatron;

namespace {

void add(const std::string& names, std::vector<Tensor>& out) {
  for (size_t at = 0; at < names.size();) {
    const size_t end = std::min(names.find(' ', at), names.size());
    out.emplace_back().name = names.substr(at, end - at);
    at = end + 1;
  }
}

Catalog catalog_of(const std::string& names) {
  Catalog out;
  out.settings.emplace("num_experts", int64_t{4});
  out.arguments.emplace("num_experts", 4);
  add(names, out.tensors);
  return out;
}

std::string refusal_of(Catalog catalog) {
  check_layers_of_experts(catalog);
  return catalog.refusal ? catalog.refusal->code() + " " + catalog.refusal->message() : "";
}

bool has(const Catalog& catalog, const std::string& key) {
  const auto at = catalog.settings.find(key);
  return at != catalog.settings.end() && at->second == ModelSetting(true) && catalog.arguments.at(key) == 1;
}

}  // namespace

TEST_CASE("megatron: each layer that attends has an MLP, or a router and experts") {
  const std::string attends = "decoder.layers.0.self_attention.linear_proj.weight decoder.layers.0.mlp.";
  const std::string expected = ": expected a dense MLP, or a router and experts";
  CHECK(refusal_of(catalog_of(attends + "linear_fc1.weight")).empty());
  CHECK(refusal_of(catalog_of(attends + "router.weight decoder.layers.0.mlp.experts.linear_fc1.weight0"))
            .empty());
  CHECK(refusal_of(catalog_of("decoder.layers.1.mixer.in_proj.weight " + attends + "shared_experts.x"))
            .empty());
  CHECK(refusal_of(catalog_of(attends + "router.weight")) ==
        "megatron.layers `decoder.layers.0` has no experts" + expected);
  CHECK(refusal_of(catalog_of(attends + "experts.local_experts.0.linear_fc1.weight")) ==
        "megatron.layers `decoder.layers.0` has no router" + expected);
  CHECK(refusal_of(catalog_of(attends + "shared_experts.linear_fc1.weight")) ==
        "megatron.layers `decoder.layers.0` has no MLP, and no experts" + expected);

  Catalog ranks = catalog_of("");
  ranks.ranks.push_back({{{"pp", 1}, {"vp", 0}}, {}});
  add(attends + "router.weight", ranks.ranks.back().tensors);
  CHECK(refusal_of(ranks) ==
        "megatron.layers `decoder.layers.0` of pipeline stage 1, virtual stage 0 has no experts" + expected);
  ranks.settings.emplace("heterogeneous_layers_config_path", std::string("layers.json"));
  CHECK(refusal_of(ranks).empty());
}

TEST_CASE("megatron: arguments that older versions lack are told by the names") {
  const std::string biased = "decoder.layers.0.self_attention.linear_qkv.bias";
  Catalog qkv = catalog_of(biased + " decoder.layers.0.self_attention.q_layernorm.weight");
  add_settings_of_names(qkv);
  CHECK(has(qkv, "add_qkv_bias"));
  CHECK(has(qkv, "qk_layernorm"));

  Catalog all = catalog_of(biased + " decoder.layers.0.self_attention.linear_proj.bias");
  add_settings_of_names(all);
  CHECK(!has(all, "add_qkv_bias"));
  CHECK(!has(all, "qk_layernorm"));

  Catalog denied = catalog_of(biased);
  denied.settings.emplace("add_qkv_bias", false);
  add_settings_of_names(denied);
  CHECK(!has(denied, "add_qkv_bias"));

  Catalog bare;  // without arguments
  add(biased, bare.tensors);
  add_settings_of_names(bare);
  CHECK(bare.settings.empty());
}
