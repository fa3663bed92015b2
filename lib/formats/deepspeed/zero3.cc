#include "lib/formats/deepspeed/zero3.h"

#include <algorithm>
#include <memory>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/deepspeed/fused_group.h"
#include "lib/formats/deepspeed/rank_states.h"

namespace uckpt::deepspeed {

namespace {

// The parameters of one sub-group in every rank's flat tensor: k = ceil(n / ranks) elements each.
struct SubGroup {
  std::vector<Shape> shapes;     // without vocabulary padding
  std::vector<int64_t> offsets;  // in the flat tensor
  std::vector<int64_t> pieces;   // k
  int64_t length = 0;
};

SubGroup lay_out(const Builder& builder, const ParamList& params, int64_t ranks) {
  SubGroup out;
  for (const Param& p : params) {
    out.shapes.push_back(builder.vocabulary.logical(p.name, p.shape));
    out.offsets.push_back(out.length);
    out.pieces.push_back(ceil_div(p.numel, ranks));
    const auto sum = checked_add(out.length, out.pieces.back());
    if (!sum) throw refused("deepspeed.sizes", "param_shapes add up to more than 2^63 elements");
    out.length = *sum;
  }
  return out;
}

// The pieces of one parameter: rank r holds the elements [r k, (r+1) k) at `offset` of its place.
// They are those from `base` on of a tensor of `numel` elements.
std::optional<std::string> add_pieces(Builder& builder, const RankFamily& family, const CutState& state,
                                      int64_t logical, int64_t k, int64_t offset, int64_t base,
                                      int64_t numel) {
  for (size_t r = 0; k > 0 && r < state.places.size(); ++r) {
    const int64_t start = static_cast<int64_t>(r) * k;
    if (start >= logical) break;  // this rank and the later ones hold filler only
    if (!state.places[r]) return family.names[r];
    builder.flat(family.files[r]->source, *state.places[r], numel, base + start, std::min(k, logical - start),
                 offset);
  }
  return std::nullopt;
}

std::string layout_of(size_t ranks) {
  return cat(ranks, " dp shard", ranks == 1 ? "" : "s", ", each parameter by itself");
}

GroupStates read_states(const RankFamily& family, const SubGroup& group, const ParamList& params) {
  return read_group_states(
      family, [&](size_t, int64_t numel) { return numel == group.length; },
      cat(group.length, " (one piece of each of ", params.size(), " parameters)"));
}

void add_sub_group(Builder& builder, const RankFamily& family, const ParamList& params) {
  const SubGroup group = lay_out(builder, params, static_cast<int64_t>(family.files.size()));
  const GroupStates states = read_states(family, group, params);
  const std::string layout = layout_of(family.files.size());
  for (const CutState& state : states.cut) {
    for (size_t i = 0; i < params.size(); ++i) {
      builder.put(
          {state.name, params[i].name, state.dtype, group.shapes[i], layout, "replica in another model rank"},
          [&] {
            const int64_t numel = numel_of(group.shapes[i]);
            return add_pieces(builder, family, state, numel, group.pieces[i], group.offsets[i], 0, numel);
          });
    }
  }
  for (const auto& [name, value] : states.numbers) {
    for (const Param& p : params) builder.put_scalar(name, p.name, value, family.any()->file.name);
  }
}

// AutoEP's: each expert rank's share of a weight is cut over the ranks that have it.
void add_fused(Builder& builder, Checkpoint& checkpoint, const ModelFile& model, int64_t model_rank, size_t g,
               const ParamList& params) {
  const FusedExperts* layer = layer_of(model.fused, params.front().name);
  const Shape& shape = params.front().shape;
  const int64_t rows = shape.empty() ? 0 : shape[0];
  const int64_t ranks = layer && rows > 0 ? layer->experts / rows : 0;
  if (ranks < 1 || checkpoint.mesh.dp % ranks != 0)
    throw refused("deepspeed.experts",
                  cat("expected a share of a layer's experts, found ", escape(params.front().name, 100),
                      " of shape ", shape_text(shape)));
  builder.catalog.mesh.ep = std::max(builder.catalog.mesh.ep, ranks);
  std::vector<RankFamily> families;
  for (int64_t r = 0; r < ranks; ++r)
    families.push_back(family_of(checkpoint, model_rank, g, ranks, r, model.data_before_experts));
  add_fused_group(builder, model.fused, params, families, [&](const RankFamily& family) {
    const SubGroup group = lay_out(builder, params, static_cast<int64_t>(family.files.size()));
    auto states = std::make_shared<GroupStates>(read_states(family, group, params));
    return FusedPart{*states, layout_of(family.files.size()),
                     [&builder, &family, group, states](size_t s, size_t k, int64_t base, int64_t numel) {
                       return add_pieces(builder, family, states->cut[s], numel_of(group.shapes[k]),
                                         group.pieces[k], group.offsets[k], base, numel);
                     }};
  });
}

// Room for all pieces at once: with many ranks they are millions.
void reserve(Builder& builder, const Checkpoint& checkpoint, const ParamGroups& groups,
             const OptimizerFile& file) {
  const auto ranks = static_cast<int64_t>(checkpoint.optimizers.size());
  size_t count = 0;
  for (size_t g = 0; g < groups.size() && g < file.groups.size(); ++g) {
    const size_t states = 1 + file.groups[g].states.size();
    for (const Param& p : groups[g]) {
      count += states * static_cast<size_t>(std::min(p.numel, ranks));
    }
  }
  builder.catalog.pieces.reserve(builder.catalog.pieces.size() + count);
  builder.catalog.axes.reserve(builder.catalog.axes.size() + count);
}

}  // namespace

void add_zero3(Builder& builder, Checkpoint& checkpoint, int64_t model_rank) {
  const ModelFile* model = checkpoint.reference_model(model_rank);
  const OptimizerFile* reference = checkpoint.reference_optimizer(model_rank);
  if (!model) return;
  if (!model->param_shapes) {
    throw refused("deepspeed.unnamed_states", "there is no param_shapes: the flat weights have no names")
        .in_file(model->source.bytes()->name());
  }
  const ParamGroups& groups = *model->param_shapes;
  if (reference && reference->has_partition_groups && (model->fused.empty() || checkpoint.mesh.tp > 1)) {
    throw refused("deepspeed.experts",
                  model->fused.empty() ? "sub-groups have ranks of their own, and nothing says which"
                                       : "AutoEP with tensor parallel ranks: this version does not read it")
        .in_file(reference->source.bytes()->name());
  }
  if (reference && reference->groups.size() != groups.size()) {
    throw refused("deepspeed.sizes", cat("expected ", groups.size(), " sub-groups as in param_shapes, found ",
                                         reference->groups.size()))
        .in_file(reference->source.bytes()->name());
  }
  if (reference) reserve(builder, checkpoint, groups, *reference);
  RankFamily family = family_of(checkpoint, model_rank, 0, 1, 0, false);
  for (size_t g = 0; g < groups.size(); ++g) {
    family.group = g;
    const bool is_fused = std::ranges::any_of(
        groups[g], [&](const Param& p) { return layer_of(model->fused, p.name) != nullptr; });
    try {
      is_fused ? add_fused(builder, checkpoint, *model, model_rank, g, groups[g])
               : add_sub_group(builder, family, groups[g]);
    } catch (Error& e) {
      if (e.kind() != ErrorKind::kRefused) throw;
      for (const Param& p : groups[g]) {
        builder.put_refused({state::kMaster, p.name, DType::kF32, p.shape, "flat", {}}, e.message());
      }
      builder.problems.push_back(e);
    }
  }
}

void add_frozen3(Builder& builder, Checkpoint& checkpoint, int64_t model_rank) {
  const ModelFile* model = checkpoint.reference_model(model_rank);
  if (!model || !model->frozen_shapes || model->fragments.size() != model->frozen_shapes->size()) return;
  const std::string layout =
      cat(checkpoint.mesh.dp, " dp shard", checkpoint.mesh.dp == 1 ? "" : "s", ", each parameter by itself");
  const std::string tail = cat("_mp_rank_", model_rank < 10 ? "0" : "", model_rank, "_model_states.pt");
  std::vector<ModelFile*> files;
  for (int64_t d = 0; d < checkpoint.mesh.dp; ++d) files.push_back(checkpoint.model(model_rank, d));
  for (size_t i = 0; i < model->frozen_shapes->size(); ++i) {
    const Param& p = (*model->frozen_shapes)[i];
    const int64_t k = ceil_div(p.numel, checkpoint.mesh.dp);
    const DType dtype = model->fragments[i].dtype;
    const Shape shape = builder.vocabulary.logical(p.name, p.shape);
    const int64_t logical = numel_of(shape);
    builder.put({state::kParam, p.name, dtype, shape, layout, "replica in another model rank"},
                [&]() -> std::optional<std::string> {
                  for (size_t r = 0; k > 0 && r < files.size(); ++r) {
                    const int64_t start = static_cast<int64_t>(r) * k;
                    if (start >= logical) break;
                    if (!files[r] || i >= files[r]->fragments.size()) return cat("zero_pp_rank_", r, tail);
                    const Place& place = files[r]->fragments[i];
                    if (place.numel != k || place.dtype != dtype) {
                      throw refused("deepspeed.sizes", cat("expected a frozen fragment of ", k,
                                                           " elements, found ", place.numel))
                          .in_file(files[r]->source.bytes()->name())
                          .in_tensor(p.name);
                    }
                    builder.flat(files[r]->source, place, logical, start, std::min(k, logical - start));
                  }
                  return std::nullopt;
                });
  }
}

}  // namespace uckpt::deepspeed
