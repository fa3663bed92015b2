#include "lib/formats/deepspeed/zero12.h"

#include <algorithm>
#include <map>
#include <memory>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/deepspeed/fused_group.h"
#include "lib/formats/deepspeed/rank_states.h"

namespace uckpt::deepspeed {

namespace {

// One group of one model rank as its flat buffer: parameters at offsets, cut into partitions of equal length.
struct FlatBuffer {
  std::vector<std::string> names;        // of the parameters, with global expert numbers
  std::vector<Shape> shapes;             // without vocabulary padding
  std::vector<int64_t> offsets, numels;  // in storage order; elements that are stored
  int64_t length = 0;                    // of all parameters and fillers
  int64_t partition = 0;                 // elements a rank
  std::string layout;

  // A rank's partition, with its padding or without.
  int64_t unpadded(size_t rank) const {
    return std::clamp<int64_t>(length - static_cast<int64_t>(rank) * partition, 0, partition);
  }
  bool fits(size_t rank, int64_t numel) const { return numel == partition || numel == unpadded(rank); }
};

// How experts are numbered: files hold each rank's own, counted from 0.
class ExpertNumbers {
 public:
  ExpertNumbers(const LocalExperts& local, int64_t expert_rank) : rank_(expert_rank), local_(local) {}
  std::string global(const std::string& name) const {
    const auto at = parse_expert(name);
    if (!at) return name;
    return with_expert(name, *at, rank_ * local_.find(at->layer(name))->second + at->number);
  }

 private:
  int64_t rank_;
  const LocalExperts& local_;
};

const LocalExperts kNoExperts;  // of those that are numbered

int64_t checked_sum(int64_t a, int64_t b) {
  const auto sum = checked_add(a, b);
  if (!sum) throw refused("deepspeed.sizes", "param_shapes add up to more than 2^63 elements");
  return *sum;
}

// Elements of a rank's partition with its padding. The weights are stored without it but by BF16_Optimizer,
// which also writes no stage; very old files do not say how much it is, and there the moments still have it.
int64_t partition_of(const RankFamily& family, size_t rank) {
  const RankGroup* group = family.at(rank);
  if (!group || !group->master) return 0;
  const OptimizerFile& file = *family.files[rank];
  const int64_t stored = group->master->numel;
  if (!file.zero_stage) return stored;
  if (family.group < file.paddings.size())
    return checked_sum(stored, std::max<int64_t>(0, file.paddings[family.group]));
  int64_t longest = stored;
  for (const RankState& s : group->states) {
    if (s.name == "exp_avg") longest = std::max(longest, s.place.numel);
  }
  return longest;
}

FlatBuffer lay_out(const Builder& builder, const ParamList& params, const std::vector<int64_t>& fillers,
                   const ExpertNumbers& experts, const RankFamily& family) {
  FlatBuffer out;
  for (size_t k = 0; k < params.size(); ++k) {
    const int64_t filler = k < fillers.size() ? fillers[k] : 0;
    if (filler < 0) throw refused("deepspeed.malformed", "expected alignment paddings of 0 or more");
    out.names.push_back(experts.global(params[k].name));
    out.shapes.push_back(builder.vocabulary.logical(out.names.back(), params[k].shape));
    out.offsets.push_back(out.length);
    out.numels.push_back(params[k].numel);
    out.length = checked_sum(checked_sum(out.length, params[k].numel), filler);
  }
  for (size_t r = 0; r < family.files.size(); ++r)
    out.partition = std::max(out.partition, partition_of(family, r));
  const auto ranks = static_cast<int64_t>(family.files.size());
  const auto room = checked_mul(out.partition, ranks);
  if (!room || *room < out.length) {
    throw refused("deepspeed.sizes",
                  cat("group ", family.group, ": ", ranks, " ranks hold up to ", out.partition,
                      " elements each: expected room for the ", out.length, " of param_shapes"))
        .in_file(family.any()->source.bytes()->name());
  }
  return out;
}

// With all ranks there the weights without their padding add up to exactly what param_shapes says; what a
// file says about its padding must agree.
void check_paddings(const FlatBuffer& buffer, const RankFamily& family) {
  for (size_t r = 0; r < family.files.size(); ++r) {
    const OptimizerFile* f = family.files[r];
    if (!f || family.group >= f->paddings.size() || !f->zero_stage) continue;
    const int64_t expected = buffer.partition - buffer.unpadded(r);
    if (f->paddings[family.group] == expected) continue;
    throw refused("deepspeed.sizes",
                  cat("group ", family.group, ": expected ", expected,
                      " padding elements after what param_shapes names, found ", f->paddings[family.group]))
        .in_file(f->source.bytes()->name());
  }
}

// Each rank's list begins with the parameter that its partition begins with, but for round-robin gradients:
// else the file belongs to another rank.
void check_places(const ParamList& params, const FlatBuffer& buffer, const RankFamily& family) {
  for (size_t r = 0; r < family.files.size(); ++r) {
    const OptimizerFile* f = family.files[r];
    if (!f || family.group >= f->mappings.size() || f->mappings[family.group].empty()) continue;
    const auto& found = f->mappings[family.group].front();
    const int64_t begin = static_cast<int64_t>(r) * buffer.partition, end = begin + buffer.partition;
    size_t k = 0;
    while (k < params.size() && buffer.offsets[k] + buffer.numels[k] <= begin) ++k;
    const int64_t numel = k < params.size() ? std::min(end, buffer.offsets[k] + buffer.numels[k]) -
                                                  std::max(begin, buffer.offsets[k])
                                            : 0;
    if (numel > 0 && found.name == params[k].name && found.numel == numel) continue;
    throw refused("deepspeed.duplicate_rank",
                  cat("group ", family.group, ": its partition begins with ", found.numel, " elements of ",
                      escape(found.name, 100), ": expected ", std::max<int64_t>(0, numel), " of ",
                      k < params.size() ? escape(params[k].name, 100) : "padding",
                      ": the file belongs to another rank"))
        .in_file(f->source.bytes()->name());
  }
}

// The parameter's elements are those from `base` on of a tensor of `numel`. Returns a file that is missing.
std::optional<std::string> add_pieces(Builder& builder, const FlatBuffer& buffer, const RankFamily& family,
                                      const CutState& state, size_t k, int64_t base, int64_t numel) {
  const int64_t begin = buffer.offsets[k], end = begin + numel_of(buffer.shapes[k]);
  for (int64_t at = begin; at < end;) {
    const int64_t rank = at / buffer.partition, until = std::min(end, (rank + 1) * buffer.partition);
    const Place* place = state.places[static_cast<size_t>(rank)];
    if (!place) return family.names[static_cast<size_t>(rank)];
    builder.flat(family.files[static_cast<size_t>(rank)]->source, *place, numel, base + at - begin,
                 until - at, at - rank * buffer.partition);
    at = until;
  }
  return std::nullopt;
}

void add_cut(Builder& builder, const FlatBuffer& buffer, const RankFamily& family, const CutState& state,
             size_t k, std::string_view replica) {
  builder.put({state.name, buffer.names[k], state.dtype, buffer.shapes[k], buffer.layout, replica},
              [&] { return add_pieces(builder, buffer, family, state, k, 0, numel_of(buffer.shapes[k])); });
}

void refuse_group(Builder& builder, const ParamList& params, const ExpertNumbers& experts, const Error& why) {
  for (const Param& p : params) {
    builder.put_refused({state::kMaster, experts.global(p.name), DType::kF32, p.shape, "flat", {}},
                        why.message());
  }
  builder.problems.push_back(why);
}

// What the ranks of one buffer hold.
struct GroupParts {
  FlatBuffer buffer;
  GroupStates states;
};

GroupParts read_group(const Builder& builder, const ParamList& params, const std::vector<int64_t>& fillers,
                      const ExpertNumbers& experts, const RankFamily& family) {
  GroupParts out{lay_out(builder, params, fillers, experts, family), {}};
  FlatBuffer& buffer = out.buffer;
  check_paddings(buffer, family);
  if (family.any()->round_robin == false) check_places(params, buffer, family);
  out.states = read_group_states(
      family, [&](size_t rank, int64_t numel) { return buffer.fits(rank, numel); },
      cat(buffer.partition, " (", family.files.size(), " ranks, ", buffer.length,
          " elements in param_shapes)"));
  buffer.layout = cat(family.files.size(), " dp shard", family.files.size() == 1 ? "" : "s", ", flat");
  return out;
}

void add_family(Builder& builder, const Checkpoint& checkpoint, int64_t model_rank, const ParamList& params,
                const std::vector<int64_t>& fillers, const ExpertNumbers& experts, const RankFamily& family) {
  if (!family.any()) {
    for (const Param& p : params) {
      builder.put({state::kMaster, experts.global(p.name), DType::kF32, p.shape, "flat", {}},
                  [&] { return std::optional(family.names.front()); });
    }
    return;
  }
  try {
    const auto [buffer, states] = read_group(builder, params, fillers, experts, family);
    const std::string replica = cat("replica in pipeline stage ", model_rank / checkpoint.mesh.tp);
    for (const CutState& state : states.cut) {
      for (size_t k = 0; k < params.size(); ++k) add_cut(builder, buffer, family, state, k, replica);
    }
    for (const auto& [name, value] : states.numbers) {
      for (const std::string& param : buffer.names)
        builder.put_scalar(name, param, value, family.any()->file.name);
    }
  } catch (Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;
    refuse_group(builder, params, experts, e);
  }
}

void add_fused(Builder& builder, const ModelFile& model, const ParamList& params,
               const std::vector<int64_t>& fillers, const std::vector<RankFamily>& families) {
  try {
    add_fused_group(builder, model.fused, params, families, [&](const RankFamily& family) {
      auto parts = std::make_shared<GroupParts>(
          read_group(builder, params, fillers, ExpertNumbers(kNoExperts, 0), family));
      return FusedPart{parts->states, parts->buffer.layout,
                       [&builder, &family, parts](size_t state, size_t k, int64_t base, int64_t numel) {
                         return add_pieces(builder, parts->buffer, family, parts->states.cut[state], k, base,
                                           numel);
                       }};
    });
  } catch (Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;
    refuse_group(builder, params, ExpertNumbers(kNoExperts, 0), e);
  }
}

// Into how many expert ranks the group is cut; 1 for a group without experts.
int64_t expert_ranks_of(const Checkpoint& c, const OptimizerFile& reference, size_t group, bool has_experts) {
  const int64_t count =
      group < reference.partition_count.size() ? reference.partition_count[group] : c.mesh.dp;
  const bool marked = group < reference.param_groups.size() && reference.param_groups[group].moe;
  if (count == c.mesh.dp) return 1;
  if (!has_experts) {
    throw refused(marked ? "deepspeed.experts" : "deepspeed.sizes",
                  marked ? cat("group ", group, " holds experts, and nothing says which")
                         : cat("group ", group, ": expected ", c.mesh.dp, " partitions, found ", count))
        .in_file(reference.source.bytes()->name());
  }
  if (count < 1 || c.mesh.dp % count != 0) {
    throw refused("deepspeed.sizes", cat("group ", group, ": expected a number of partitions that divides ",
                                         c.mesh.dp, ", found ", count))
        .in_file(reference.source.bytes()->name());
  }
  return c.mesh.dp / count;
}

// Does the reference's param_slice_mappings list the parameters of its partition as param_shapes does?
bool follows_mappings(const OptimizerFile& reference, const ParamGroups& groups) {
  for (size_t g = 0; g < reference.mappings.size() && g < groups.size(); ++g) {
    size_t next = 0;
    for (const auto& fragment : reference.mappings[g]) {
      while (next < groups[g].size() && groups[g][next].name != fragment.name) ++next;
      // The list names neighbours, so none may be skipped after the first.
      if (next == groups[g].size()) return false;
      if (&fragment != &reference.mappings[g].front() && groups[g][next - 1].name != (&fragment - 1)->name)
        return false;
      ++next;
    }
  }
  return true;
}

}  // namespace

void add_zero12(Builder& builder, Checkpoint& checkpoint, int64_t model_rank) {
  const ModelFile* model = checkpoint.reference_model(model_rank);
  const OptimizerFile* reference = checkpoint.reference_optimizer(model_rank);
  if (!model || !model->param_shapes) return;
  if (!model->fused.empty() && checkpoint.mesh.tp > 1)
    throw refused("deepspeed.experts", "AutoEP with tensor parallel ranks: this version does not read it")
        .in_file(model->source.bytes()->name());
  const ParamGroups& groups = *model->param_shapes;
  if (reference && reference->groups.size() != groups.size()) {
    throw refused("deepspeed.sizes", cat("expected ", groups.size(), " groups as in param_shapes, found ",
                                         reference->groups.size()))
        .in_file(reference->source.bytes()->name());
  }
  LocalExperts local;
  for (const ParamList& params : groups)
    for (const Param& p : params) count_expert(local, p.name);
  for (size_t g = 0; g < groups.size(); ++g) {
    const bool is_fused = std::any_of(groups[g].begin(), groups[g].end(), [&](const Param& p) {
      return layer_of(model->fused, p.name) != nullptr;
    });
    const bool has_experts = is_fused || std::any_of(groups[g].begin(), groups[g].end(), [](const Param& p) {
                               return parse_expert(p.name).has_value();
                             });
    int64_t expert_ranks = 1;
    try {
      if (reference) expert_ranks = expert_ranks_of(checkpoint, *reference, g, has_experts);
    } catch (Error& e) {
      refuse_group(builder, groups[g], ExpertNumbers(local, 0), e);
      continue;
    }
    builder.catalog.mesh.ep = std::max(builder.catalog.mesh.ep, expert_ranks);
    static const std::vector<int64_t> kNone;
    const auto& fillers = reference && g < reference->alignment.size() ? reference->alignment[g] : kNone;
    std::vector<RankFamily> families;
    for (int64_t r = 0; r < expert_ranks; ++r)
      families.push_back(family_of(checkpoint, model_rank, g, expert_ranks, r, model->data_before_experts));
    if (is_fused) {
      add_fused(builder, *model, groups[g], fillers, families);
      continue;
    }
    for (int64_t r = 0; r < expert_ranks; ++r)
      add_family(builder, checkpoint, model_rank, groups[g], fillers, ExpertNumbers(local, r),
                 families[static_cast<size_t>(r)]);
  }
  const bool in_order =
      !reference || (reference->round_robin != true && follows_mappings(*reference, groups));
  if (!in_order && model_rank == 0) {
    builder.catalog.facts.emplace_back("round-robin gradients",
                                       "param_slice_mappings do not follow param_shapes, which are used");
  }
}

}  // namespace uckpt::deepspeed
