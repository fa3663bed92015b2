#include "lib/formats/deepspeed/fused_group.h"

#include "lib/base/checked.h"
#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

// The shapes over all expert ranks.
std::vector<Shape> wholes_of(const std::vector<FusedExperts>& layers, const ParamList& params,
                             int64_t ranks) {
  std::vector<Shape> out;
  for (const Param& p : params) {
    const FusedExperts* layer = layer_of(layers, p.name);
    if (!layer || p.shape.empty() || layer->experts % ranks != 0 || p.shape[0] != layer->experts / ranks ||
        !checked_mul(p.numel, ranks))
      throw refused("deepspeed.experts",
                    cat("expected a weight of ", ranks, " ranks' equal shares of a layer's experts, found ",
                        escape(p.name, 100), " of shape ", shape_text(p.shape)));
    out.push_back(p.shape);
    out.back()[0] = layer->experts;
  }
  return out;
}

void check_states(const std::vector<FusedPart>& parts, const std::vector<RankFamily>& families) {
  const std::vector<CutState>& first = parts[0].states.cut;
  for (size_t r = 1; r < parts.size(); ++r) {
    const std::vector<CutState>& own = parts[r].states.cut;
    bool is_same = own.size() == first.size();
    for (size_t s = 0; is_same && s < first.size(); ++s)
      is_same = own[s].name == first[s].name && own[s].dtype == first[s].dtype;
    if (!is_same)
      throw refused("deepspeed.mixed_runs", "expected the states that other expert ranks have")
          .in_file(families[r].any()->source.bytes()->name());
  }
}

}  // namespace

void add_fused_group(Builder& builder, const std::vector<FusedExperts>& layers, const ParamList& params,
                     const std::vector<RankFamily>& families,
                     const std::function<FusedPart(const RankFamily&)>& read) {
  const std::vector<Shape> wholes = wholes_of(layers, params, static_cast<int64_t>(families.size()));
  for (const RankFamily& f : families) {
    if (f.any()) continue;
    for (size_t k = 0; k < params.size(); ++k)
      builder.put({state::kMaster, params[k].name, DType::kF32, wholes[k], "flat", {}},
                  [&] { return std::optional(f.names.front()); });
    return;
  }
  std::vector<FusedPart> parts;
  for (const RankFamily& f : families) parts.push_back(read(f));
  check_states(parts, families);
  const std::string layout = cat(families.size(), " expert ranks × ", parts[0].layout);
  for (size_t s = 0; s < parts[0].states.cut.size(); ++s) {
    const CutState& state = parts[0].states.cut[s];
    for (size_t k = 0; k < params.size(); ++k) {
      builder.put({state.name, params[k].name, state.dtype, wholes[k], layout, {}},
                  [&]() -> std::optional<std::string> {
                    for (size_t r = 0; r < parts.size(); ++r)
                      if (auto missing = parts[r].add_pieces(s, k, static_cast<int64_t>(r) * params[k].numel,
                                                             numel_of(wholes[k])))
                        return missing;
                    return std::nullopt;
                  });
    }
  }
  for (size_t r = 0; r < families.size(); ++r)
    for (const auto& [name, value] : parts[r].states.numbers)
      for (const Param& p : params) builder.put_scalar(name, p.name, value, families[r].any()->file.name);
}

}  // namespace uckpt::deepspeed
