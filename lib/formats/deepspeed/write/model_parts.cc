#include "lib/formats/deepspeed/write/model_parts.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/torch/tensor_call.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;
using NameSet = std::unordered_set<std::string>;

bool is_part(const Shape& part, const Shape& whole) {
  return std::equal(part.begin(), part.end(), whole.begin(), whole.end(),
                    [](int64_t p, int64_t w) { return p == w || (p > 0 && w % p == 0); });
}

Error indistinct(const Catalog& catalog, std::string what) {
  return refused("deepspeed.groups", std::move(what))
      .in_file(catalog.path)
      .hint(
          "the files of a pipeline's layers do not name tied modules, so those with the same names and "
          "shapes "
          "cannot be told apart: no DeepSpeed checkpoint can be written from it, but --to hdf5 can");
}

// The tied modules of a pipeline, which the files of its layers do not name: "tied_modules.embed.".
class TiedModules {
 public:
  explicit TiedModules(const Catalog& catalog) : catalog_(catalog) {
    for (const Tensor& t : catalog.tensors) {
      if (!is_weight(t.state) || !t.name.starts_with(kTiedModules)) continue;
      const size_t dot = t.name.find('.', kTiedModules.size());
      if (dot == t.name.npos) continue;
      prefixes_.insert(t.name.substr(0, dot + 1));
      shapes_.emplace(t.name, &t.shape);
    }
  }

  // The one that has all names of a layer's file; of several the one with its shapes, which are parts where
  // tensor parallel ranks cut them.
  std::string find(const PipelineLayer& layer) const {
    std::vector<std::string> named = fitting(layer, [](const Shape&, const Shape&) { return true; });
    if (named.size() == 1) return named[0];
    const std::string what =
        cat("layer ", layer.number, " of the pipeline has ", escape(layer.names.front(), 100));
    if (named.empty())
      throw other_names(catalog_, cat(what, ", which is not among the weights to be written"));
    std::vector<std::string> same = fitting(layer, std::equal_to<Shape>());
    if (same.empty()) same = fitting(layer, is_part);
    if (same.size() == 1) return same[0];
    throw indistinct(catalog_, cat(what, ", which several tied modules have"));
  }

 private:
  template <class Fits>
  std::vector<std::string> fitting(const PipelineLayer& layer, const Fits& fits) const {
    std::vector<std::string> out;
    for (const std::string& prefix : prefixes_) {
      const bool has_all = std::all_of(layer.names.begin(), layer.names.end(), [&](const std::string& key) {
        const auto whole = shapes_.find(prefix + key);
        if (whole == shapes_.end()) return false;
        const auto shape = torch::shape_of_call(layer.like.get(key));
        return !shape || fits(*shape, *whole->second);
      });
      if (has_all) out.push_back(prefix);
    }
    return out;
  }

  const Catalog& catalog_;
  std::set<std::string> prefixes_;
  std::unordered_map<std::string, const Shape*> shapes_;
};

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
  const TiedModules tied(catalog);
  NameSet in_files;
  for (const auto& [number, file] : source.layers()) {
    PipelineLayer layer{number, cat(number, "."), keys_of(file), file};
    const bool is_own = layer.names.empty() ||
                        std::any_of(layer.names.begin(), layer.names.end(), [&](const std::string& key) {
                          return known.contains(layer.prefix + key);
                        });
    if (!is_own) layer.prefix = tied.find(layer);
    for (std::string& name : layer.names) {
      name = layer.prefix + name;
      if (!known.contains(name))
        throw other_names(catalog, cat("layer ", number, " of the pipeline has ", escape(name, 100),
                                       ", which is not among the weights to be written"));
      in_files.insert(name);
    }
    out.push_back(std::move(layer));
  }
  for (const std::string& name : names) {
    if (in_files.contains(name)) continue;
    std::string what = cat("no layer of the pipeline has ", escape(name, 100));
    throw name.starts_with(kTiedModules) ? indistinct(catalog, std::move(what))
                                         : other_names(catalog, std::move(what));
  }
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
