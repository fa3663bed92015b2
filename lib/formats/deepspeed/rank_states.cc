#include "lib/formats/deepspeed/rank_states.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

const RankState* find_state(const RankGroup& group, const std::string& name) {
  for (const RankState& s : group.states) {
    if (s.name == name) return &s;
  }
  return nullptr;
}

CutState master_of(const RankFamily& family, const PartitionTest& fits, std::string_view expected) {
  CutState out{std::string(state::kMaster), DType::kF32, {}};
  bool first = true;
  for (size_t r = 0; r < family.files.size(); ++r) {
    const RankGroup* group = family.at(r);
    const Place* place = group && group->master ? &*group->master : nullptr;
    out.places.push_back(place);
    if (!place) continue;
    if (!fits(r, place->numel)) {
      throw refused("deepspeed.sizes", cat("group ", family.group, ": expected ", expected,
                                           " fp32 weights, found ", place->numel))
          .in_file(family.files[r]->source.bytes()->name());
    }
    if (!first && place->dtype != out.dtype) {
      throw refused("deepspeed.mixed_runs", cat("group ", family.group, ": expected fp32 weights of ",
                                                name_of(out.dtype), ", found ", name_of(place->dtype)))
          .in_file(family.files[r]->source.bytes()->name());
    }
    out.dtype = place->dtype;
    first = false;
  }
  return out;
}

// One state on all ranks, by kind.
struct StateOnRanks {
  std::vector<const RankState*> at;  // null where the file is not there
  bool all_cut = true, all_numbers = true;
};

StateOnRanks collect(const RankFamily& family, const std::string& name, const PartitionTest& fits) {
  StateOnRanks out;
  for (size_t r = 0; r < family.files.size(); ++r) {
    const RankGroup* group = family.at(r);
    const RankState* s = group ? find_state(*group, name) : nullptr;
    if (group && !s) {
      throw refused("deepspeed.mixed_runs",
                    cat("group ", family.group, " has no ", escape(name, 40),
                        " here, but on other ranks: the files come from different saves"))
          .in_file(family.files[r]->source.bytes()->name());
    }
    out.at.push_back(s);
    if (!s) continue;
    out.all_cut &= s->is_tensor && !s->shape.empty() && fits(r, s->place.numel);
    out.all_numbers &= s->scalar.has_value();
  }
  return out;
}

// A number must be the same everywhere; `step` above all.
std::optional<Scalar> agreed(const RankFamily& family, const std::string& name, const StateOnRanks& state) {
  std::optional<Scalar> value;
  for (size_t r = 0; r < state.at.size(); ++r) {
    if (!state.at[r]) continue;
    if (!value) value = state.at[r]->scalar;
    if (*value == *state.at[r]->scalar) continue;
    if (name != state::kStep) return std::nullopt;
    throw refused("deepspeed.step_disagrees",
                  cat("the step of group ", family.group, ": expected ", value->text(),
                      " as on the first rank, found ", state.at[r]->scalar->text()))
        .in_file(family.files[r]->source.bytes()->name());
  }
  return value;
}

CutState cut_of(const RankFamily& family, const std::string& name, const StateOnRanks& state) {
  CutState out{name, DType::kF32, {}};
  bool first = true;
  for (size_t r = 0; r < state.at.size(); ++r) {
    const Place* place = state.at[r] ? &state.at[r]->place : nullptr;
    out.places.push_back(place);
    if (!place) continue;
    if (!first && place->dtype != out.dtype) {
      throw refused("deepspeed.mixed_runs", cat(escape(name, 40), " of group ", family.group, ": expected ",
                                                name_of(out.dtype), ", found ", name_of(place->dtype)))
          .in_file(family.files[r]->source.bytes()->name());
    }
    out.dtype = place->dtype;
    first = false;
  }
  return out;
}

// Neither a partition nor one number: kept for each rank under its path in the file.
void leave_loose(const RankFamily& family, const std::string& name, const StateOnRanks& state) {
  for (size_t r = 0; r < state.at.size(); ++r) {
    const RankState* s = state.at[r];
    if (!s || !s->is_tensor) continue;
    torch::TensorInfo info;
    info.dtype = s->place.dtype;
    info.shape = s->shape;
    info.stride.assign(s->shape.size(), 1);
    for (size_t d = s->shape.size(); d-- > 1;)
      info.stride[d - 1] = info.stride[d] * std::max<int64_t>(1, s->shape[d]);
    info.offset = s->place.offset;
    info.record = s->place.record;
    info.flags = s->place.flags;
    const std::string_view base =
        family.files[r]->stage() == 3 ? "optimizer_state_dict" : "base_optimizer_state";
    family.files[r]->loose.push_back(
        {cat("optimizer_state_dict.", base, ".state.", family.group, ".", name), std::move(info)});
  }
}

std::vector<std::string> state_names(const RankFamily& family) {
  std::vector<std::string> names;
  for (size_t r = 0; r < family.files.size(); ++r) {
    const RankGroup* group = family.at(r);
    if (!group) continue;
    for (const RankState& s : group->states) {
      if (std::find(names.begin(), names.end(), s.name) == names.end()) names.push_back(s.name);
    }
  }
  return names;
}

// The step where the optimizer keeps it in its param_groups, or an elastic file beside them.
void add_group_step(const RankFamily& family, GroupStates& out) {
  for (const auto& [name, value] : out.numbers) {
    if (name == state::kStep) return;
  }
  std::optional<Scalar> step;
  for (const OptimizerFile* f : family.files) {
    if (!f) continue;
    std::optional<Scalar> own = f->step;
    for (size_t g = 0; g < f->param_groups.size(); ++g) {
      // The number of the (sub-)group stands in its param group's `params`.
      const auto& params = f->param_groups[g].params;
      const bool mine = params.empty() ? g == family.group
                                       : std::find(params.begin(), params.end(),
                                                   static_cast<int64_t>(family.group)) != params.end();
      if (mine && f->param_groups[g].step) own = f->param_groups[g].step;
    }
    if (!step) step = own;
    if (step != own) {
      throw refused("deepspeed.step_disagrees",
                    cat("the step of group ", family.group, ": expected ", step->text(),
                        " as on the first rank, found ", own ? own->text() : "none"))
          .in_file(f->source.bytes()->name());
    }
  }
  if (step) out.numbers.emplace_back(state::kStep, *step);
}

}  // namespace

const RankGroup* RankFamily::at(size_t rank) const {
  return files[rank] && group < files[rank]->groups.size() ? &files[rank]->groups[group] : nullptr;
}

const OptimizerFile* RankFamily::any() const {
  const auto it = std::find_if(files.begin(), files.end(), [](const auto* f) { return f != nullptr; });
  return it == files.end() ? nullptr : *it;
}

RankFamily family_of(Checkpoint& c, int64_t model_rank, size_t group, int64_t expert_ranks,
                     int64_t expert_rank, bool data_first) {
  RankFamily out;
  out.group = group;
  const int64_t count = c.mesh.dp / expert_ranks;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t d = data_first ? expert_rank * count + i : i * expert_ranks + expert_rank;
    out.files.push_back(c.optimizer(model_rank, d));
    out.names.push_back(c.optimizer_name(model_rank, d));
  }
  return out;
}

GroupStates read_group_states(const RankFamily& family, const PartitionTest& fits,
                              std::string_view expected) {
  GroupStates out;
  out.cut.push_back(master_of(family, fits, expected));
  for (const std::string& name : state_names(family)) {
    const StateOnRanks state = collect(family, name, fits);
    if (state.all_cut) {
      out.cut.push_back(cut_of(family, name, state));
      continue;
    }
    const auto value = state.all_numbers ? agreed(family, name, state) : std::nullopt;
    if (value) {
      out.numbers.emplace_back(name, *value);
      continue;
    }
    const bool moment = name == "exp_avg" || name == "exp_avg_sq" || name == "momentum_buffer";
    if (moment) {
      throw refused("deepspeed.sizes", cat("group ", family.group, ": ", name,
                                           " is not cut like the weights: expected ", expected, " elements"))
          .in_file(family.any()->source.bytes()->name());
    }
    leave_loose(family, name, state);
  }
  add_group_step(family, out);
  return out;
}

}  // namespace uckpt::deepspeed
