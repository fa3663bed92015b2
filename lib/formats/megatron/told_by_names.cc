#include "lib/formats/megatron/told_by_names.h"

#include <algorithm>
#include <map>
#include <span>

#include "lib/base/text.h"
#include "lib/formats/megatron/core/names.h"

namespace uckpt::megatron {

namespace {

constexpr std::string_view kLayers = ".layers.";

template <class Visit>
void each_tensor(const Catalog& catalog, const Visit& visit) {
  for (const Tensor& t : catalog.tensors) visit(t);
  for (const RankSet& set : catalog.ranks)
    for (const Tensor& t : set.tensors) visit(t);
}

bool has_name_with(const Catalog& catalog, std::string_view part) {
  bool found = false;
  each_tensor(catalog, [&](const Tensor& t) { found |= t.name.find(part) != std::string::npos; });
  return found;
}

// Where the arguments have it not at all: what they deny is not found out here.
void add_truth(Catalog& catalog, const std::string& key) {
  if (!catalog.settings.emplace(key, true).second) return;
  catalog.arguments.insert_or_assign(key, 1);
}

struct Layer {
  bool attends = false, is_dense = false, has_router = false, has_experts = false;
};

// By the name up to its number: "decoder.layers.3".
std::map<std::string, Layer, std::less<>> layers_of(std::span<const Tensor> tensors) {
  std::map<std::string, Layer, std::less<>> out;
  for (const Tensor& t : tensors) {
    const std::string_view name = t.name;
    const size_t at = name.find(kLayers);
    const size_t end = at == name.npos ? at : name.find('.', at + kLayers.size());
    if (end == name.npos) continue;
    const std::string_view rest = name.substr(end);
    Layer& layer = out[std::string(name.substr(0, end))];
    layer.attends |= rest.find(".self_attention.") != rest.npos;
    layer.is_dense |= rest.find(".mlp.linear_fc") != rest.npos;
    layer.has_router |= rest.find(".mlp.router.") != rest.npos;
    layer.has_experts |= is_expert(name);
  }
  return out;
}

std::string_view lacking_part(const Layer& layer) {
  if (!layer.attends) return "";
  if (layer.has_router != layer.has_experts) return layer.has_router ? "no experts" : "no router";
  return layer.is_dense || layer.has_router ? "" : "no MLP, and no experts";
}

void check_layers(std::span<const Tensor> tensors, const Coordinate* at, Catalog& catalog) {
  for (const auto& [name, layer] : layers_of(tensors)) {
    const std::string_view lacks = lacking_part(layer);
    if (lacks.empty() || catalog.refusal) continue;
    const std::string where =
        at ? cat(" of pipeline stage ", at->at("pp"), ", virtual stage ", at->at("vp")) : std::string();
    catalog.refusal = refused("megatron.layers", cat("`", escape(name, 80), "`", where, " has ", lacks,
                                                     ": expected a dense MLP, or a router and experts"))
                          .in_file(catalog.path);
  }
}

}  // namespace

void add_settings_of_names(Catalog& catalog) {
  if (catalog.settings.empty()) return;
  // Biases of all linear layers are another argument's.
  if (has_name_with(catalog, ".linear_qkv.bias") && !has_name_with(catalog, ".linear_proj.bias"))
    add_truth(catalog, "add_qkv_bias");
  if (has_name_with(catalog, ".self_attention.q_layernorm.")) add_truth(catalog, "qk_layernorm");
}

void check_layers_of_experts(Catalog& catalog) {
  if (!catalog.arguments.contains("num_experts")) return;
  // Layers of a searched architecture may do nothing, and those of a hybrid one thing each.
  if (catalog.settings.contains("heterogeneous_layers_config_path") || has_name_with(catalog, ".mixer."))
    return;
  if (catalog.ranks.empty()) check_layers(catalog.tensors, nullptr, catalog);
  for (const RankSet& set : catalog.ranks) check_layers(set.tensors, &set.at, catalog);
}

}  // namespace uckpt::megatron
