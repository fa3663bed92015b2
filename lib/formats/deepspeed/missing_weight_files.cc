// Which files of layers and experts must be there for the masters, and are not.
#include <algorithm>
#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/weights.h"
#include "lib/formats/zero_padded.h"

namespace uckpt::deepspeed {

namespace {

// The number of the first layer of which no file is here.
std::string first_gap(const std::vector<RankFile>& layers) {
  int64_t gap = 0;
  while (std::ranges::any_of(layers, [&](const RankFile& f) { return f.layer == gap; })) ++gap;
  return cat(gap);
}

std::string expert_file(const Builder& builder, std::string_view layer, int64_t expert) {
  return cat("layer_", layer, "_expert_", expert, "_mp_rank_", zero_padded(builder.tp_rank, 2),
             "_model_states.pt");
}

// By the number of experts of each layer that the model file states.
std::set<std::string> missing_experts(const Builder& builder, const Checkpoint& checkpoint) {
  std::set<std::string> missing;
  const ModelFile* model = nullptr;
  for (const ModelFile& f : checkpoint.models)
    if (!model && !f.damage && f.experts) model = &f;
  const auto& files = checkpoint.folder.experts;
  const bool unnumbered = std::ranges::any_of(files, [](const RankFile& f) { return f.layer < 0; });
  if (!model || unnumbered || checkpoint.stage == 3) return missing;
  std::set<std::pair<int64_t, int64_t>> here;  // layer and expert
  for (const RankFile& f : files)
    if (f.model == builder.tp_rank) here.emplace(f.layer, f.expert);
  for (size_t layer = 0; layer < model->experts->size(); ++layer) {
    for (int64_t e = 0; e < std::min((*model->experts)[layer], kMostExperts); ++e) {
      if (here.contains({static_cast<int64_t>(layer), e})) continue;
      missing.insert(expert_file(builder, cat(layer), e));
    }
  }
  return missing;
}

}  // namespace

std::vector<std::string> missing_weight_files(const Builder& builder, const Checkpoint& checkpoint,
                                              const Weights& weights) {
  std::unordered_set<std::string_view> here;
  std::map<std::string, int64_t, std::less<>> moe_layers;  // name up to the expert's number -> L
  for (const Weight& w : weights.all) {
    here.insert(w.name);
    const auto at = parse_expert(w.name);
    if (at && w.file->role == Role::kExpert) moe_layers.emplace(at->layer(w.name), w.file->layer);
  }
  std::set<std::string> missing = missing_experts(builder, checkpoint);
  const std::string rank = zero_padded(builder.tp_rank, 2);
  const bool pipeline = !checkpoint.folder.layers.empty();
  const bool plain_tail =
      pipeline && checkpoint.folder.layers.front().name.find("-model_0") == std::string::npos;
  const auto layer_name = [&](const std::string& number) {
    return cat("layer_", number.size() == 1 ? "0" : "", number, plain_tail ? "" : "-model_" + rank,
               "-model_states.pt");
  };
  // A layer whose tied name is not known has the weights that seem to be missing.
  const bool any_unplaced = std::ranges::any_of(weights.all, [&](const Weight& w) {
    return w.file->role == Role::kLayer && !builder.find(state::kMaster, w.name) &&
           !weights.is_buffer(w.name);
  });
  for (const Tensor& t : builder.catalog.tensors) {
    if (t.state != state::kMaster || here.contains(t.name)) continue;
    if (const auto at = parse_expert(t.name); at && !checkpoint.folder.experts.empty()) {
      const auto layer = moe_layers.find(at->layer(t.name));
      const std::string l = layer == moe_layers.end() ? "?" : cat(layer->second);
      missing.insert(expert_file(builder, l, at->number));
      continue;
    }
    if (pipeline && t.name.starts_with(kTiedModules) && !any_unplaced) {
      missing.insert(layer_name(first_gap(checkpoint.folder.layers)));
      continue;
    }
    const size_t dot = t.name.find('.');
    const bool numbered = dot != t.name.npos && dot > 0 && dot < 10 &&
                          std::all_of(t.name.begin(), t.name.begin() + static_cast<ptrdiff_t>(dot),
                                      [](char c) { return c >= '0' && c <= '9'; });
    if (!pipeline || !numbered) continue;
    missing.insert(layer_name(t.name.substr(0, dot)));
  }
  return {missing.begin(), missing.end()};
}

}  // namespace uckpt::deepspeed
