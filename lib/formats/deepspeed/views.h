// JSON views of rank files, and the tensors that belong to no parameter.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/deepspeed/source.h"

namespace uckpt::deepspeed {

// Writes a dict as JSON entry by entry. `part` may say what stands for the value of a key: text that is JSON,
// or
// "" to leave the entry out; nothing to print the value as it is.
using ViewPart = std::function<std::optional<std::string>(std::string_view key, const pickle::Value& value)>;
std::string view_of(const torch::TorchFile& file, const pickle::Value& dict, const ViewPart& part);

// The entries of a dict that are no tensors: what is left of a state dict once its tensors have a place of
// their own. "" where nothing is left.
std::string view_without_tensors(const torch::TorchFile& file, const pickle::Value& dict);
// A torch optimizer's state_dict: param_groups and all of `state` that is no tensor.
std::string view_of_optimizer(const torch::TorchFile& file, const pickle::Value& optimizer);

// Visits what lies below `root`, whose own path is `path`, each value once and under the path where it is met
// first: keys and indices, joined by dots. `skip` names keys of `root` to leave out. `visit` tells whether it
// is done with a value; else its parts follow.
using ValueVisitor = std::function<bool(const pickle::Value& value, const std::string& path)>;
void walk_values(const pickle::Value& root, const std::string& path, std::span<const std::string_view> skip,
                 const ValueVisitor& visit);

// A tensor found outside the structure that DeepSpeed gives a file: random states, things users added.
struct LooseTensor {
  std::string path;  // of keys and indices, joined by dots
  torch::TensorInfo info;
};
// All tensors below `root`, whose own path is `path`; `skip` names the keys of `root` to leave out.
void find_loose(const torch::TorchFile& file, Source& source, const pickle::Value& root,
                const std::string& path, std::span<const std::string_view> skip,
                std::vector<LooseTensor>& out);

}  // namespace uckpt::deepspeed
