#include "lib/formats/deepspeed/plain.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/deepspeed/match.h"
#include "lib/formats/file_path.h"

namespace uckpt::deepspeed {

namespace {

// A parameter as a weight shows it: its name on this rank's optimizer and its shape.
struct Candidate {
  std::string name;
  const Weight* weight;
};

constexpr const char* kUnnamed = "deepspeed.unnamed_states";

Error unnamed(const Source& source, std::string why) {
  return refused(kUnnamed, cat("the optimizer's states have numbers, not names, and ", why))
      .in_file(source.bytes()->name());
}

// Parameters of one model rank in the order of the model, without second names and buffers.
std::vector<Candidate> dense_of(const Weights& weights, const Checkpoint& c, int64_t model_rank) {
  std::vector<Candidate> out;
  for (const Weight& w : weights.all) {
    if (w.file->role == Role::kExpert || weights.is_buffer(w.name) || w.same_as ||
        weights.shared.contains(w.name))
      continue;
    const bool mine =
        w.file->role == Role::kLayer ? c.model_ranks() == c.mesh.tp : w.file->model == model_rank;
    if (mine) out.push_back({w.name, &w});
  }
  return out;
}

// A pipeline's layers, dealt out: each stage takes whole layers until it has as many parameters as its
// optimizer.
std::map<int64_t, std::vector<Candidate>> deal_layers(const Weights& weights, const Checkpoint& c,
                                                      const std::map<int64_t, size_t>& counts) {
  std::map<int64_t, std::vector<Candidate>> out;
  auto stage = counts.begin();
  int64_t layer = -1;
  for (const Weight& w : weights.all) {
    if (w.file->role != Role::kLayer || weights.is_buffer(w.name) || w.same_as) continue;
    while (stage != counts.end() && w.file->layer != layer && out[stage->first].size() >= stage->second)
      ++stage;
    if (stage == counts.end()) return {};
    layer = w.file->layer;
    out[stage->first].push_back({w.name, &w});
  }
  for (const auto& [rank, n] : counts) {
    if (out[rank].size() != n) return {};
  }
  return c.layers.empty() ? std::map<int64_t, std::vector<Candidate>>() : out;
}

// An expert rank's own experts in the order of the model. `expert_ranks` share each layer's experts.
std::vector<Candidate> experts_of(const Weights& weights, int64_t model_rank, int64_t expert_rank,
                                  int64_t expert_ranks) {
  std::map<std::string, std::set<int64_t>, std::less<>> numbers;  // of each layer
  for (const Weight& w : weights.all) {
    if (const auto at = parse_expert(w.name);
        at && w.file->role == Role::kExpert && w.file->model == model_rank) {
      numbers[std::string(at->layer(w.name))].insert(at->number);
    }
  }
  std::vector<Candidate> out;
  for (const Weight& w : weights.all) {
    const auto at = parse_expert(w.name);
    if (!at || w.file->role != Role::kExpert || w.file->model != model_rank) continue;
    const auto local = static_cast<int64_t>(numbers.find(at->layer(w.name))->second.size()) / expert_ranks;
    if (local > 0 && at->number / local == expert_rank) out.push_back({w.name, &w});
  }
  return out;
}

// "ep_size_4"; 0 if the name says nothing.
int64_t ep_size_of(const OptimizerGroup& group) {
  constexpr std::string_view kHead = "ep_size_";
  int64_t n = 0;
  if (group.name.starts_with(kHead) && group.name.size() < kHead.size() + 9) {
    std::from_chars(group.name.data() + kHead.size(), group.name.data() + group.name.size(), n);
  }
  return n;
}

// Gives names to one optimizer's numbers and adds what it holds.
class PlainNames {
 public:
  PlainNames(Builder& builder, PlainOptimizer& optimizer, Source& source, std::string_view replica)
      : builder_(builder), optimizer_(optimizer), source_(source), replica_(replica) {}

  // Names the numbers of the groups with or without experts.
  void name(const std::vector<Candidate>& candidates, bool experts) {
    std::vector<size_t> mine;
    std::vector<std::vector<std::optional<Shape>>> slots;
    for (size_t g = 0; g < optimizer_.groups.size(); ++g) {
      if (optimizer_.groups[g].moe != experts || optimizer_.groups[g].params.empty()) continue;
      mine.push_back(g);
      auto& list = slots.emplace_back();
      for (size_t i = 0; i < optimizer_.groups[g].params.size(); ++i) list.push_back(shape_of(g, i));
    }
    if (mine.empty() || take_stated(candidates, mine)) return;
    size_t count = 0;
    for (const auto& list : slots) count += list.size();
    if (count == candidates.size())  // none is frozen, whatever the numbers are
      for (const Candidate& c : candidates) trained_.push_back(c.name);
    std::vector<Shape> shapes;
    for (const Candidate& c : candidates) shapes.push_back(c.weight->info->shape);
    std::vector<std::vector<size_t>> found;
    bool is_proven = false;
    const Match match = match_numbers(shapes, slots, found, is_proven);
    if (match == Match::kNone)
      throw unnamed(source_, "their count or shapes do not fit the model's parameters");
    if (match == Match::kSeveral) {
      if (optimizer_.state.empty() && optimizer_.masters.empty()) return;  // nothing needs a name
      throw unnamed(source_, "more than one assignment fits the model's parameters");
    }
    if (!is_proven && !optimizer_.state.empty()) warn_once(order_assumed(""));
    for (size_t k = 0; k < mine.size(); ++k) {
      const auto& params = optimizer_.groups[mine[k]].params;
      for (size_t i = 0; i < params.size(); ++i) {
        if (found[k][i] != kNoMatch) {
          set_name(mine[k], i, candidates[found[k][i]]);
        } else if (optimizer_.state.contains(params[i])) {
          throw unnamed(source_, "more than one assignment fits the model's parameters");
        }
      }
    }
  }

  void add(std::unordered_set<std::string>& trained) {
    trained.insert(trained_.begin(), trained_.end());
    for (const auto& [id, candidate] : names_) {
      trained.insert(candidate.name);
      const auto entry = optimizer_.state.find(id);
      if (entry == optimizer_.state.end()) continue;
      for (PlainState& s : entry->second) add_state(candidate, s);
    }
    for (size_t g = 0; g < optimizer_.groups.size(); ++g) {
      for (size_t i = 0; i < optimizer_.groups[g].params.size(); ++i) add_of_group(g, i);
    }
  }

 private:
  // Every rank's optimizer may say it.
  void warn_once(std::string text) {
    auto& warnings = builder_.catalog.warnings;
    if (std::ranges::find(warnings, text) == warnings.end()) warnings.push_back(std::move(text));
  }

  std::optional<Shape> shape_of(size_t group, size_t i) const {
    if (group < optimizer_.masters.size() && i < optimizer_.masters[group].size())
      return optimizer_.masters[group][i].shape;
    const auto entry = optimizer_.state.find(optimizer_.groups[group].params[i]);
    if (entry == optimizer_.state.end()) return std::nullopt;
    std::vector<std::pair<std::string_view, Shape>> shapes;
    for (const PlainState& s : entry->second)
      if (s.is_tensor) shapes.emplace_back(s.name, s.info.shape);
    return shape_of_states(shapes);
  }

  // Newer torch stores the names, if it was told them.
  bool take_stated(const std::vector<Candidate>& candidates, const std::vector<size_t>& groups) {
    std::map<std::string_view, const Candidate*> by_name;
    for (const Candidate& c : candidates) by_name.emplace(c.name, &c);
    for (const size_t g : groups) {
      const OptimizerGroup& group = optimizer_.groups[g];
      if (group.param_names.size() != group.params.size()) return false;
      for (const std::string& name : group.param_names) {
        if (!by_name.contains(name)) return false;
      }
    }
    for (const size_t g : groups) {
      const OptimizerGroup& group = optimizer_.groups[g];
      for (size_t i = 0; i < group.params.size(); ++i) set_name(g, i, *by_name.at(group.param_names[i]));
    }
    return true;
  }

  void set_name(size_t group, size_t i, const Candidate& candidate) {
    const int64_t id = optimizer_.groups[group].params[i];
    if (!names_.emplace(id, candidate).second)
      throw unnamed(source_, cat("the number ", id, " stands twice"));
  }

  void add_tensor(std::string_view state, const std::string& name, const torch::TensorInfo& info,
                  const Shape& shape) {
    const NewTensor tensor{state, name, info.dtype, shape, "whole", replica_};
    if (const std::string why = builder_.refusal_of(info); !why.empty())
      return builder_.put_refused(tensor, why);
    builder_.put(tensor, [&]() -> std::optional<std::string> {
      builder_.whole(source_, info, shape);
      return std::nullopt;
    });
  }

  void add_state(const Candidate& candidate, const PlainState& s) {
    const bool like_weight =
        s.is_tensor && !s.info.shape.empty() && s.info.shape == candidate.weight->info->shape;
    if (s.is_tensor && (like_weight || !s.scalar)) {
      add_tensor(s.name, candidate.name, s.info,
                 like_weight ? builder_.vocabulary.logical(candidate.name, s.info.shape) : s.info.shape);
    } else {
      builder_.put_scalar(s.name, candidate.name, *s.scalar, source_.name());
    }
  }

  // The master of the unfused 16-bit wrapper, and a step that stands in the group.
  void add_of_group(size_t group, size_t i) {
    const auto candidate = names_.find(optimizer_.groups[group].params[i]);
    if (candidate == names_.end()) return;
    const std::string& name = candidate->second.name;
    if (group < optimizer_.masters.size() && i < optimizer_.masters[group].size()) {
      const torch::TensorInfo& info = optimizer_.masters[group][i];
      add_tensor(state::kMaster, name, info, builder_.vocabulary.logical(name, info.shape));
    }
    if (optimizer_.groups[group].step && !builder_.find(state::kStep, name)) {
      builder_.put_scalar(state::kStep, name, *optimizer_.groups[group].step, source_.name());
    }
  }

  Builder& builder_;
  PlainOptimizer& optimizer_;
  Source& source_;
  std::string_view replica_;
  std::map<int64_t, Candidate> names_;  // by parameter number
  std::vector<std::string> trained_;    // known to be, though maybe not under which number
};

// --- The fused 16-bit wrapper: one flat tensor a group, the weights in the model views into it. ---

// The parameters of a group of `numel` elements, in storage order: the weights that share one memory of just
// that size, or all of the model if there is one group.
std::vector<Candidate> fused_group(const std::vector<Candidate>& candidates, int64_t numel, bool only_group) {
  std::vector<MemoryView> views;
  for (const Candidate& c : candidates)
    views.push_back({c.weight->info->storage_key, c.weight->info->storage_offset, c.weight->info->numel()});
  std::vector<Candidate> out;
  for (const size_t i : views_that_fill(views, numel)) out.push_back(candidates[i]);
  if (!out.empty()) return out;
  int64_t all = 0;
  for (const Candidate& c : candidates) all += c.weight->info->numel();
  return only_group && all == numel ? candidates : std::vector<Candidate>();
}

void add_fused(Builder& builder, PlainOptimizer& optimizer, Source& source,
               const std::vector<Candidate>& candidates, std::unordered_set<std::string>& trained) {
  for (size_t g = 0; g < optimizer.flat_masters.size(); ++g) {
    const int64_t numel = optimizer.flat_masters[g].numel;
    const std::vector<Candidate> group = fused_group(candidates, numel, optimizer.flat_masters.size() == 1);
    if (group.empty())
      throw unnamed(source, cat("no set of parameters is the flat group of ", numel, " elements"));
    const auto entry = optimizer.state.find(static_cast<int64_t>(g));
    int64_t at = 0;
    for (const Candidate& c : group) {
      const int64_t n = c.weight->info->numel();
      const Shape shape = builder.vocabulary.logical(c.name, c.weight->info->shape);
      const int64_t logical = numel_of(shape);
      const auto add = [&](std::string_view state, const Place& place) {
        builder.put({state, c.name, place.dtype, shape, "flat", "replica"},
                    [&]() -> std::optional<std::string> {
                      builder.flat(source, place, logical, 0, logical, at);
                      return std::nullopt;
                    });
      };
      trained.insert(c.name);
      add(state::kMaster, optimizer.flat_masters[g]);
      for (size_t i = 0; entry != optimizer.state.end() && i < entry->second.size(); ++i) {
        const PlainState& s = entry->second[i];
        if (s.is_tensor && s.info.refusal.empty() && s.info.shape.size() == 1 && s.info.numel() == numel &&
            s.info.contiguous()) {
          add(s.name, Place{s.info.offset, numel, s.info.record, s.info.dtype, s.info.flags});
        } else if (s.scalar) {
          builder.put_scalar(s.name, c.name, *s.scalar, source.name());
        } else {
          throw unnamed(source, cat("the state ", escape(s.name, 40), " is not cut like the weights"));
        }
      }
      if (g < optimizer.groups.size() && optimizer.groups[g].step && !builder.find(state::kStep, c.name)) {
        builder.put_scalar(state::kStep, c.name, *optimizer.groups[g].step, source.name());
      }
      at += n;
    }
  }
}

// The size of the expert groups; one for all, or the names cannot be told.
int64_t common_ep_size(const PlainOptimizer& optimizer, const Source& source, int64_t expert_ranks) {
  std::set<int64_t> sizes;
  for (const OptimizerGroup& g : optimizer.groups) {
    if (g.moe && !g.params.empty()) sizes.insert(ep_size_of(g) > 0 ? ep_size_of(g) : expert_ranks);
  }
  if (sizes.size() > 1) throw unnamed(source, "experts are spread over groups of several sizes");
  return sizes.empty() ? 1 : *sizes.begin();
}

size_t count_params(const PlainOptimizer& optimizer) {
  size_t n = 0;
  for (const OptimizerGroup& g : optimizer.groups) n += g.params.size();
  return n;
}

class PlainAdder {
 public:
  PlainAdder(Builder& builder, Checkpoint& checkpoint, const Weights& weights)
      : builder_(builder), checkpoint_(checkpoint), weights_(weights) {
    std::map<int64_t, size_t> counts;
    for (const ModelFile& f : checkpoint.models) {
      if (f.optimizer && f.file.model % checkpoint.mesh.tp == builder.tp_rank)
        counts.emplace(f.file.model, count_params(*f.optimizer));
    }
    if (checkpoint.mesh.pp > 1 && !checkpoint.layers.empty())
      dealt_ = deal_layers(weights, checkpoint, counts);
    for (const WeightFile& f : checkpoint.expert_optimizers)
      expert_ranks_ = std::max(expert_ranks_, f.file.data + 1);
  }

  std::unordered_set<std::string> run() {
    for (ModelFile& f : checkpoint_.models) {
      if (!f.damage && f.optimizer && f.file.model % checkpoint_.mesh.tp == builder_.tp_rank) {
        add(*f.optimizer, f.source, f.file.model, 0, "replica");
      }
    }
    for (WeightFile& f : checkpoint_.expert_optimizers) {
      if (!f.damage && f.optimizer && f.file.model % checkpoint_.mesh.tp == builder_.tp_rank) {
        add(*f.optimizer, f.source, f.file.model, f.file.data, cat("replica on expert rank ", f.file.data));
      }
    }
    return std::move(trained_);
  }

 private:
  void add(PlainOptimizer& optimizer, Source& source, int64_t model_rank, int64_t expert_rank,
           const std::string& replica) {
    try {
      const auto dealt = dealt_.find(model_rank);
      const std::vector<Candidate> dense =
          dealt != dealt_.end() ? dealt->second : dense_of(weights_, checkpoint_, model_rank);
      if (!optimizer.flat_masters.empty()) return add_fused(builder_, optimizer, source, dense, trained_);
      if (!checkpoint_.fused().empty())
        throw unnamed(source, "this version reads AutoEP's from ZeRO's files alone");
      PlainNames names(builder_, optimizer, source, replica);
      names.name(dense, false);
      const int64_t size = common_ep_size(optimizer, source, expert_ranks_);
      builder_.catalog.mesh.ep = std::max(builder_.catalog.mesh.ep, size);
      // The files are numbered in the largest group, which is the only one.
      names.name(experts_of(weights_, model_rank, expert_rank, size), true);
      names.add(trained_);
    } catch (Error& e) {
      if (e.kind() != ErrorKind::kRefused) throw;
      if (e.code() != kUnnamed) return builder_.problems.push_back(e);
      // All the rest of the checkpoint can be had without them.
      const std::string name = cat(stem_of(std::string(base_of(source.name()))), ".optimizer");
      builder_.put_refused({state::kOther, name, DType::kF32, {}, "not told apart", replica}, e.message());
    }
  }

  Builder& builder_;
  Checkpoint& checkpoint_;
  const Weights& weights_;
  std::map<int64_t, std::vector<Candidate>> dealt_;  // of a pipeline's stages
  int64_t expert_ranks_ = 1;
  std::unordered_set<std::string> trained_;
};

}  // namespace

std::unordered_set<std::string> add_plain_optimizers(Builder& builder, Checkpoint& checkpoint,
                                                     const Weights& weights) {
  return PlainAdder(builder, checkpoint, weights).run();
}

}  // namespace uckpt::deepspeed
