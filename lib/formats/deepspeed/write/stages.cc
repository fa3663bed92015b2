#include "lib/formats/deepspeed/write/stages.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/write/param_groups.h"

namespace uckpt::deepspeed {

std::vector<int64_t> balanced_parts(std::span<const int64_t> weights, int64_t parts) {
  const size_t n = weights.size(), m = static_cast<size_t>(parts);
  std::vector<int64_t> begins(m + 1);
  if (n <= m) {
    for (size_t p = 0; p <= m; ++p) begins[p] = static_cast<int64_t>(std::min(p, n));
    return begins;
  }
  // Of the first i weights in j parts: the largest and smallest sum of the best cut, and its last part's
  // begin.
  struct Best {
    double largest = std::numeric_limits<double>::infinity(), smallest = largest, cost = largest;
    size_t begin = 0;
  };
  std::vector<std::vector<Best>> best(n + 1, std::vector<Best>(m + 1));
  best[0][0].largest = best[0][0].cost = 0;
  std::vector<double> sums(n + 1);
  for (size_t i = 0; i < n; ++i) sums[i + 1] = sums[i] + static_cast<double>(weights[i]);
  for (size_t i = 1; i <= n; ++i) {
    for (size_t j = 1; j <= std::min(i, m); ++j) {
      Best& here = best[i][j];
      for (size_t k = 0; k < i; ++k) {
        const double last = sums[i] - sums[k];
        const double largest = std::max(best[k][j - 1].largest, last),
                     smallest = std::min(best[k][j - 1].smallest, last);
        if (largest - smallest <= here.cost) here = {largest, smallest, largest - smallest, k};
      }
    }
  }
  begins[m] = static_cast<int64_t>(n);
  for (size_t j = m; j > 0; --j)
    begins[j - 1] = static_cast<int64_t>(best[static_cast<size_t>(begins[j])][j].begin);
  return begins;
}

namespace {

constexpr int64_t kMostSteps = int64_t{1} << 32;  // of the balancing: seconds

using Place = Stages::Place;
using Places = std::map<std::string, Place>;  // by name

// The places that tied modules' parameters have on a stage of the source; none where gradients go round
// robin, which puts the lists in another order.
Places places_in_source(const SourceObjects& source, int64_t model_rank) {
  Places out;
  const pickle::Value lists = source.param_shapes(model_rank);
  if (!lists || !lists.is_sequence() || source.config_flag("zero_optimization", "round_robin_gradients"))
    return out;
  for (size_t g = 0; g < lists.size(); ++g)
    for (const std::string& name : keys_of(lists.at(g)))
      if (name.starts_with(kTiedModules)) out.emplace(name, Place(0, out.size()));
  return out;
}

// What two tied modules' parameters have one place for has no order.
void check_order(const Catalog& catalog, const Places& places, size_t stage) {
  const auto module_of = [](const std::string& name) {
    return name.substr(0, name.find('.', name.find('.') + 1));
  };
  std::map<Place, std::string> taken;
  for (const auto& [name, place] : places) {
    const auto [at, is_new] = taken.emplace(place, module_of(name));
    if (!is_new && at->second != module_of(name))
      throw refused("deepspeed.stages", cat("nothing tells in which order stage ", stage, " uses ",
                                            escape(at->second, 100), " and ", escape(module_of(name), 100),
                                            ", and their optimizer states are in that order"))
          .in_file(catalog.path)
          .hint("--to deepspeed-universal does without the order");
  }
}

// A use of a module at a place of the pipeline.
struct Use {
  int64_t number;
  const PipelineLayer* layer;
};

class StageMaker {
 public:
  StageMaker(const Catalog& catalog, const std::vector<PipelineLayer>& layers,
             const std::vector<std::set<std::string>>& source, std::vector<std::string>& notes)
      : catalog_(catalog), layers_(layers), source_(source), notes_(notes) {
    for (const PipelineLayer& l : layers) uses_.push_back({l.number, &l});
    count_ = layers.empty() ? 0 : layers.back().number + 1;
  }

  // A tied module's further uses have no files. The source's stages tell of those: one on its last stage is
  // taken to be behind all other layers, where output layers are.
  void find_further_uses(bool is_cut, bool is_told) {
    const int64_t end = count_;
    for (const PipelineLayer& l : layers_) {
      if (!l.is_tied() || l.names.empty() || !done_.insert(l.prefix).second) continue;
      for (size_t s = 0; s < source_.size(); ++s) {
        if (!source_[s].contains(l.names.front()) || explains(l.prefix, s)) continue;
        if (s + 1 == source_.size()) {
          uses_.push_back({end, &l});
          count_ = end + 1;
          if (is_cut && !is_told)
            notes_.push_back(cat("the tied layer ", l.number, " (", escape(l.prefix, 100),
                                 "*) is taken to be used again behind the last layer, number ", end,
                                 "; --stages tells how many layers there are"));
        } else if (is_cut) {
          throw refused("deepspeed.stages", cat("stage ", s, " uses ", escape(l.prefix, 100),
                                                "* in a layer without a file, whose place nothing tells"))
              .in_file(catalog_.path);
        }
      }
    }
  }

  int64_t count() const { return count_; }
  // How many layers there are is told. What is behind all layers with files is then the last of them; where a
  // further use was but a guess, and there is no such layer, there is none.
  void set_count(int64_t count) {
    const int64_t files = layers_.back().number + 1;
    if (count < (source_.size() == 1 ? files : count_))
      throw trouble("usage.stages", cat("--stages: expected at least ", source_.size() == 1 ? files : count_,
                                        " layers in all, found ", count));
    std::erase_if(uses_, [&](const Use& use) { return use.number >= files && count == files; });
    for (Use& use : uses_)
      if (use.number >= files) use.number = count - 1;
    count_ = count;
  }

  std::vector<int64_t> weights(const std::function<int64_t(const std::string&)>& numel_of) const {
    std::vector<int64_t> out(static_cast<size_t>(count_));
    for (const Use& use : uses_)
      for (const std::string& name : use.layer->names) out[static_cast<size_t>(use.number)] += numel_of(name);
    return out;
  }

  std::vector<std::set<std::string>> cut(std::span<const int64_t> begins) const {
    std::vector<std::set<std::string>> out(begins.size() - 1);
    for (const Use& use : uses_)
      out[stage_of(begins, use)].insert(use.layer->names.begin(), use.layer->names.end());
    return out;
  }

  // By first use; uses behind all layers with files have the order of `last`, the source's last stage.
  std::vector<Places> tied_places(std::span<const int64_t> begins, const Places& last) const {
    std::vector<Places> out(begins.size() - 1);
    const int64_t files = layers_.back().number + 1;
    for (const Use& use : uses_) {
      if (!use.layer->is_tied()) continue;
      Places& places = out[stage_of(begins, use)];
      for (const std::string& name : use.layer->names) {
        const auto known = use.number < files ? last.end() : last.find(name);
        const Place place(use.number, known == last.end() ? 0 : known->second.second);
        const auto at = places.emplace(name, place).first;
        at->second = std::min(at->second, place);
      }
    }
    for (size_t s = 0; s < out.size(); ++s) check_order(catalog_, out[s], s);
    return out;
  }

 private:
  static size_t stage_of(std::span<const int64_t> begins, const Use& use) {
    const auto stage = std::upper_bound(begins.begin(), begins.end() - 1, use.number) - begins.begin() - 1;
    return static_cast<size_t>(stage);
  }

  // Does a layer's file lie on the stage? The stages' own layers tell from where to where it goes. A tied
  // module that is used once only needs no tie, so the only stage of a source has a further use.
  bool explains(const std::string& prefix, size_t stage) const {
    if (source_.size() == 1)
      return std::count_if(layers_.begin(), layers_.end(),
                           [&](const PipelineLayer& l) { return l.prefix == prefix; }) > 1;
    const auto first = [&](size_t s) {
      for (const PipelineLayer& l : layers_)
        if (!l.is_tied() && std::any_of(l.names.begin(), l.names.end(),
                                        [&](const std::string& n) { return source_[s].contains(n); }))
          return l.number;
      return std::numeric_limits<int64_t>::max();
    };
    const int64_t from = stage == 0 ? 0 : first(stage),
                  to = stage + 1 == source_.size() ? std::numeric_limits<int64_t>::max() : first(stage + 1);
    return std::any_of(layers_.begin(), layers_.end(), [&](const PipelineLayer& l) {
      return l.prefix == prefix && l.number >= from && l.number < to;
    });
  }

  const Catalog& catalog_;
  const std::vector<PipelineLayer>& layers_;
  const std::vector<std::set<std::string>>& source_;
  std::vector<std::string>& notes_;
  std::vector<Use> uses_;
  std::set<std::string> done_;
  int64_t count_ = 0;  // of layers, functions and further uses counted as far as they are known
};

// Of a stage that stays as it is.
Places own_places(const Catalog& catalog, const SourceObjects& source, const std::set<std::string>& names,
                  size_t stage) {
  Places out = places_in_source(source, static_cast<int64_t>(stage) * catalog.mesh.tp);
  if (!out.empty()) return out;
  for (const std::string& name : names)
    if (name.starts_with(kTiedModules)) out.emplace(name, Place());
  check_order(catalog, out, stage);
  return out;
}

std::string numbers_text(std::span<const int64_t> numbers) {
  std::string out;
  for (const int64_t n : numbers) out += cat(out.empty() ? "" : ",", n);
  return out;
}

}  // namespace

Stages Stages::make(const Catalog& catalog, const SourceObjects& source,
                    const std::vector<PipelineLayer>& layers, int64_t count, std::span<const int64_t> sizes,
                    const std::function<int64_t(const std::string&)>& numel_of,
                    std::vector<std::string>& notes) {
  Stages out;
  const auto own = stages_of_source(catalog, source, layers);
  if (sizes.empty() && static_cast<int64_t>(own.size()) == count) {
    out.names_ = own;
    out.tied_.resize(own.size());  // the only stage has the order of the groups
    for (size_t s = 0; s < own.size() && own.size() > 1; ++s)
      out.tied_[s] = own_places(catalog, source, own[s], s);
    out.add_untrained(layers);
    return out;
  }
  StageMaker maker(catalog, layers, own, notes);
  maker.find_further_uses(count > 1, !sizes.empty());
  std::vector<int64_t> begins;
  if (!sizes.empty()) {
    if (static_cast<int64_t>(sizes.size()) != count)
      throw trouble("usage.stages",
                    cat("--stages: expected the sizes of ", count, " stages, found ", sizes.size()));
    begins.push_back(0);
    for (const int64_t size : sizes) {
      const auto end = checked_add(begins.back(), size);
      if (!end) throw trouble("usage.stages", "--stages: there cannot be more than 2^63 layers");
      begins.push_back(*end);
    }
    maker.set_count(begins.back());
  } else if (count == 1) {
    begins = {0, maker.count()};
  } else {
    if (maker.count() < count)
      throw trouble("usage.layout", cat("--layout pp: expected at most ", maker.count(),
                                        " stages, as many as there are layers, found ", count));
    if (maker.count() > kMostSteps / count / maker.count())
      throw refused("deepspeed.stages", cat("it has too many layers to balance: ", maker.count()))
          .in_file(catalog.path)
          .hint("--stages says how many layers each stage has");
    begins = balanced_parts(maker.weights(numel_of), count);
    std::vector<int64_t> made;
    for (size_t s = 0; s + 1 < begins.size(); ++s) made.push_back(begins[s + 1] - begins[s]);
    notes.push_back(
        cat("the stages have ", numbers_text(made),
            " layers, balanced by their parameters as DeepSpeed does by default; --stages says others"));
  }
  out.names_ = maker.cut(begins);
  // Of a source with one stage, its list tells of first uses only.
  const auto last = static_cast<int64_t>(own.size()) - 1;
  out.tied_ =
      maker.tied_places(begins, last > 0 ? places_in_source(source, last * catalog.mesh.tp) : Places());
  for (size_t s = 0; s < out.names_.size(); ++s)
    if (out.names_[s].empty())
      throw trouble("usage.stages", cat("stage ", s, " would have no weights, which DeepSpeed cannot train"))
          .hint("--stages says how many layers each stage has");
  return out;
}

// The source's lists are of trained parameters: what else a layer has is where those are, or where the layer
// before it is.
void Stages::add_untrained(const std::vector<PipelineLayer>& layers) {
  size_t last = 0;
  for (const PipelineLayer& layer : layers) {
    bool is_anywhere = false;
    for (size_t s = 0; s < names_.size(); ++s) {
      if (std::none_of(layer.names.begin(), layer.names.end(),
                       [&](const std::string& name) { return names_[s].contains(name); }))
        continue;
      names_[s].insert(layer.names.begin(), layer.names.end());
      is_anywhere = true;
      if (!layer.is_tied()) last = s;
    }
    if (!is_anywhere) names_[last].insert(layer.names.begin(), layer.names.end());
  }
}

}  // namespace uckpt::deepspeed
