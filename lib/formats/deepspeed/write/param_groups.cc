#include "lib/formats/deepspeed/write/param_groups.h"

#include <algorithm>
#include <map>
#include <optional>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/match.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/write/expert_groups.h"
#include "lib/formats/torch/tensor_call.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

// Undoes round_robin_gradients: those with number 0 modulo `ranks` came first, then those with 1, ….
std::vector<std::string> without_round_robin(const std::vector<std::string>& stored, size_t ranks) {
  std::vector<std::string> out(stored.size());
  size_t at = 0;
  for (size_t r = 0; r < ranks; ++r)
    for (size_t i = r; i < stored.size(); i += ranks) out[i] = stored[at++];
  return out;
}

constexpr std::string_view kOfParameters[] = {"params", "param_names"};

// Each rank has its own experts under local numbers, and the lists are those of one rank: the others' follow
// it, expert by expert.
void add_other_experts(const Catalog& catalog, ParamGroup& group, const LocalExperts& local,
                       const std::vector<MoeLayer>& layers) {
  using Place = std::pair<int64_t, int64_t>;  // number of the layer, of the expert
  std::vector<std::pair<Place, std::string>> experts;
  std::vector<std::string> others;
  for (const std::string& name : group.names) {
    const MoeLayer* layer = layer_of(layers, name);
    if (!layer) {
      others.push_back(name);
      continue;
    }
    const auto at = parse_expert(name);
    const int64_t step = local.find(layer->prefix)->second;
    if (layer->experts % step != 0)
      throw other_names(catalog, cat("a rank has ", step, " experts of ", escape(layer->prefix, 100),
                                     "*, which do not divide the ", layer->experts, " there are"));
    group.ep = std::max(group.ep, layer->experts / step);
    for (int64_t e = at->number; e < layer->experts; e += step)
      experts.emplace_back(Place(layer->number, e), with_expert(name, *at, e));
  }
  std::stable_sort(experts.begin(), experts.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  group.names = std::move(others);
  for (auto& [place, name] : experts) group.names.push_back(std::move(name));
}

class GroupReader {
 public:
  GroupReader(const Catalog& catalog, const SourceObjects& source, const std::vector<MoeLayer>& layers)
      : catalog_(catalog), source_(source), layers_(layers) {}

  // One list of groups a pipeline stage; empty if any stage does not say its own.
  std::vector<std::vector<ParamGroup>> stages() const {
    std::vector<std::vector<ParamGroup>> out;
    if (source_.empty()) return out;
    const int64_t count = source_.layers().empty() ? 1 : catalog_.mesh.pp;
    const std::vector<int64_t> ranks = source_.model_ranks();
    for (int64_t s = 0; s < count; ++s) {
      if (count > 1 && !std::binary_search(ranks.begin(), ranks.end(), s * catalog_.mesh.tp)) return {};
      auto groups = groups_of(s * catalog_.mesh.tp);
      if (!groups) return {};
      out.push_back(std::move(*groups));
    }
    return out;
  }

 private:
  // At stage 3 the list of shapes is one of sub-groups: the groups' own `params` say how many each has.
  std::optional<std::vector<ParamGroup>> groups_of(int64_t model_rank) const {
    const Value options = source_.param_groups(model_rank), shapes = source_.param_shapes(model_rank);
    if (!shapes || !shapes.is_sequence()) return std::nullopt;
    const bool sub_groups = source_.stage() == 3;
    std::vector<ParamGroup> out;
    size_t at = 0;
    const size_t count = sub_groups && options ? options.size() : shapes.size();
    for (size_t g = 0; g < count; ++g) {
      ParamGroup group;
      if (options && g < options.size()) group.options = options.at(g);
      size_t lists = 1;
      if (const Value params = entry(group.options, "params"); sub_groups && params) lists = params.size();
      for (; lists > 0 && at < shapes.size(); --lists, ++at)
        for (std::string& name : keys_of(shapes.at(at))) group.names.push_back(std::move(name));
      if (!sub_groups && source_.config_flag("zero_optimization", "round_robin_gradients"))
        group.names = without_round_robin(group.names, partitions(model_rank, g));
      out.push_back(std::move(group));
    }
    LocalExperts local;
    for (const ParamGroup& group : out)
      for (const std::string& name : group.names) count_expert(local, name);
    for (ParamGroup& group : out) add_other_experts(catalog_, group, local, layers_);
    return out;
  }

  size_t partitions(int64_t model_rank, size_t group) const {
    const Value counts = entry(source_.zero_state(model_rank), "partition_count");
    const bool is_list = counts && counts.is_sequence() && group < counts.size();
    const auto count = is_list ? counts.at(group).integer()
                               : entry(source_.model(model_rank, 0).root, "dp_world_size").integer();
    return static_cast<size_t>(std::max<int64_t>(1, count.value_or(1)));
  }

  const Catalog& catalog_;
  const SourceObjects& source_;
  const std::vector<MoeLayer>& layers_;
};

// DeepSpeed drops a group of which a stage has no parameters: which groups these are is told from the options
// of the stage that has most.
std::vector<ParamGroup> join_stages(const Catalog& catalog,
                                    const std::vector<std::vector<ParamGroup>>& stages) {
  const auto widest = std::max_element(stages.begin(), stages.end(),
                                       [](const auto& a, const auto& b) { return a.size() < b.size(); });
  const auto text = [](const ParamGroup& g) { return options_text(g.options, kOfParameters); };
  std::vector<ParamGroup> out;
  for (const ParamGroup& g : *widest) out.emplace_back().options = g.options;
  std::set<std::string> seen;  // tied weights are in several stages
  for (const auto& stage : stages) {
    size_t next = 0;
    for (size_t g = 0; g < stage.size(); ++g, ++next) {
      if (stage.size() < out.size()) {
        const auto fits = [&](const ParamGroup& other) { return text(other) == text(stage[g]); };
        if (std::count_if(out.begin(), out.end(), fits) != 1)
          throw other_names(catalog, cat("a stage of the pipeline has ", stage.size(), " of ", out.size(),
                                         " optimizer groups, and their options do not tell which"));
        next = static_cast<size_t>(std::find_if(out.begin(), out.end(), fits) - out.begin());
      }
      for (const std::string& name : stage[g].names)
        if (seen.insert(name).second) out[next].names.push_back(name);
    }
  }
  // A module's tied modules come before its layers.
  for (ParamGroup& g : out)
    std::stable_partition(g.names.begin(), g.names.end(),
                          [](const std::string& name) { return name.starts_with(kTiedModules); });
  return out;
}

// The shape of the parameter whose states these are in the pickle.
std::optional<Shape> shape_by_states(const Value& states) {
  std::vector<std::pair<std::string_view, Shape>> shapes;
  for (size_t i = 0; states && states.is_dict() && i < states.size(); ++i) {
    const auto [key, value] = states.entry(i);
    if (auto shape = torch::shape_of_call(value))
      shapes.emplace_back(key.text().value_or(""), std::move(*shape));
  }
  return shape_of_states(shapes);
}

// Trained parameters as the module has them in memory.
struct InMemory {
  std::vector<std::string> names;
  std::vector<MemoryView> views;
};
InMemory in_memory(const Value& module, const std::set<std::string, std::less<>>& trained) {
  InMemory out;
  for (size_t i = 0; module && module.is_dict() && i < module.size(); ++i) {
    const auto [key, value] = module.entry(i);
    const auto shape = torch::shape_of_call(value);
    if (!shape || !key.text() || !trained.contains(*key.text()) || value.args().size() < 2) continue;
    out.names.emplace_back(*key.text());
    out.views.push_back(
        {torch::storage_key_of(value), value.args().at(1).integer().value_or(-1), numel_of(*shape)});
  }
  return out;
}

std::optional<std::vector<ParamGroup>> group_by_memory(const SourceObjects& source,
                                                       const std::vector<std::string>& trained) {
  const Value root = source.model(0, 0).root, groups = entry(source.plain_optimizer(0), "param_groups"),
              flat = entry(entry(root, "optimizer"), "fp32_groups_flat");
  if (!groups || !groups.is_sequence() || !flat || !flat.is_sequence() || flat.size() != groups.size())
    return std::nullopt;
  std::vector<ParamGroup> out(groups.size());
  std::set<std::string, std::less<>> left(trained.begin(), trained.end());
  const InMemory module = in_memory(root.get("module"), left);
  for (size_t g = 0; g < groups.size(); ++g) {
    out[g].options = groups.at(g);
    const auto shape = torch::shape_of_call(flat.at(g));
    for (const size_t i : views_that_fill(module.views, shape ? numel_of(*shape) : -1))
      if (left.erase(module.names[i]) > 0) out[g].names.push_back(module.names[i]);
  }
  return left.empty() ? std::optional(std::move(out)) : std::nullopt;
}

// Groups that number their parameters, as an optimizer without ZeRO has them: the shapes tell the names, as
// they do where the states are read.
class NumberReader {
 public:
  NumberReader(const Catalog& catalog, const SourceObjects& source,
               const std::vector<PipelineLayer>& pipeline, const std::vector<MoeLayer>& layers)
      : catalog_(catalog), source_(source), pipeline_(pipeline), layers_(layers) {
    for (const Tensor& t : catalog.tensors)
      if (is_weight(t.state) && t.state != state::kBuffer && !t.alias) shape_of_.emplace(t.name, t.shape);
  }

  // One list of groups a pipeline stage; empty where the shapes do not tell them.
  std::vector<std::vector<ParamGroup>> stages() const {
    std::vector<std::vector<ParamGroup>> out;
    const size_t count = pipeline_.empty() ? 1 : static_cast<size_t>(std::max<int64_t>(1, catalog_.mesh.pp));
    if (catalog_.mesh.tp != 1 || source_.model_ranks().size() != count) return out;
    const std::vector<std::vector<std::string>> names = dense_names(count);
    for (size_t s = 0; s < names.size(); ++s) {
      auto groups = groups_of(static_cast<int64_t>(s), names[s]);
      if (!groups) return {};
      out.push_back(std::move(*groups));
    }
    return out;
  }

 private:
  Value groups_of_stage(size_t stage) const {
    return entry(source_.plain_optimizer(static_cast<int64_t>(stage)), "param_groups");
  }

  size_t count_of_stage(size_t stage) const {
    const Value groups = groups_of_stage(stage);
    size_t count = 0;
    for (size_t g = 0; groups && groups.is_sequence() && g < groups.size(); ++g)
      if (const Value params = entry(groups.at(g), "params"); params && params.is_sequence())
        count += params.size();
    return count;
  }

  // The parameters of each stage in the model's order, frozen ones too; experts have files of their own. A
  // stage takes whole layers until it has as many as its optimizer.
  std::vector<std::vector<std::string>> dense_names(size_t count) const {
    std::vector<std::vector<std::string>> out(count);
    if (pipeline_.empty()) {
      for (std::string& name : keys_of(source_.model(0, 0).root.get("module")))
        if (shape_of_.contains(name)) out[0].push_back(std::move(name));
      return out;
    }
    size_t stage = 0;
    for (const PipelineLayer& layer : pipeline_) {
      while (stage + 1 < count && out[stage].size() >= count_of_stage(stage)) ++stage;
      for (const std::string& name : layer.names)
        if (shape_of_.contains(name) && std::ranges::find(out[stage], name) == out[stage].end())
          out[stage].push_back(name);
    }
    for (size_t s = 0; s < count && count > 1; ++s)
      if (out[s].size() != count_of_stage(s)) return {};
    return out;
  }

  // Those that the first of the ranks that share them has.
  std::vector<std::string> local_experts() const {
    std::vector<std::string> out;
    for (const MoeLayer& layer : layers_) {
      const int64_t local = layer.experts / std::max<int64_t>(1, catalog_.mesh.ep);
      for (int64_t e = 0; e < local; ++e)
        for (const std::string& part : layer.parts) out.push_back(layer.name(e, part));
    }
    return out;
  }

  std::vector<std::optional<Shape>> slots_of(const Value& group, size_t number, int64_t stage) const {
    const Value params = entry(group, "params"), states = entry(source_.plain_optimizer(stage), "state");
    const Value all = entry(entry(source_.model(stage, 0).root, "optimizer"), "fp32_groups");
    const Value masters = all && all.is_sequence() && number < all.size() ? all.at(number) : Value();
    std::vector<std::optional<Shape>> out;
    for (size_t i = 0; params && params.is_sequence() && i < params.size(); ++i) {
      const bool has_master = masters && masters.is_sequence() && i < masters.size();
      const auto id = params.at(i).integer();
      out.push_back(has_master     ? torch::shape_of_call(masters.at(i))
                    : id && states ? shape_by_states(states.get_int(*id))
                                   : std::nullopt);
    }
    return out;
  }

  std::optional<std::vector<ParamGroup>> groups_of(int64_t stage,
                                                   const std::vector<std::string>& dense) const {
    const Value groups = groups_of_stage(static_cast<size_t>(stage));
    if (!groups || !groups.is_sequence()) return std::nullopt;
    std::vector<ParamGroup> out(groups.size());
    for (size_t g = 0; g < groups.size(); ++g) out[g].options = groups.at(g);
    if (!name(out, stage, dense, false) || !name(out, stage, local_experts(), true)) return std::nullopt;
    LocalExperts local;
    for (const ParamGroup& group : out)
      for (const std::string& name : group.names) count_expert(local, name);
    for (ParamGroup& group : out) add_other_experts(catalog_, group, local, layers_);
    return out;
  }

  // Names the numbers of the groups with or without experts. False where nothing tells them.
  bool name(std::vector<ParamGroup>& groups, int64_t stage, const std::vector<std::string>& names,
            bool experts) const {
    std::vector<size_t> mine;
    std::vector<std::vector<std::optional<Shape>>> slots;
    for (size_t g = 0; g < groups.size(); ++g) {
      const Value moe = entry(groups[g].options, "moe");
      if ((moe && moe.boolean().value_or(false)) != experts) continue;
      mine.push_back(g);
      slots.push_back(slots_of(groups[g].options, g, stage));
    }
    if (mine.empty()) return true;
    std::vector<Shape> shapes;
    for (const std::string& name : names) {
      const auto shape = shape_of_.find(name);
      if (shape == shape_of_.end()) return false;
      shapes.push_back(shape->second);
    }
    std::vector<std::vector<size_t>> found;
    bool is_proven = false;  // reading has said it
    if (match_numbers(shapes, slots, found, is_proven) != Match::kUnique) return false;
    for (size_t k = 0; k < mine.size(); ++k) {
      for (const size_t at : found[k]) {
        if (at == kNoMatch)
          throw refused("deepspeed.groups", cat("the optimizer's group ", mine[k],
                                                " has a parameter without states, and nothing tells which "
                                                "of the model's it is"))
              .in_file(catalog_.path);
        groups[mine[k]].names.push_back(names[at]);
      }
    }
    return true;
  }

  const Catalog& catalog_;
  const SourceObjects& source_;
  const std::vector<PipelineLayer>& pipeline_;
  const std::vector<MoeLayer>& layers_;
  std::map<std::string, Shape, std::less<>> shape_of_;  // of parameters, by name
};

std::optional<std::vector<ParamGroup>> group_by_numbers(const Catalog& catalog, const NumberReader& reader,
                                                        const std::vector<std::string>& trained) {
  const auto stages = reader.stages();
  if (stages.empty()) return std::nullopt;
  std::vector<ParamGroup> out = stages.size() == 1 ? stages[0] : join_stages(catalog, stages);
  std::set<std::string, std::less<>> left(trained.begin(), trained.end());
  for (ParamGroup& group : out)
    std::erase_if(group.names, [&](const std::string& name) { return left.erase(name) == 0; });
  return left.empty() ? std::optional(std::move(out)) : std::nullopt;
}

// As lists of names say it.
std::vector<ParamGroup> group_by_names(const SourceObjects& source) {
  std::vector<ParamGroup> out;
  const Value groups = source.param_groups();
  for (size_t g = 0; g < groups.size(); ++g) {
    ParamGroup& group = out.emplace_back();
    group.options = groups.at(g);
    const Value names = entry(group.options, "params");
    for (size_t i = 0; i < names.size(); ++i) group.names.emplace_back(*names.at(i).text());
    group.ep = has_experts(group) ? 1 : 0;
  }
  return out;
}

// All in one group, experts in another. Groups whose options differ must not be mixed.
std::vector<ParamGroup> group_plainly(const Catalog& catalog, const SourceObjects& source,
                                      const std::vector<std::string>& trained) {
  std::vector<ParamGroup> out(2);
  out[1].ep = 1;  // the names are those of all ranks
  for (const std::string& name : trained) out[parse_expert(name) ? 1 : 0].names.push_back(name);
  std::erase_if(out, [](const ParamGroup& g) { return g.names.empty(); });
  const Value options = source.param_groups();
  if (!options || options.size() == 0) return out;
  if (options.size() != out.size())
    for (size_t g = 1; g < options.size(); ++g)
      if (options_text(options.at(g), kOfParameters) != options_text(options.at(0), kOfParameters))
        throw refused("deepspeed.groups", cat("its optimizer has ", options.size(),
                                              " groups of parameters with other options each, ",
                                              "and nothing tells which parameters the numbers in them are"))
            .in_file(catalog.path)
            .hint(
                "its weights alone, first written to safetensors, begin with a new optimizer: --missing "
                "zero");
  for (size_t g = 0; g < out.size(); ++g) out[g].options = options.at(options.size() == out.size() ? g : 0);
  return out;
}

}  // namespace

std::vector<ParamGroup> read_groups(const Catalog& catalog, const SourceObjects& source,
                                    const std::vector<std::string>& trained,
                                    const std::vector<std::string>& untrained,
                                    const std::vector<PipelineLayer>& pipeline,
                                    const std::vector<MoeLayer>& layers) {
  const auto stages = GroupReader(catalog, source, layers).stages();
  const bool has_names = source.groups_have_names();
  if (stages.empty() && !has_names) {
    auto groups = group_by_numbers(catalog, NumberReader(catalog, source, pipeline, layers), trained);
    if (!groups) groups = group_by_memory(source, trained);
    return groups ? std::move(*groups) : group_plainly(catalog, source, trained);
  }
  std::vector<ParamGroup> groups = has_names            ? group_by_names(source)
                                   : stages.size() == 1 ? stages[0]
                                                        : join_stages(catalog, stages);
  if (has_names) {
    const std::set<std::string_view> out(untrained.begin(), untrained.end());
    for (ParamGroup& group : groups)
      std::erase_if(group.names, [&](const std::string& name) { return out.contains(name); });
  }
  std::set<std::string, std::less<>> left(trained.begin(), trained.end());
  for (size_t g = 0; g < groups.size(); ++g)
    for (const std::string& name : groups[g].names)
      if (left.erase(name) == 0)
        throw other_names(catalog, cat("the optimizer's group ", g, " has the parameter ", escape(name, 100),
                                       ", which is not among those to be written"));
  if (!left.empty())
    throw other_names(catalog,
                      cat("none of the optimizer's groups has the parameter ", escape(*left.begin(), 100)));
  return groups;
}

std::vector<std::set<std::string>> stages_of_source(const Catalog& catalog, const SourceObjects& source,
                                                    const std::vector<PipelineLayer>& pipeline) {
  std::vector<std::set<std::string>> out;
  auto stages = GroupReader(catalog, source, {}).stages();
  if (stages.empty()) stages = NumberReader(catalog, source, pipeline, {}).stages();
  for (const auto& groups : stages) {
    auto& names = out.emplace_back();
    for (const ParamGroup& g : groups) names.insert(g.names.begin(), g.names.end());
  }
  return out;
}

}  // namespace uckpt::deepspeed
