#include <algorithm>
#include <map>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/zero12.h"

namespace uckpt::deepspeed {

namespace {

Error unnamed(const OptimizerFile& file, std::string why) {
  return refused(
             "deepspeed.unnamed_states",
             cat("the model file has no param_shapes, and param_slice_mappings do not stand in for them: ",
                 why))
      .in_file(file.source.bytes()->name());
}

// One group's parameters with their sizes: the fragments of all ranks in order, without a gap.
ParamList join_fragments(const std::vector<OptimizerFile*>& ranks, size_t group) {
  ParamList params;
  std::set<std::string_view> seen;
  int64_t partition = 0, at = 0;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const OptimizerFile& file = *ranks[r];
    if (group >= file.groups.size() || group >= file.mappings.size() || !file.groups[group].master) {
      throw unnamed(file, cat("group ", group, " is not listed"));
    }
    if (r == 0) partition = file.groups[group].master->numel;
    for (const auto& f : file.mappings[group]) {
      const auto begin = checked_add(checked_mul(static_cast<int64_t>(r), partition).value_or(-1), f.start);
      if (f.numel < 0 || begin != at)
        throw unnamed(file, cat("group ", group, " is not listed back to back"));
      const bool continues = !params.empty() && params.back().name == f.name;
      if (!continues) {
        if (!seen.insert(f.name).second) throw unnamed(file, cat(escape(f.name, 100), " is listed twice"));
        params.push_back({f.name, {}, 0});
      }
      const auto numel = checked_add(params.back().numel, f.numel), end = checked_add(at, f.numel);
      if (!numel || !end) throw unnamed(file, "sizes beyond 2^63");
      params.back().numel = *numel;
      at = *end;
    }
  }
  return params;
}

// Shapes that the weights of a model rank's files may have, by full name; tied layers by the name in the
// file.
struct KnownShapes {
  std::map<std::string, Shape, std::less<>> whole;
  std::map<std::string, std::set<Shape>, std::less<>> in_layers;

  KnownShapes(const Checkpoint& c, const ModelFile& model) {
    for (const NamedTensor& t : model.module) whole.emplace(t.name, t.info.shape);
    for (const WeightFile& f : c.layers) {
      for (const NamedTensor& t : f.tensors) {
        whole.emplace(cat(f.file.layer, ".", t.name), t.info.shape);
        in_layers[t.name].insert(t.info.shape);
      }
    }
  }

  std::optional<Shape> find(const Param& p) const {
    const auto named = whole.find(p.name);
    if (named != whole.end()) return named->second;
    const size_t dot = p.name.starts_with(kTiedModules) ? p.name.find('.', kTiedModules.size()) : p.name.npos;
    if (dot == p.name.npos) return std::nullopt;
    const auto shapes = in_layers.find(std::string_view(p.name).substr(dot + 1));
    std::optional<Shape> only;
    for (const Shape& s : shapes == in_layers.end() ? std::set<Shape>() : shapes->second) {
      if (checked_product(s) != p.numel) continue;
      if (only) return std::nullopt;
      only = s;
    }
    return only;
  }
};

}  // namespace

void name_partitions(Checkpoint& checkpoint, int64_t model_rank) {
  ModelFile* model = checkpoint.reference_model(model_rank);
  const OptimizerFile* reference = checkpoint.reference_optimizer(model_rank);
  if (!model || model->param_shapes || !reference) return;
  if (reference->zero_stage) throw unnamed(*reference, "only BF16_Optimizer lists them in the right order");
  std::vector<OptimizerFile*> ranks;
  for (int64_t d = 0; d < checkpoint.mesh.dp; ++d) {
    ranks.push_back(checkpoint.optimizer(model_rank, d));
    if (!ranks.back())
      throw unnamed(*reference, cat(checkpoint.optimizer_name(model_rank, d), " is not here"));
  }
  const KnownShapes shapes(checkpoint, *model);
  ParamGroups groups;
  for (size_t g = 0; g < reference->groups.size(); ++g) {
    groups.push_back(join_fragments(ranks, g));
    for (Param& p : groups.back()) {
      const auto shape = shapes.find(p);
      if (!shape || checked_product(*shape) != p.numel) {
        throw unnamed(*reference, cat("no layer file tells the shape of ", escape(p.name, 100)));
      }
      p.shape = *shape;
    }
  }
  model->param_shapes = std::move(groups);
}

}  // namespace uckpt::deepspeed
