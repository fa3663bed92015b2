// AutoEP keeps the experts of a layer in three weights, `<prefix>.w1` to `.w3`, whose first dim counts them.
// Each expert rank has as many of their rows, in order; files of experts have one row each: `<prefix>.w1.7`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/pickle/value.h"

namespace uckpt::deepspeed {

inline constexpr int64_t kMostExperts = 1 << 16;  // of one layer; more is a damaged number

struct FusedExperts {
  int64_t layer = 0;    // among the model's MoE layers, as the files' names have it
  std::string prefix;   // "model.layers.0.mlp.experts"
  int64_t experts = 0;  // over all ranks

  bool has(std::string_view name) const;
};

// One row of a fused weight, as a file of an expert names it.
struct FusedRow {
  std::string weight;
  int64_t expert = 0;
};

// What a model file says of them; none where AutoEP had no part in it. Throws refused `deepspeed.malformed`,
// and `deepspeed.experts` where the ranks do not have equal shares in order.
std::vector<FusedExperts> read_fused_experts(const pickle::Value& model);
// The layer that a fused weight belongs to; null where it is none.
const FusedExperts* layer_of(const std::vector<FusedExperts>& layers, std::string_view name);
// Nothing where the key is no row of these layers.
std::optional<FusedRow> fused_row(const std::vector<FusedExperts>& layers, std::string_view key);

}  // namespace uckpt::deepspeed
