// Groups of experts, of which each rank of expert parallelism has a part.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/deepspeed/fused_experts.h"
#include "lib/formats/deepspeed/write/param_groups.h"

namespace uckpt::deepspeed {

// The layer that an expert's parameter belongs to; null where it is none of these.
const MoeLayer* layer_of(const std::vector<MoeLayer>& layers, const std::string& name);

bool has_experts(const ParamGroup& group);

// Groups whose options give the same text are parts of one and the same, whatever parameters a rank has of
// it.
std::string options_text(const pickle::Value& options, std::span<const std::string_view> except);

// But for what differs between parts of a group that DeepSpeed split.
bool same_expert_options(const ParamGroup& a, const ParamGroup& b);
constexpr int64_t kMostInExpertGroup = 178956971;  // elements of one rank, DeepSpeed's default

// Splits and joins the groups of experts as DeepSpeed does where `ep` ranks share them (0.19.8:
// moe/utils.py, split_params_into_different_moe_groups_for_optimizer): layers with fewer experts have fewer
// ranks and groups of their own, and a rank's part of a group has an upper size. `numel_of` counts the
// elements that a rank has of a parameter. Throws trouble `usage.layout` where ranks cannot share alike.
std::vector<ParamGroup> spread_experts(const Catalog& catalog, const std::vector<ParamGroup>& groups,
                                       const std::vector<MoeLayer>& layers, int64_t ep,
                                       const std::function<int64_t(const std::string&)>& numel_of);

// The same for the groups of AutoEP's weights, of each of which every rank has a share; `before` ranks shared
// the experts in the source.
std::vector<ParamGroup> spread_fused(const std::vector<ParamGroup>& groups,
                                     const std::vector<FusedExperts>& layers, int64_t before, int64_t ep,
                                     const std::function<int64_t(const std::string&)>& numel_of);

}  // namespace uckpt::deepspeed
