#include "lib/formats/deepspeed/write/model_parts.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;
using NameSet = std::unordered_set<std::string>;

constexpr std::string_view kTied = "tied_modules.";

// The one tied module that has all names of a layer's file.
std::string tied_prefix(const Catalog& catalog, const std::vector<std::string>& keys, const NameSet& known,
                        const std::set<std::string>& tied, int64_t number) {
  std::vector<std::string> fitting;
  for (const std::string& prefix : tied)
    if (std::all_of(keys.begin(), keys.end(),
                    [&](const std::string& k) { return known.contains(prefix + k); }))
      fitting.push_back(prefix);
  if (fitting.size() == 1) return fitting[0];
  throw other_names(catalog, cat("layer ", number, " of the pipeline has ", escape(keys.front(), 100),
                                 fitting.empty() ? ", which is not among the weights to be written"
                                                 : ", which several tied modules have"));
}

}  // namespace

Error other_names(const Catalog& catalog, std::string what) {
  return refused("deepspeed.groups", std::move(what))
      .in_file(catalog.path)
      .hint("parameters can be neither dropped nor renamed on the way to a DeepSpeed checkpoint");
}

std::vector<std::string> keys_of(const Value& dict) {
  std::vector<std::string> out;
  if (!dict || !dict.is_dict()) return out;
  for (size_t i = 0; i < dict.size(); ++i)
    if (const auto text = dict.entry(i).first.text()) out.emplace_back(*text);
  return out;
}

std::vector<PipelineLayer> pipeline_layers(const Catalog& catalog, const SourceObjects& source,
                                           const std::vector<std::string>& names) {
  std::vector<PipelineLayer> out;
  if (source.layers().empty()) return out;
  const NameSet known(names.begin(), names.end());
  std::set<std::string> tied;  // "tied_modules.embed."
  for (const std::string& name : names) {
    if (!name.starts_with(kTied)) continue;
    if (const size_t dot = name.find('.', kTied.size()); dot != name.npos)
      tied.insert(name.substr(0, dot + 1));
  }
  NameSet in_files;
  for (const auto& [number, file] : source.layers()) {
    PipelineLayer layer{number, cat(number, "."), keys_of(file), file};
    const bool is_own = layer.names.empty() ||
                        std::any_of(layer.names.begin(), layer.names.end(), [&](const std::string& key) {
                          return known.contains(layer.prefix + key);
                        });
    if (!is_own) layer.prefix = tied_prefix(catalog, layer.names, known, tied, number);
    for (std::string& name : layer.names) {
      name = layer.prefix + name;
      if (!known.contains(name))
        throw other_names(catalog, cat("layer ", number, " of the pipeline has ", escape(name, 100),
                                       ", which is not among the weights to be written"));
      in_files.insert(name);
    }
    out.push_back(std::move(layer));
  }
  for (const std::string& name : names)
    if (!in_files.contains(name))
      throw other_names(catalog, cat("no layer of the pipeline has ", escape(name, 100)));
  return out;
}

namespace {

// Where each layer's number comes from: the source's files, else the order in which the module has the
// layers, whose gates stand beside the experts.
void number_layers(std::vector<MoeLayer>& layers, const SourceObjects& source) {
  std::map<std::string, std::pair<int64_t, Value>> stated;  // by prefix
  for (const auto& [number, file] : source.experts())
    for (const std::string& key : keys_of(file))
      if (const auto at = parse_expert(key))
        stated.emplace(std::string(at->layer(key)), std::pair(number, file));
  const bool is_stated =
      std::all_of(layers.begin(), layers.end(), [&](const MoeLayer& l) { return stated.contains(l.prefix); });
  if (is_stated) {
    for (MoeLayer& l : layers) std::tie(l.number, l.like) = stated.at(l.prefix);
  } else {
    std::vector<std::string> module =
        keys_of(source.model(0, 0).root ? source.model(0, 0).root.get("module") : Value());
    const auto place = [&](const MoeLayer& l) {
      const std::string beside = l.prefix.substr(0, l.prefix.rfind("experts.deepspeed_experts."));
      return std::find_if(module.begin(), module.end(),
                          [&](const std::string& name) { return name.starts_with(beside); }) -
             module.begin();
    };
    std::stable_sort(layers.begin(), layers.end(),
                     [&](const MoeLayer& a, const MoeLayer& b) { return place(a) < place(b); });
    for (size_t i = 0; i < layers.size(); ++i) layers[i].number = static_cast<int64_t>(i);
  }
  std::sort(layers.begin(), layers.end(),
            [](const MoeLayer& a, const MoeLayer& b) { return a.number < b.number; });
}

}  // namespace

std::vector<MoeLayer> moe_layers(const Catalog& catalog, const SourceObjects& source,
                                 const std::vector<std::string>& names) {
  std::vector<MoeLayer> layers;
  std::map<std::string, size_t> index;       // by prefix
  std::vector<std::set<std::string>> found;  // names of each
  for (const std::string& name : names) {
    const auto at = parse_expert(name);
    if (!at) continue;
    const auto [entry, is_new] = index.try_emplace(std::string(at->layer(name)), layers.size());
    if (is_new) {
      layers.emplace_back().prefix = entry->first;
      found.emplace_back();
    }
    MoeLayer& layer = layers[entry->second];
    layer.experts = std::max(layer.experts, at->number + 1);
    if (at->number == 0) layer.parts.push_back(name.substr(at->number_end));
    found[entry->second].insert(name);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const MoeLayer& layer = layers[i];
    bool is_even = found[i].size() % static_cast<size_t>(layer.experts) == 0 &&
                   found[i].size() / static_cast<size_t>(layer.experts) == layer.parts.size();
    for (int64_t e = 0; is_even && e < layer.experts; ++e)
      for (const std::string& part : layer.parts) is_even &= found[i].contains(layer.name(e, part));
    if (!is_even)
      throw refused("deepspeed.experts", "the experts of one layer do not all have the same weights")
          .in_file(catalog.path)
          .in_tensor(layer.prefix + "*");
  }
  number_layers(layers, source);
  for (MoeLayer& layer : layers) {
    // The order in an expert's file is the module's.
    std::vector<std::string> order;
    for (const std::string& key : keys_of(layer.like))
      if (const auto at = parse_expert(key)) order.push_back(key.substr(at->number_end));
    std::stable_sort(layer.parts.begin(), layer.parts.end(), [&](const std::string& a, const std::string& b) {
      return std::find(order.begin(), order.end(), a) < std::find(order.begin(), order.end(), b);
    });
  }
  return layers;
}

}  // namespace uckpt::deepspeed
