// How the flat buffers of a target lie (DeepSpeed 0.19.8: runtime/zero/stage_1_and_2.py, stage3.py).
#include <algorithm>
#include <numeric>

#include "lib/base/checked.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

constexpr int64_t kStartAlignment = 2;  // nccl_start_alignment_factor, elements
constexpr double kDefaultSubGroup = 1e9;

// round_robin_gradients: first the parameters with number 0 modulo `ranks`, then those with 1, ….
std::vector<std::string> in_round_robin(const std::vector<std::string>& names, int64_t ranks) {
  std::vector<std::string> out;
  for (size_t r = 0; r < static_cast<size_t>(ranks); ++r)
    for (size_t i = r; i < names.size(); i += static_cast<size_t>(ranks)) out.push_back(names[i]);
  return out;
}

// Those that the tensor parallel rank at hand has.
std::vector<FlatParameter> parameters_of(const TargetCheckpoint& target,
                                         const std::vector<std::string>& names) {
  std::vector<FlatParameter> out;
  for (const std::string& name : names)
    if (const auto part = target.book.find(*target.parameters.at(name).master))
      out.push_back({name, part->shape, part->numel, 0, 0});
  return out;
}

}  // namespace

int64_t FlatGroup::padding_of(int64_t rank) const {
  return std::clamp<int64_t>((rank + 1) * partition - used, 0, partition);
}

int64_t share_of(const TargetCheckpoint& target, int64_t numel) { return ceil_div(numel, target.dp); }

std::vector<FlatGroup> flat_groups(const TargetCheckpoint& target) {
  const bool round_robin = target.source.config_flag("zero_optimization", "round_robin_gradients");
  const bool aligned = target.source.config_flag("zero_optimization", "parameter_alignment");
  std::vector<FlatGroup> out;
  for (const ParamGroup& group : target.parameters.groups()) {
    FlatGroup& flat = out.emplace_back();
    flat.parameters =
        parameters_of(target, round_robin ? in_round_robin(group.names, target.dp) : group.names);
    int64_t alignment = 1;  // elements of 16 bytes in the module's type
    if (aligned && !group.names.empty()) {
      const int64_t item = item_size(target.parameters.at(group.names.front()).module_dtype);
      alignment = 16 / std::gcd(int64_t{16}, item);
    }
    for (FlatParameter& p : flat.parameters) {
      p.at = flat.used;
      flat.used += p.numel;
      if (&p == &flat.parameters.back()) break;
      p.filler = round_up(flat.used, alignment) - flat.used;
      flat.used += p.filler;
    }
    flat.partition = ceil_div(flat.used, kStartAlignment * target.dp) * kStartAlignment;
  }
  return out;
}

std::vector<SubGroup> sub_groups(const TargetCheckpoint& target) {
  const double most =
      target.source.config_number("zero_optimization", "sub_group_size").value_or(kDefaultSubGroup);
  std::vector<SubGroup> out;
  for (size_t g = 0; g < target.parameters.groups().size(); ++g) {
    out.emplace_back().group = g;
    std::vector<FlatParameter> parameters = parameters_of(target, target.parameters.groups()[g].names);
    for (size_t i = 0; i < parameters.size(); ++i) {
      FlatParameter& p = parameters[i];
      p.at = out.back().partition;
      out.back().partition += share_of(target, p.numel);
      out.back().parameters.push_back(std::move(p));
      if (static_cast<double>(out.back().partition) >= most && i + 1 < parameters.size())
        out.emplace_back().group = g;
    }
  }
  return out;
}

}  // namespace uckpt::deepspeed
