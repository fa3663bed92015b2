// Module weights: of model files, pipeline layer files and expert files, under their full names.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"

namespace uckpt::deepspeed {

struct Weight {
  std::string name;  // whole: "3.mlp.weight", with the global expert number
  const torch::TensorInfo* info = nullptr;
  Source* source = nullptr;
  const RankFile* file = nullptr;
  std::optional<size_t> same_as;  // another weight of the file that is the same memory
};

// A row of a fused weight, from an expert's file.
struct ExpertRow {
  int64_t expert = 0;
  const torch::TensorInfo* info = nullptr;
  Source* source = nullptr;
};

struct Weights {
  std::map<std::string, std::vector<ExpertRow>> fused;  // AutoEP's weights by name, the experts ascending
  std::vector<Weight> all;  // in the order of the module, pipeline layers ascending, experts last
  std::unordered_set<std::string_view> buffers;
  std::unordered_map<std::string_view, std::string_view> shared;  // alias -> stored name
  std::string dtypes;                                             // of the module: "bf16"

  bool is_buffer(const std::string& name) const { return buffers.contains(name); }
};

// Needs the masters in the builder: a tied layer of a pipeline is found by its name and shape among them.
Weights collect_weights(Builder& builder, Checkpoint& checkpoint);

// A weight that has a master becomes a copy to compare, other weights are /param, buffers /buffer, second
// names aliases. `trained` are the names that an optimizer without masters of its own updates: in fp32 they
// are the masters. Without `compare` copies of masters are left out: they are shards.
void add_weights(Builder& builder, Checkpoint& checkpoint, const Weights& weights,
                 const std::unordered_set<std::string>& trained, bool compare);

// Names of layer and expert files that must be there for the masters, and are not.
std::vector<std::string> missing_weight_files(const Builder& builder, const Checkpoint& checkpoint,
                                              const Weights& weights);

}  // namespace uckpt::deepspeed
