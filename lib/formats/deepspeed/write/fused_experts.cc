// What a target says of AutoEP's layers, and how their weights are grouped for the optimizer.
#include <algorithm>
#include <limits>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

class FusedSpreader {
 public:
  // `before`: the ranks that share the experts in `groups`.
  FusedSpreader(const std::vector<FusedExperts>& layers, int64_t before, int64_t ep,
                const std::function<int64_t(const std::string&)>& numel_of)
      : layers_(layers), before_(before), ep_(ep), numel_of_(numel_of) {}

  std::vector<ParamGroup> spread(const std::vector<ParamGroup>& groups) {
    std::vector<ParamGroup> out, pieces;
    for (const ParamGroup& g : groups) {
      const bool is_fused = std::ranges::any_of(
          g.names, [&](const std::string& name) { return layer_of(layers_, name) != nullptr; });
      (is_fused ? pieces : out).push_back(g);
    }
    find_most(pieces);
    for (size_t i = 0; i < pieces.size();) {
      ParamGroup whole = pieces[i];
      for (++i; i < pieces.size() && is_continued(pieces[i - 1], pieces[i]); ++i)
        whole.names.insert(whole.names.end(), pieces[i].names.begin(), pieces[i].names.end());
      split(whole, out);
    }
    return out;
  }

 private:
  int64_t numel(const ParamGroup& group) const {
    int64_t sum = 0;
    for (const std::string& name : group.names) sum += numel_of_(name) / before_;
    return sum;
  }
  int64_t with_first(const ParamGroup& group, const ParamGroup& next) const {
    return numel(group) + numel_of_(next.names.front()) / before_;
  }

  // As ExpertSpreader does: what the groups show of the size at which the program has them full.
  void find_most(const std::vector<ParamGroup>& pieces) {
    int64_t low = 0, high = std::numeric_limits<int64_t>::max();
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].names.size() > 1) low = std::max(low, numel(pieces[i]));
      if (i > 0 && same_expert_options(pieces[i - 1], pieces[i]))
        high = std::min(high, with_first(pieces[i - 1], pieces[i]) - 1);
    }
    if (low <= high) most_ = std::clamp(most_, low, high);
  }

  bool is_continued(const ParamGroup& group, const ParamGroup& next) const {
    return same_expert_options(group, next) && with_first(group, next) > most_;
  }

  void split(const ParamGroup& whole, std::vector<ParamGroup>& out) const {
    int64_t filled = 0;
    for (const std::string& name : whole.names) {
      const int64_t own = numel_of_(name) / ep_;
      if (&name == &whole.names.front() || filled + own > most_) {
        out.push_back({{}, whole.options, ep_});
        filled = 0;
      }
      filled += own;
      out.back().names.push_back(name);
    }
  }

  const std::vector<FusedExperts>& layers_;
  int64_t before_, ep_, most_ = kMostInExpertGroup;
  const std::function<int64_t(const std::string&)>& numel_of_;
};

void write_placement(OutputPickle& file, int64_t experts, int64_t ep) {
  pickle::Pickler& out = file.out();
  out.begin_dict();
  file.entry("version", 1);
  file.entry("num_experts", experts);
  file.entry("ep_size", ep);
  file.key("ranks");
  out.begin_list();
  for (int64_t r = 0; r < ep; ++r) {
    out.begin_dict();
    file.entry("rank", r);
    file.key("experts");
    out.begin_list();
    for (int64_t e = r * experts / ep; e < (r + 1) * experts / ep; ++e) out.integer(e);
    out.end_list();
    out.end_dict();
  }
  out.end_list();
  out.end_dict();
}

// Each rank has a run of a weight's rows.
void write_map(OutputPickle& file, const Shape& whole, int64_t ep) {
  Shape share = whole, strides(whole.size(), 1);
  share[0] /= ep;
  for (size_t i = whole.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * whole[i + 1];
  pickle::Pickler& out = file.out();
  out.begin_dict();
  file.key("logical_shape"), file.numbers(whole);
  file.key("ranks");
  out.begin_dict();
  for (int64_t r = 0; r < ep; ++r) {
    out.integer(r);
    out.begin_dict();
    file.key("shard_shape"), file.numbers(share);
    file.key("pieces");
    out.begin_list();
    out.begin_dict();
    file.key("shape"), file.numbers(share);
    file.place("source", r * share[0] * strides[0], strides);
    file.place("dest", 0, strides);
    file.key("locations"), file.numbers({r});
    out.end_dict();
    out.end_list();
    out.end_dict();
  }
  out.end_dict();
  out.end_dict();
}

void write_maps(OutputPickle& file, const TargetCheckpoint& target, const Value& maps) {
  pickle::Pickler& out = file.out();
  out.begin_dict();
  file.entry("version", 1);
  file.key("params");
  out.begin_dict();
  const Value params = maps.get("params");
  for (size_t i = 0; params && params.is_dict() && i < params.size(); ++i) {
    const std::string name(params.entry(i).first.text().value_or(""));
    if (!target.parameters.has(name)) continue;
    out.text(name);
    write_map(file, target.parameters.shape(target.parameters.at(name)), target.ep);
  }
  out.end_dict();
  out.end_dict();
}

// One layer, as the first rank sees it.
void write_layer(OutputPickle& file, const TargetCheckpoint& target, const Value& layer) {
  const int64_t experts = layer.get("num_experts").integer().value_or(0), local = experts / target.ep;
  const bool is_spread_anew = layer.get("ep_size").integer() != target.ep;
  const std::pair<std::string_view, int64_t> numbers[] = {
      {"ep_size", target.ep},
      {"num_local_experts", local},
      {"ep_rank", 0},
      {"expert_data_parallel_rank", 0},
      {"expert_data_parallel_world_size", target.dp / target.ep},
      {"global_expert_start", 0},
      {"global_expert_end", local}};
  pickle::Pickler& out = file.out();
  out.begin_dict_like(layer);
  for (size_t i = 0; i < layer.size(); ++i) {
    const auto [key, value] = layer.entry(i);
    const std::string_view text = key.text().value_or("");
    const auto number = std::ranges::find(numbers, text, &std::pair<std::string_view, int64_t>::first);
    out.copy(key);
    if (number != std::end(numbers)) {
      out.integer(number->second);
    } else if (text == "ep_group_name") {
      out.text(cat("ep_size_", target.ep));
    } else if (text == "affine_maps" && is_spread_anew) {
      write_maps(file, target, value);
    } else if (text == "expert_placement" && is_spread_anew) {
      write_placement(file, experts, target.ep);
    } else {
      out.copy(value);
    }
  }
  out.end_dict();
}

}  // namespace

std::vector<ParamGroup> spread_fused(const std::vector<ParamGroup>& groups,
                                     const std::vector<FusedExperts>& layers, int64_t before, int64_t ep,
                                     const std::function<int64_t(const std::string&)>& numel_of) {
  return layers.empty() ? groups : FusedSpreader(layers, before, ep, numel_of).spread(groups);
}

void write_fused_layers(OutputPickle& file, const TargetCheckpoint& target, const Value& list) {
  file.out().begin_list();
  for (size_t i = 0; i < list.size(); ++i) write_layer(file, target, list.at(i));
  file.out().end_list();
}

}  // namespace uckpt::deepspeed
