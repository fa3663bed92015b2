// Over which stages a pipeline's layers lie.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lib/formats/deepspeed/write/model_parts.h"

namespace uckpt::deepspeed {

class Stages {
 public:
  int64_t count() const { return static_cast<int64_t>(names_.size()); }
  bool hold(int64_t stage, const std::string& name) const {
    return names_[static_cast<size_t>(stage)].contains(name);
  }

  // Of a tied module's parameter: its place among those that the stage has. DeepSpeed registers a tied module
  // where the stage first uses it, and optimizers have their parameters in that order.
  using Place = std::pair<int64_t, size_t>;
  std::optional<Place> tied_place(int64_t stage, const std::string& name) const {
    const auto& places = tied_[static_cast<size_t>(stage)];
    const auto found = places.find(name);
    return found == places.end() ? std::nullopt : std::optional(found->second);
  }

  // The source's own stages where it has as many as are asked for, else the ones that DeepSpeed would make:
  // balanced by the parameters to be trained, whose elements on one rank `numel_of` counts. `sizes`, if not
  // empty, says how many layers each stage has. A tied module is on every stage that uses it. Throws trouble
  // `usage.stages`, refused `deepspeed.stages`.
  static Stages make(const Catalog& catalog, const SourceObjects& source,
                     const std::vector<PipelineLayer>& layers, int64_t count, std::span<const int64_t> sizes,
                     const std::function<int64_t(const std::string&)>& numel_of,
                     std::vector<std::string>& notes);

 private:
  void add_untrained(const std::vector<PipelineLayer>& layers);

  std::vector<std::set<std::string>> names_;        // by stage
  std::vector<std::map<std::string, Place>> tied_;  // likewise
};

// DeepSpeed's partition_balanced (0.19.8: runtime/utils.py): where each of `parts` parts begins, and the end.
// The same result to the last tie. Time is of the order of weights² × parts.
std::vector<int64_t> balanced_parts(std::span<const int64_t> weights, int64_t parts);

}  // namespace uckpt::deepspeed
