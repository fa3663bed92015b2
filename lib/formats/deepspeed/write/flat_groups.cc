// How the flat buffers of a target lie (DeepSpeed 0.19.8: runtime/zero/stage_1_and_2.py, stage3.py).
#include <algorithm>
#include <numeric>

#include "lib/base/checked.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

constexpr int64_t kStartAlignment = 2;  // nccl_start_alignment_factor, elements
constexpr double kDefaultSubGroup = 1e9;

// round_robin_gradients: first the parameters with number 0 modulo the ranks, then those with 1, ….
void put_in_round_robin(FlatGroup& group) {
  std::vector<FlatParameter> in_order = std::move(group.parameters);
  group.parameters.clear();
  const auto ranks = static_cast<size_t>(group.ranks);
  for (size_t r = 0; r < ranks; ++r)
    for (size_t i = r; i < in_order.size(); i += ranks) group.parameters.push_back(std::move(in_order[i]));
}

// A stage of a pipeline registers its tied modules in the order in which it uses them.
void put_tied_in_order(const Stages& stages, int64_t stage, FlatGroup& group) {
  std::vector<FlatParameter*> places;
  std::vector<std::pair<Stages::Place, FlatParameter>> tied;
  for (FlatParameter& p : group.parameters)
    if (const auto place = stages.tied_place(stage, p.name)) {
      tied.emplace_back(*place, std::move(p));
      places.push_back(&p);
    }
  std::stable_sort(tied.begin(), tied.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < tied.size(); ++i) *places[i] = std::move(tied[i].second);
}

// What the model rank at hand has of a group, and of its experts the given data rank.
struct GroupPlace {
  int64_t model_rank, data_rank;
};
FlatGroup group_at(const TargetCheckpoint& target, size_t number, const GroupPlace& place) {
  const ParamGroup& group = target.parameters.groups()[number];
  FlatGroup out;
  out.group = number;
  const int64_t ep = std::max<int64_t>(1, group.ep);
  out.ranks = target.dp / ep;
  const bool data_first = target.source.config_flag("", "use_data_before_expert_parallelism");
  const int64_t expert_rank = data_first ? place.data_rank / out.ranks : place.data_rank % ep;
  out.rank = data_first ? place.data_rank % out.ranks : place.data_rank / ep;
  for (const std::string& name : group.names) {
    if (!target.holds(place.model_rank, name)) continue;
    std::string local = name;
    const bool is_fused = layer_of(target.parameters.fused(), name) != nullptr;
    if (group.ep > 0 && !is_fused) {
      const auto at = parse_expert(name);
      const int64_t count = target.parameters.experts_of(name) / group.ep;
      if (at->number / count != expert_rank) continue;
      local = with_expert(name, *at, at->number % count);
    }
    const auto part = target.book.find(*target.parameters.at(name).master);
    if (!part) continue;
    FlatParameter& p =
        out.parameters.emplace_back(FlatParameter{name, std::move(local), part->shape, part->numel, 0, 0});
    if (!is_fused) continue;
    p.shape[0] /= ep;
    p.numel /= ep;
    p.first = expert_rank * p.numel;
  }
  if (target.stages) put_tied_in_order(*target.stages, target.stage_of(place.model_rank), out);
  return out;
}

}  // namespace

int64_t FlatGroup::padding() const {
  return std::clamp<int64_t>((rank + 1) * partition - used, 0, partition);
}

int64_t share_of(const TargetCheckpoint& target, int64_t numel) { return ceil_div(numel, target.dp); }

std::vector<FlatGroup> flat_groups(const TargetCheckpoint& target, int64_t model_rank, int64_t data_rank) {
  const bool round_robin = target.source.config_flag("zero_optimization", "round_robin_gradients");
  const bool aligned = target.source.config_flag("zero_optimization", "parameter_alignment");
  std::vector<FlatGroup> out;
  for (size_t g = 0; g < target.parameters.groups().size(); ++g) {
    FlatGroup flat = group_at(target, g, {model_rank, data_rank});
    if (target.stages && flat.parameters.empty()) continue;
    if (round_robin) put_in_round_robin(flat);
    int64_t alignment = 1;  // elements of 16 bytes in the module's type
    if (aligned && !flat.parameters.empty()) {
      const int64_t item = item_size(target.parameters.at(flat.parameters.front().name).module_dtype);
      alignment = 16 / std::gcd(int64_t{16}, item);
    }
    for (FlatParameter& p : flat.parameters) {
      p.at = flat.used;
      flat.used += p.numel;
      if (&p == &flat.parameters.back()) break;
      p.filler = round_up(flat.used, alignment) - flat.used;
      flat.used += p.filler;
    }
    flat.partition = ceil_div(flat.used, kStartAlignment * flat.ranks) * kStartAlignment;
    out.push_back(std::move(flat));
  }
  return out;
}

std::vector<FlatGroup> sub_groups(const TargetCheckpoint& target) {
  const double most =
      target.source.config_number("zero_optimization", "sub_group_size").value_or(kDefaultSubGroup);
  std::vector<FlatGroup> out;
  for (size_t g = 0; g < target.parameters.groups().size(); ++g) {
    // DeepSpeed passes over a group of frozen parameters.
    if (target.parameters.groups()[g].names.empty()) continue;
    out.emplace_back().group = g;
    std::vector<FlatParameter> parameters = group_at(target, g, {0, 0}).parameters;
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
