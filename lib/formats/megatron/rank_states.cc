#include "lib/formats/megatron/rank_states.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/match.h"

namespace uckpt::megatron {

namespace {

Error unnamed(const ModelFile& model, std::string why) {
  return refused("megatron.unnamed_states", cat("the optimizer's states have numbers, not names, and ", why))
      .in_file(model.source.bytes()->name());
}

bool is_embedding_or_output(std::string_view name) {
  return name.find("embedding") != name.npos || name.ends_with("output_layer.weight");
}

// Weight decay leaves out biases and vectors.
bool decays(const ModelTensor& t) { return t.info.shape.size() != 1 && !t.name.ends_with(".bias"); }

// A parameter of one optimizer.
struct Slot {
  size_t chunk, tensor;
};

class PlainNames {
 public:
  PlainNames(const RankFiles& files, const OptimizerEntry& optimizer, std::vector<Slot> slots,
             RankStates& out)
      : model_(*files.model), optimizer_(optimizer), slots_(std::move(slots)), out_(out) {}

  void run() {
    if (!assign_by_rule() && !assign_by_shape())
      throw unnamed(model_, "neither Megatron's rules nor the shapes tell which parameter has which");
    for (size_t g = 0; g < assigned_.size(); ++g) add_group(g);
  }

 private:
  const ModelTensor& tensor(size_t slot) const {
    return model_.chunks[slots_[slot].chunk][slots_[slot].tensor];
  }

  // The shape that a group's i-th parameter shows, if it has a state that does.
  std::optional<Shape> shape_of(size_t group, size_t i) const {
    const auto entry = optimizer_.states.find(optimizer_.groups[group].params[i]);
    if (entry == optimizer_.states.end()) return std::nullopt;
    for (const NumberedState& s : entry->second)
      if (s.info && (s.name == "exp_avg" || s.name == "momentum_buffer")) return s.info->shape;
    return std::nullopt;
  }

  bool fits(size_t group) const {
    const auto& members = assigned_[group];
    if (members.size() != optimizer_.groups[group].params.size()) return false;
    for (size_t i = 0; i < members.size(); ++i) {
      const auto shape = shape_of(group, i);
      if (shape && *shape != tensor(members[i]).info.shape) return false;
    }
    return fits_masters(group);
  }

  // The parameters of a group that have a master, in order.
  std::vector<size_t> with_master(size_t group) const {
    std::vector<size_t> out;
    for (const size_t slot : assigned_[group])
      if (optimizer_.has_masters && item_size(tensor(slot).info.dtype) < 4) out.push_back(slot);
    return out;
  }

  bool fits_masters(size_t group) const {
    if (!optimizer_.has_masters) return true;
    const std::vector<size_t> members = with_master(group);
    if (group >= optimizer_.masters.size()) return members.empty();
    const auto& masters = optimizer_.masters[group];
    return std::ranges::equal(members, masters, [&](size_t slot, const torch::TensorInfo& info) {
      return info.shape == tensor(slot).info.shape;
    });
  }

  bool all_fit() const {
    for (size_t g = 0; g < assigned_.size(); ++g)
      if (!fits(g)) return false;
    return true;
  }

  bool assign_by_rule() {
    assigned_.assign(optimizer_.groups.size(), {});
    for (size_t s = 0; s < slots_.size(); ++s) {
      const auto group = group_of(optimizer_, tensor(s));
      if (!group) return false;
      assigned_[*group].push_back(s);
    }
    return all_fit();
  }

  // Groups made by other rules: where only one assignment fits the shapes.
  bool assign_by_shape() {
    std::vector<Shape> shapes;
    for (size_t s = 0; s < slots_.size(); ++s) shapes.push_back(tensor(s).info.shape);
    std::vector<std::vector<std::optional<Shape>>> groups;
    for (size_t g = 0; g < optimizer_.groups.size(); ++g) {
      auto& list = groups.emplace_back();
      for (size_t i = 0; i < optimizer_.groups[g].params.size(); ++i) list.push_back(shape_of(g, i));
    }
    std::vector<std::vector<size_t>> found;
    if (deepspeed::match_in_order(shapes, groups, found) != deepspeed::Match::kUnique) return false;
    for (const auto& group : found)
      if (std::ranges::find(group, deepspeed::kNoMatch) != group.end()) return false;
    assigned_ = std::move(found);
    return all_fit();
  }

  ParameterStates& states_of(size_t slot) { return out_[slots_[slot].chunk][slots_[slot].tensor]; }

  void add_group(size_t g) {
    const std::vector<size_t> masters = with_master(g);
    for (size_t i = 0; i < masters.size(); ++i) {
      states_of(masters[i])
          .tensors.push_back({std::string(state::kMaster), optimizer_.masters[g][i], &model_.source});
    }
    for (size_t i = 0; i < assigned_[g].size(); ++i) {
      ParameterStates& states = states_of(assigned_[g][i]);
      states.is_trained = true;
      const auto entry = optimizer_.states.find(optimizer_.groups[g].params[i]);
      if (entry != optimizer_.states.end()) add_states(assigned_[g][i], entry->second, states);
    }
  }

  void add_states(size_t slot, const std::vector<NumberedState>& from, ParameterStates& to) {
    for (const NumberedState& s : from) {
      const ModelTensor& t = tensor(slot);
      const bool is_number = s.number && (!s.info || s.info->shape != t.info.shape || s.name == state::kStep);
      if (is_number) {
        to.numbers.emplace_back(s.name, *s.number);
      } else if (s.info && s.info->shape == t.info.shape) {
        to.tensors.push_back({s.name, *s.info, &model_.source});
      } else {
        throw refused("megatron.optimizer_size",
                      cat("its state ", escape(s.name, 60), " has the shape ",
                          s.info ? shape_text(s.info->shape) : "[]", ", expected that of the parameter, ",
                          shape_text(t.info.shape)))
            .in_file(model_.source.bytes()->name())
            .in_tensor(t.name);
      }
    }
  }

  ModelFile& model_;
  const OptimizerEntry& optimizer_;
  const std::vector<Slot> slots_;
  RankStates& out_;
  std::vector<std::vector<size_t>> assigned_;  // of each group, slots in the order of its numbers
};

}  // namespace

OptimizerShares::OptimizerShares(const ModelFile& model, const Parallelism& p, size_t optimizers) {
  bool any = false;
  for (const Chunk& chunk : model.chunks)
    any = any || std::ranges::any_of(chunk, [](const ModelTensor& t) { return t.is_expert && !t.is_buffer; });
  has_experts_ = any && optimizers > 1 && (p.ep > 1 || model.chunks.size() == 1);
  dense_ = optimizers - (has_experts_ ? 1 : 0);
  if (dense_ == 1 || (dense_ == 2 && model.chunks.size() > 1)) return;
  throw refused("megatron.optimizers", cat("expected an optimizer of the dense parameters",
                                           any ? " and one of experts" : "", ", found ", optimizers))
      .in_file(model.source.bytes()->name());
}

size_t OptimizerShares::owner(size_t chunk, const ModelTensor& t) const {
  if (is_expert(t)) return dense_;
  return dense_ == 1 || chunk == 0 ? 0 : 1;
}

std::optional<size_t> group_of(const OptimizerEntry& optimizer, const ModelTensor& t) {
  const auto& groups = optimizer.groups;
  const bool any_decoupled =
      std::ranges::any_of(groups, [](const OptimizerGroup& g) { return g.decoupled == true; });
  std::optional<size_t> found;
  for (size_t g = 0; g < groups.size(); ++g) {
    if (groups.size() > 1 && groups[g].decays && *groups[g].decays != decays(t)) continue;
    if (any_decoupled && groups[g].decoupled.value_or(false) != is_embedding_or_output(t.name)) continue;
    if (found) return std::nullopt;
    found = g;
  }
  return found;
}

void add_plain_states(const RankFiles& files, const Parallelism& p, RankStates& out) {
  ModelFile& model = *files.model;
  const OptimizerShares shares(model, p, model.optimizers.size());
  for (size_t o = 0; o < model.optimizers.size(); ++o) {
    std::vector<Slot> slots;
    for (size_t c = 0; c < model.chunks.size(); ++c)
      for (size_t t = 0; t < model.chunks[c].size(); ++t)
        if (!model.chunks[c][t].is_buffer && shares.owner(c, model.chunks[c][t]) == o)
          slots.push_back({c, t});
    PlainNames(files, model.optimizers[o], std::move(slots), out).run();
  }
}

void add_group_steps(const RankFiles& files, const Parallelism& p, RankStates& out) {
  const ModelFile& model = *files.model;
  if (model.optimizers.empty()) return;
  const OptimizerShares shares(model, p, model.optimizers.size());
  for (size_t c = 0; c < model.chunks.size(); ++c) {
    for (size_t t = 0; t < model.chunks[c].size(); ++t) {
      const ModelTensor& tensor = model.chunks[c][t];
      ParameterStates& states = out[c][t];
      const auto has_step =
          std::ranges::any_of(states.numbers, [](const auto& n) { return n.first == state::kStep; });
      if (!states.is_trained || has_step) continue;
      const OptimizerEntry& optimizer = model.optimizers[shares.owner(c, tensor)];
      if (optimizer.groups.empty()) continue;
      const bool same = std::ranges::all_of(
          optimizer.groups, [&](const OptimizerGroup& g) { return g.step == optimizer.groups.front().step; });
      const auto group = same ? std::optional<size_t>(0) : group_of(optimizer, tensor);
      if (!group) throw unnamed(model, "its groups are at different steps").in_tensor(tensor.name);
      if (optimizer.groups[*group].step)
        states.numbers.emplace_back(std::string(state::kStep), *optimizer.groups[*group].step);
    }
  }
}

}  // namespace uckpt::megatron
