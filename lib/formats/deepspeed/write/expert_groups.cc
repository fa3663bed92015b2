#include "lib/formats/deepspeed/write/expert_groups.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "lib/base/text.h"
#include "lib/pickle/json.h"

namespace uckpt::deepspeed {

using pickle::Value;

std::string options_text(const Value& options, std::span<const std::string_view> except) {
  std::string out;
  for (size_t i = 0; options && options.is_dict() && i < options.size(); ++i) {
    const auto [key, value] = options.entry(i);
    if (key.text() && std::find(except.begin(), except.end(), *key.text()) != except.end()) continue;
    out += cat(pickle::to_json(key, {}), "=", pickle::to_json(value, {}), ";");
  }
  return out;
}

const MoeLayer* layer_of(const std::vector<MoeLayer>& layers, const std::string& name) {
  const auto at = parse_expert(name);
  if (!at) return nullptr;
  for (const MoeLayer& l : layers)
    if (l.prefix == at->layer(name)) return &l;
  return nullptr;
}

bool has_experts(const ParamGroup& group) {
  return std::any_of(group.names.begin(), group.names.end(),
                     [](const std::string& name) { return parse_expert(name).has_value(); });
}

bool same_expert_options(const ParamGroup& a, const ParamGroup& b) {
  constexpr std::string_view kOfPart[] = {"params", "param_names", "name"};
  return options_text(a.options, kOfPart) == options_text(b.options, kOfPart);
}

namespace {

class ExpertSpreader {
 public:
  ExpertSpreader(const Catalog& catalog, const std::vector<MoeLayer>& layers, int64_t ep,
                 const std::function<int64_t(const std::string&)>& numel_of)
      : catalog_(catalog), layers_(layers), ep_(ep), numel_of_(numel_of) {}

  std::vector<ParamGroup> spread(const std::vector<ParamGroup>& groups) {
    std::vector<ParamGroup> out;
    std::vector<const ParamGroup*> pieces;
    for (const ParamGroup& g : groups) {
      if (has_experts(g)) {
        check_all_experts(g);
        pieces.push_back(&g);
      } else {
        out.push_back(g);
      }
    }
    find_most(pieces);
    for (size_t i = 0; i < pieces.size();) {
      ParamGroup whole = *pieces[i];
      for (++i; i < pieces.size() && is_continued(*pieces[i - 1], *pieces[i]); ++i)
        whole.names.insert(whole.names.end(), pieces[i]->names.begin(), pieces[i]->names.end());
      sort_as_in_module(whole.names);
      for (ParamGroup& part : split(whole)) out.push_back(std::move(part));
    }
    return out;
  }

 private:
  void check_all_experts(const ParamGroup& group) const {
    for (const std::string& name : group.names)
      if (!layer_of(layers_, name))
        throw refused("deepspeed.experts", "its optimizer group has experts too, which DeepSpeed keeps apart")
            .in_file(catalog_.path)
            .in_tensor(name);
  }

  void sort_as_in_module(std::vector<std::string>& names) const {
    std::vector<std::tuple<int64_t, int64_t, size_t>> places;  // layer, expert, as it was
    for (const std::string& name : names)
      places.emplace_back(layer_of(layers_, name)->number, parse_expert(name)->number, places.size());
    std::sort(places.begin(), places.end());
    std::vector<std::string> sorted;
    for (const auto& [layer, expert, i] : places) sorted.push_back(std::move(names[i]));
    names = std::move(sorted);
  }

  // The number that an expert has on its rank, and whether that is the first rank.
  static std::pair<int64_t, bool> local_of(const MoeLayer& layer, const std::string& name, int64_t ranks) {
    const int64_t number = parse_expert(name)->number, local = std::max<int64_t>(1, layer.experts / ranks);
    return {number % local, number < local};
  }

  // What the first of a group's own ranks has of it, in elements.
  int64_t local_numel(const ParamGroup& group) const {
    int64_t sum = 0;
    for (const std::string& name : group.names)
      if (local_of(*layer_of(layers_, name), name, group.ep).second) sum += numel_of_(name);
    return sum;
  }

  // The size at which groups are full is an argument of the program's: where it is not the default one, the
  // groups show what it can be.
  void find_most(const std::vector<const ParamGroup*>& pieces) {
    int64_t low = 0, high = std::numeric_limits<int64_t>::max();
    for (size_t i = 0; i < pieces.size(); ++i) {
      low = std::max(low, local_numel(*pieces[i]));
      if (i > 0 && pieces[i]->ep == pieces[i - 1]->ep && same_expert_options(*pieces[i], *pieces[i - 1]))
        high = std::min(high, local_numel(*pieces[i - 1]) + numel_of_(pieces[i]->names.front()) - 1);
    }
    if (low <= high) most_ = std::clamp(most_, low, high);
  }

  // Is the next group the rest of one that DeepSpeed split: for other ranks, or because it was full?
  bool is_continued(const ParamGroup& group, const ParamGroup& next) const {
    return same_expert_options(group, next) &&
           (group.ep != next.ep || local_numel(group) + numel_of_(next.names.front()) > most_);
  }

  std::vector<ParamGroup> split(const ParamGroup& group) const {
    using Local = std::tuple<int64_t, int64_t, std::string>;  // layer, expert, what of it
    std::map<int64_t, std::vector<ParamGroup>> by_ranks;
    std::map<int64_t, int64_t> filled;  // elements in the last of them
    std::map<Local, size_t> part_of;
    for (const std::string& name : group.names) {
      const MoeLayer& layer = *layer_of(layers_, name);
      const int64_t ranks = std::min(ep_, layer.experts);
      if (layer.experts % ranks != 0)
        throw trouble("usage.layout", cat("--layout ep: ", ranks, " ranks cannot share the ", layer.experts,
                                          " experts of ", escape(layer.prefix, 100), "* alike"));
      const auto [number, is_first] = local_of(layer, name, ranks);
      auto& parts = by_ranks[ranks];
      const Local local(layer.number, number, name.substr(parse_expert(name)->number_end));
      if (is_first) {  // what the first rank has decides for all
        const int64_t numel = numel_of_(name);
        if (parts.empty() || filled[ranks] + numel > most_) {
          parts.push_back({{}, group.options, ranks});
          filled[ranks] = 0;
        }
        filled[ranks] += numel;
        part_of.emplace(local, parts.size() - 1);
      }
      parts[part_of.at(local)].names.push_back(name);
    }
    std::vector<ParamGroup> out;
    for (auto& [ranks, parts] : by_ranks)
      for (ParamGroup& part : parts) out.push_back(std::move(part));
    return out;
  }

  const Catalog& catalog_;
  const std::vector<MoeLayer>& layers_;
  int64_t ep_, most_ = kMostInExpertGroup;
  const std::function<int64_t(const std::string&)>& numel_of_;
};

}  // namespace

std::vector<ParamGroup> spread_experts(const Catalog& catalog, const std::vector<ParamGroup>& groups,
                                       const std::vector<MoeLayer>& layers, int64_t ep,
                                       const std::function<int64_t(const std::string&)>& numel_of) {
  return layers.empty() ? groups : ExpertSpreader(catalog, layers, ep, numel_of).spread(groups);
}

}  // namespace uckpt::deepspeed
