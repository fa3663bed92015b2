// The optimizer's groups of parameters: which, in which order, with which options.
#pragma once

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

}  // namespace uckpt::deepspeed
