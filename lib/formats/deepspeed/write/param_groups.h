// The optimizer's groups of parameters: which, in which order, with which options.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "lib/formats/deepspeed/write/model_parts.h"

namespace uckpt::deepspeed {

struct ParamGroup {
  std::vector<std::string> names;  // in registration order; of experts those of all ranks
  pickle::Value options;           // a dict; empty where the source keeps none
  int64_t ep = 0;                  // its experts are spread over so many ranks; 0: it has none
};

// The source's groups. A pipeline's stages each have a part of them, and each rank of experts has its own:
// both are put together. `trained` are the names that must be in them, each once; they are in the order that
// is used where the source has no groups. `untrained` ones that a group lists by name, as programs may that
// freeze them later, are taken out. Throws refused `deepspeed.groups`.
std::vector<ParamGroup> read_groups(const Catalog& catalog, const SourceObjects& source,
                                    const std::vector<std::string>& trained,
                                    const std::vector<std::string>& untrained,
                                    const std::vector<PipelineLayer>& pipeline,
                                    const std::vector<MoeLayer>& layers);

// How the source has its stages: of each its names in groups. Empty where it does not say it.
std::vector<std::set<std::string>> stages_of_source(const Catalog& catalog, const SourceObjects& source,
                                                    const std::vector<PipelineLayer>& pipeline);

// Splits and joins the groups of experts as DeepSpeed does where `ep` ranks share them (0.19.8:
// moe/utils.py, split_params_into_different_moe_groups_for_optimizer): layers with fewer experts have fewer
// ranks and groups of their own, and a rank's part of a group has an upper size. `numel_of` counts the
// elements that a rank has of a parameter. Throws trouble `usage.layout` where ranks cannot share alike.
std::vector<ParamGroup> spread_experts(const Catalog& catalog, const std::vector<ParamGroup>& groups,
                                       const std::vector<MoeLayer>& layers, int64_t ep,
                                       const std::function<int64_t(const std::string&)>& numel_of);

}  // namespace uckpt::deepspeed
