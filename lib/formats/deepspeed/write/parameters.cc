#include "lib/formats/deepspeed/write/parameters.h"

#include <algorithm>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/wrapped_names.h"
#include "lib/formats/read_number.h"
#include "lib/pickle/value_text.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

// The rows or columns that a factored optimizer keeps of a matrix may be one, too.
bool is_one_number(const Tensor& t) { return t.shape.size() <= 1 && numel_of(t.shape) == 1; }

}  // namespace

Parameters::Parameters(const Catalog& catalog, const WriteRequest& request, const SourceObjects& source)
    : catalog_(catalog) {
  collect(request);
  prefer_stated_names(source);
  find_parts(source);
  order(source, request.shards.get());
  set_module_dtypes(request, source);
  group(source);
  read_state_names(source);
}

Named& Parameters::add(const std::string& name) {
  const auto [at, is_new] = index_.try_emplace(name, all_.size());
  if (is_new) {
    all_.emplace_back();
    all_.back().name = name;
  }
  return all_[at->second];
}

void Parameters::collect(const WriteRequest& request) {
  for (const uint32_t index : request.tensors) {
    const Tensor& t = catalog_.tensors[index];
    if (t.state == state::kOther) {
      loose_.emplace(t.name, t.alias.value_or(index));
      continue;
    }
    Named& n = add(t.name);
    const uint32_t source = t.alias.value_or(index);
    if (t.state == state::kMaster) {
      n.master = source;
    } else if (t.state == state::kParam) {
      n.module = source;
    } else if (t.state == state::kBuffer) {
      n.buffer = source;
    } else {
      (is_one_number(t) ? n.numbers : n.states)[t.state] = source;
    }
    if (t.alias && catalog_.tensors[source].name != t.name && !n.tied_to)
      n.tied_to = catalog_.tensors[source].name;
  }
  for (Named& n : all_) {
    if (!n.master && !n.module && !n.buffer)
      throw refused("deepspeed.no_masters",
                    "it has optimizer states and no weight, which a DeepSpeed checkpoint cannot hold")
          .in_file(catalog_.path)
          .in_tensor(n.name);
    // A parameter of one element has states of one element, like its numbers: they are told by their shape,
    // and a step is always a number.
    if (n.master && numel_of(catalog_.tensors[*n.master].shape) == 1) {
      for (auto it = n.numbers.begin(); it != n.numbers.end();) {
        const bool is_state = it->first != state::kStep &&
                              catalog_.tensors[it->second].shape == catalog_.tensors[*n.master].shape;
        if (is_state) n.states.insert(*it);
        it = is_state ? n.numbers.erase(it) : std::next(it);
      }
    }
    check_states(n);
  }
}

// Of tied names the program's optimizer knows one, which need not be the one under which an input has the
// bytes: links of an HDF5 file are alike.
void Parameters::prefer_stated_names(const SourceObjects& source) {
  if (std::ranges::none_of(all_, [](const Named& n) { return n.tied_to.has_value(); })) return;
  const std::set<std::string> stated = source.stated_names();
  std::map<std::string, std::string> better;  // by the name that has the bytes
  for (const Named& n : all_)
    if (n.tied_to && stated.contains(n.name) && !stated.contains(*n.tied_to))
      better.emplace(*n.tied_to, n.name);
  for (Named& n : all_) {
    const auto found = better.find(n.tied_to.value_or(n.name));
    if (found == better.end()) continue;
    n.tied_to = n.name == found->second ? std::nullopt : std::optional(found->second);
  }
}

// Flat buffers of a state are cut as those of the masters.
void Parameters::check_states(const Named& n) const {
  if (!n.master) return;
  const Shape& shape = catalog_.tensors[*n.master].shape;
  for (const auto& [state, tensor] : n.states)
    if (catalog_.tensors[tensor].shape != shape)
      throw refused("deepspeed.state",
                    cat("a DeepSpeed checkpoint has states of their parameter's shape and numbers: expected ",
                        shape_text(shape), ", found ", shape_text(catalog_.tensors[tensor].shape)))
          .in_file(catalog_.path)
          .in_tensor(cat(state, "/", n.name))
          .hint(cat("--drop '", escape(state, 40), "/*' leaves it out"));
}

void Parameters::find_parts(const SourceObjects& source) {
  std::vector<std::string> names;
  for (const Named& n : all_) names.push_back(n.name);
  pipeline_ = pipeline_layers(catalog_, source, names);
  moe_ = moe_layers(catalog_, source, names);
  for (const MoeLayer& layer : moe_) experts_.emplace(layer.prefix, layer.experts);
  fused_ = read_fused_experts(source.model(0, 0).root);
  std::erase_if(fused_, [&](const FusedExperts& layer) {
    return std::ranges::none_of(names, [&](const std::string& name) { return layer.has(name); });
  });
}

// As the source's module and files have them; what they do not name follows. Without any as the rules have
// them.
void Parameters::order(const SourceObjects& source, const Shards* shards) {
  std::map<std::string, size_t, std::less<>> places;
  const auto add = [&](const std::string& name) { places.try_emplace(name, places.size()); };
  for (const int64_t rank : source.model_ranks())
    for (const std::string& name : keys_of(source.model(rank, 0).root.get("module"))) add(name);
  for (const PipelineLayer& layer : pipeline_)
    for (const std::string& name : layer.names) add(name);
  for (Named& n : all_) {
    std::string key = state_dict_key(n.name);
    const bool is_own = places.contains(n.name) || has(key);
    n.key = is_own ? n.name : std::move(key);
  }
  // A state dict is in order, and flat buffers are in that of the groups.
  order_is_known_ = !places.empty() || shards || catalog_.kind == "torch" || source.groups_have_order();
  if (!places.empty()) {
    for (const MoeLayer& layer : moe_)
      for (int64_t e = 0; e < layer.experts; ++e)
        for (const std::string& part : layer.parts) add(layer.name(e, part));
  } else if (shards) {
    for (const RankShards& rank : shards->ranks)
      for (const Shard& s : rank.shards) places.try_emplace(catalog_.tensors[s.tensor].name, s.order);
  }
  const auto place = [&](const Named& n) {
    const auto by_key = places.find(n.key), found = by_key == places.end() ? places.find(n.name) : by_key;
    return found == places.end() ? SIZE_MAX : found->second;
  };
  std::stable_sort(all_.begin(), all_.end(),
                   [&](const Named& a, const Named& b) { return place(a) < place(b); });
  for (size_t i = 0; i < all_.size(); ++i) index_[all_[i].name] = i;
}

void Parameters::set_module_dtypes(const WriteRequest& request, const SourceObjects& source) {
  const DType trained = source.config_flag("bf16", "enabled")   ? DType::kBF16
                        : source.config_flag("fp16", "enabled") ? DType::kF16
                                                                : DType::kF32;
  std::unordered_map<uint32_t, DType> asked;
  for (size_t i = 0; i < request.tensors.size(); ++i) {
    const Tensor& t = catalog_.tensors[request.tensors[i]];
    if ((t.state == state::kMaster || t.state == state::kParam) && i < request.dtypes.size() &&
        request.dtypes[i])
      asked[t.alias.value_or(request.tensors[i])] = *request.dtypes[i];
  }
  for (Named& n : all_) {
    const Tensor& weight = catalog_.tensors[n.weight()];
    n.module_dtype = weight.dtype;
    if (n.master && !n.module) {
      n.module_dtype = weight.module_dtype.value_or(trained);
      for (const Copy& copy : weight.copies)
        if (copy.is_module) n.module_dtype = copy.dtype;
    }
    if (const auto found = asked.find(n.weight()); found != asked.end()) n.module_dtype = found->second;
  }
}

void Parameters::group(const SourceObjects& source) {
  std::vector<std::string> trained, untrained;
  for (const Named& n : all_) (n.is_trained() ? trained : untrained).push_back(n.name);
  if (trained.empty())
    throw refused("deepspeed.no_masters",
                  "it has no fp32 master weights, which a DeepSpeed checkpoint is made of")
        .in_file(catalog_.path);
  groups_ = read_groups(catalog_, source, trained, untrained, pipeline_, moe_);
}

void Parameters::read_state_names(const SourceObjects& source) {
  std::vector<std::string> order = keys_of(source.group_state());
  order.insert(order.end(), {"step", "exp_avg", "exp_avg_sq"});
  const auto place = [&](const std::string& name) {
    return std::find(order.begin(), order.end(), name) - order.begin();
  };
  std::set<std::string> states, numbers;
  for (const Named& n : all_) {
    for (const auto& [state, tensor] : n.states) states.insert(state);
    for (const auto& [state, tensor] : n.numbers) numbers.insert(state);
  }
  states_.assign(states.begin(), states.end());
  numbers_.assign(numbers.begin(), numbers.end());
  for (auto* list : {&states_, &numbers_})
    std::stable_sort(list->begin(), list->end(),
                     [&](const std::string& a, const std::string& b) { return place(a) < place(b); });
}

const Bytes& Parameters::number(uint32_t tensor) const {
  const auto [at, is_new] = read_.try_emplace(tensor);
  if (is_new) at->second = read_number(catalog_, catalog_.tensors[tensor]);
  return at->second;
}

int64_t Parameters::most_expert_ranks() const {
  int64_t out = 0;
  for (const ParamGroup& g : groups_) out = std::max(out, g.ep);
  return out;
}

int64_t Parameters::experts_of(std::string_view name) const {
  return experts_.find(parse_expert(name).value().layer(name))->second;
}

std::optional<uint32_t> Parameters::loose(const std::string& file, const std::string& path) const {
  for (const std::string& name : loose_names(file, path))
    if (const auto found = loose_.find(name); found != loose_.end()) return found->second;
  return std::nullopt;
}

std::vector<std::string> Parameters::frozen() const {
  std::vector<std::string> out;
  for (const Named& n : all_)
    if (n.is_frozen()) out.push_back(n.name);
  return out;
}

std::vector<std::string> Parameters::buffers() const {
  std::vector<std::string> out;
  for (const Named& n : all_)
    if (n.buffer && !n.master && !n.module) out.push_back(n.name);
  return out;
}

}  // namespace uckpt::deepspeed
