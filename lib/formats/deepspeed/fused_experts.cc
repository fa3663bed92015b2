#include "lib/formats/deepspeed/fused_experts.h"

#include <charconv>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

// A list of the experts of each rank; runs of versions without one have equal shares.
bool has_equal_shares(const Value& placement, int64_t experts) {
  const Value ranks = placement && placement.is_dict() ? placement.get("ranks") : Value();
  if (!ranks || !ranks.is_sequence()) return true;
  int64_t next = 0;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const Value own = ranks.at(r).get("experts");
    if (!own || !own.is_sequence() || own.size() * ranks.size() != static_cast<size_t>(experts)) return false;
    for (size_t i = 0; i < own.size(); ++i)
      if (own.at(i).integer() != next++) return false;
  }
  return true;
}

FusedExperts read_layer(const Value& entry) {
  const auto layer = entry.get("moe_layer_id").integer();
  const auto experts = entry.get("num_experts").integer();
  const auto prefix = entry.get("expert_key_prefix").text();
  if (!layer || !prefix || !experts || *experts < 1 || *experts > kMostExperts)
    throw refused(
        "deepspeed.malformed",
        "ds_autoep_layers: expected a number, a prefix of names and a count of experts of each layer");
  if (!has_equal_shares(entry.get("expert_placement"), *experts))
    throw refused("deepspeed.experts",
                  cat("ds_autoep_layers: the ranks do not have equal shares of the experts of ",
                      escape(*prefix, 100), " in order: this version does not read such ones"));
  return {*layer, std::string(*prefix), *experts};
}

}  // namespace

bool FusedExperts::has(std::string_view name) const {
  if (!name.starts_with(prefix)) return false;
  const std::string_view rest = name.substr(prefix.size());
  return rest == ".w1" || rest == ".w2" || rest == ".w3";
}

std::vector<FusedExperts> read_fused_experts(const Value& model) {
  std::vector<FusedExperts> out;
  if (!model || !model.is_dict()) return out;
  Value list = model.get("ds_autoep_layers");
  if (!list) list = model.get("autoep_layers");  // older versions
  if (!list || list.is_none()) return out;
  if (!list.is_sequence())
    throw refused("deepspeed.malformed", "ds_autoep_layers: expected a list of layers");
  for (size_t i = 0; i < list.size(); ++i) out.push_back(read_layer(list.at(i)));
  return out;
}

const FusedExperts* layer_of(const std::vector<FusedExperts>& layers, std::string_view name) {
  for (const FusedExperts& l : layers)
    if (l.has(name)) return &l;
  return nullptr;
}

std::optional<FusedRow> fused_row(const std::vector<FusedExperts>& layers, std::string_view key) {
  const size_t dot = key.rfind('.');
  if (dot == key.npos || !layer_of(layers, key.substr(0, dot))) return std::nullopt;
  FusedRow out{std::string(key.substr(0, dot)), 0};
  const std::string_view digits = key.substr(dot + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out.expert);
  if (error != std::errc() || end != digits.data() + digits.size() || out.expert < 0) return std::nullopt;
  return out;
}

}  // namespace uckpt::deepspeed
