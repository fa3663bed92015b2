#include "lib/formats/megatron/write/megatron_writer.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/dcp/lost_state.h"
#include "lib/formats/megatron/folder.h"
#include "lib/formats/megatron/write/target.h"

namespace uckpt::megatron {

int64_t TargetCheckpoint::bucket_size(size_t file) const {
  const auto number = [&](std::string_view name) -> std::optional<int64_t> {
    const auto at = catalog.arguments.find(name);
    return at == catalog.arguments.end() ? source.args().number(name) : std::optional(at->second);
  };
  if (number("overlap_grad_reduce").value_or(source.args().overlap_grad_reduce()) == 0) return 0;
  if (const auto size = number("ddp_bucket_size"); size && *size > 0) return *size;
  if (const auto count = number("ddp_num_buckets"); count && *count > 0) {
    int64_t numel = 0;
    for (int64_t v = 0; v < mesh.vp; ++v)
      for (const Held& h : parts.held(rank_of(file, v)))
        if (!h.buffer && !h.tied_to) numel += h.numel();
    return std::max<int64_t>(1, numel / *count);
  }
  return default_bucket_size(mesh.dp * mesh.cp);
}

// Of bf16 always fp32, unless told otherwise; of fp16 where told so.
DType TargetCheckpoint::grad_dtype(DType params) const {
  const Arguments& args = source.args();
  const bool in_fp32 = params == DType::kBF16
                           ? !args.truth("grad_reduce_in_bf16").value_or(false)
                           : args.truth("accumulate_allreduce_grads_in_fp32").value_or(false);
  return in_fp32 ? DType::kF32 : params;
}

namespace {

class Layouter {
 public:
  Layouter(const Catalog& catalog, const WriteRequest& request)
      : catalog_(catalog), source_(catalog), mesh_(target_mesh(catalog, request.mesh)) {
    const size_t ranks = mesh_.files.size() * static_cast<size_t>(mesh_.vp);
    if (!request.shards && ranks > 1)
      throw refused("megatron.no_layout",
                    cat("nothing says how its tensors are cut over ", ranks, " ranks: expected rules"))
          .in_file(catalog.path)
          .hint("--spec gives them");
    if (source_.empty()) dcp::tell_lost_state(catalog, request.tensors, notes_);
    add_text_file(layout_, std::string(kTracker), "");
    parts_.emplace(catalog, request, source_, mesh_.ep, layout_);
    if (parts_->ranks() != ranks)
      throw refused("megatron.no_layout",
                    cat("expected shards of ", ranks, " ranks, found ", parts_->ranks()))
          .in_file(catalog.path);
  }

  TargetLayout run() {
    TargetCheckpoint target(catalog_, source_, mesh_, *parts_, notes_);
    count_layers(target);
    find_vocabulary(target);
    find_params_dtype(target);
    settle_optimizer(target);
    name_folder(target);
    say(target);
    for (size_t f = 0; f < mesh_.files.size(); ++f) {
      add_model_file(target, f);
      if (target.has_optimizer && target.is_distributed) add_distributed_states(target, f);
    }
    std::set<std::string> seen;
    for (std::string& note : notes_)
      if (seen.insert(note).second) layout_.notes.push_back(std::move(note));
    return std::move(layout_);
  }

 private:
  template <class Visit>
  void each_held(Visit visit) const {
    for (size_t rank = 0; rank < parts_->ranks(); ++rank)
      for (const Held& h : parts_->held(rank)) visit(rank, h);
  }

  // The numbers that most names have first are those of layers.
  void count_layers(TargetCheckpoint& target) const {
    std::map<std::string, std::map<std::pair<int64_t, int64_t>, std::set<int64_t>>> found;  // by stage, chunk
    each_held([&](size_t rank, const Held& h) {
      std::vector<int64_t> numbers;
      const std::string shape = template_of(h.name, &numbers);
      if (numbers.empty()) return;
      const size_t file = rank / static_cast<size_t>(mesh_.vp);
      const auto chunk = static_cast<int64_t>(rank % static_cast<size_t>(mesh_.vp));
      found[shape.substr(0, shape.find('#'))][{mesh_.files[file].pp, chunk}].insert(numbers[0]);
    });
    target.layers.assign(static_cast<size_t>(mesh_.pp),
                         std::vector<int64_t>(static_cast<size_t>(mesh_.vp), 0));
    size_t most = 0;
    for (const auto& [shape, places] : found) {
      size_t count = 0;
      for (const auto& [place, numbers] : places) count += numbers.size();
      if (count <= most) continue;
      most = count;
      for (const auto& [place, numbers] : places)
        target.layers[static_cast<size_t>(place.first)][static_cast<size_t>(place.second)] =
            static_cast<int64_t>(numbers.size());
    }
  }

  void find_vocabulary(TargetCheckpoint& target) const {
    each_held([&](size_t rank, const Held& h) {
      const Shard& s = parts_->shard(rank, h.weight());
      if (h.name.ends_with("word_embeddings.weight") && !s.full_shape.empty())
        target.padded_vocab = s.full_shape[0];
    });
  }

  void find_params_dtype(TargetCheckpoint& target) const {
    std::map<DType, int64_t> counts;
    each_held([&](size_t, const Held& h) {
      if (!h.buffer) ++counts[h.dtype];
    });
    int64_t most = 0;
    for (const auto& [dtype, count] : counts) {
      if (count <= most) continue;
      most = count;
      target.params_dtype = dtype;
    }
  }

  void settle_optimizer(TargetCheckpoint& target) {
    target.has_optimizer = has_states();
    if (!target.has_optimizer) return;
    target.is_distributed =
        source_.args().truth("use_distributed_optimizer").value_or(!source_.has_plain_optimizer());
    each_held([&](size_t, const Held& h) { target.has_experts |= h.is_expert && h.is_trained(); });
    check_states(target);
    find_step(target);
    if (source_.groups().empty()) target.numbers = optimizer_numbers(catalog_);
  }

  bool has_states() const {
    bool has = false;
    each_held([&](size_t, const Held& h) { has |= !h.states.empty(); });
    return has;
  }

  // Moments are what the distributed optimizer keeps of each parameter, and nothing else.
  void check_states(const TargetCheckpoint& target) {
    std::set<std::string> left;
    each_held([&](size_t, const Held& h) {
      if (!h.is_trained()) return;
      for (const std::string_view state : {"exp_avg", "exp_avg_sq"})
        if (!h.states.contains(state))
          throw refused("megatron.no_state", cat("Megatron's optimizer keeps ", state,
                                                 " of each parameter, which the input lacks"))
              .in_file(catalog_.path)
              .in_tensor(h.logical_name)
              .hint(cat("--states ", weight_states(), " writes the weights alone"));
      for (const auto& [state, index] : h.states)
        if (target.is_distributed && state != "exp_avg" && state != "exp_avg_sq") left.insert(state);
    });
    for (const std::string& state : left)
      notes_.push_back(cat("left out: ", escape(state), ", which the distributed optimizer does not keep"));
  }

  std::string weight_states() const {
    std::set<std::string> found;
    each_held([&](size_t rank, const Held& h) {
      found.insert(catalog_.tensors[parts_->shard(rank, h.weight()).tensor].state);
    });
    std::string out;
    for (const std::string& s : found) out += cat(out.empty() ? "" : ",", s);
    return out;
  }

  // One number for all parameters.
  void find_step(TargetCheckpoint& target) {
    std::set<uint32_t> seen;
    each_held([&](size_t, const Held& h) {
      const auto found = h.numbers.find(state::kStep);
      if (!h.is_trained() || found == h.numbers.end() || !seen.insert(found->second).second) return;
      const double step = parts_->number(found->second);
      if (target.step && *target.step != step)
        throw refused(
            "megatron.step_disagrees",
            cat("expected the same step for all parameters, as Megatron's optimizer keeps one, found ",
                *target.step, " and ", step))
            .in_file(catalog_.path)
            .in_tensor(h.logical_name);
      target.step = step;
    });
    if (!target.step && catalog_.iteration) target.step = static_cast<double>(*catalog_.iteration);
    if (!target.step) notes_.push_back("nothing tells the optimizer's step: it is written as 0");
  }

  void name_folder(TargetCheckpoint& target) {
    const double step = target.step.value_or(0);
    if (!target.iteration && target.has_optimizer && step > 0 && step < 1e15 && step == std::floor(step)) {
      target.iteration = static_cast<int64_t>(step);
      notes_.push_back(cat("the iteration is the optimizer's step, ", *target.iteration));
    }
    const std::string name = target.iteration ? iteration_folder_name(*target.iteration) : "release";
    const std::string tracker = target.iteration ? cat(*target.iteration) : "release";
    target.folder = name + "/";
    layout_.files.front().size = static_cast<int64_t>(tracker.size());
    layout_.files.front().fixed.front().bytes = Bytes(tracker.begin(), tracker.end());
  }

  void say(const TargetCheckpoint& target) {
    note_what_is_made(target);
    if (!target.is_distributed || !target.has_optimizer || mesh_.is_as(catalog_.mesh)) return;
    if (target.bucket_size(0) > 0)
      notes_.push_back(cat("gradient buckets are of ", target.bucket_size(0),
                           " elements: a run that loads it needs the same --ddp-bucket-size"));
  }

  const Catalog& catalog_;
  const SourceState source_;
  const TargetMesh mesh_;
  TargetLayout layout_;
  std::optional<RankParts> parts_;
  std::vector<std::string> notes_;
};

}  // namespace

void note_what_is_made(const TargetCheckpoint& target) {
  if (!target.has_optimizer) target.notes.push_back("the input has no optimizer states: none are written");
  if (target.has_optimizer && target.source.groups().empty())
    target.notes.push_back(
        "the optimizer's groups and the schedule of the learning rate are made with Megatron's usual "
        "options: "
        "load it with --override-opt_param-scheduler");
  if (target.source.empty())
    target.notes.push_back(
        "args are made from what the input says of its model: load it with your own arguments");
  const bool has_rng = static_cast<bool>(target.source.rng(0, 0, 0, 0).value);
  if (!has_rng && target.iteration)
    target.notes.push_back("the input has no random states of Megatron: load it with --no-load-rng");
  if (has_rng && !target.mesh.is_as(target.catalog.mesh))
    target.notes.push_back("random states are those of the nearest rank of the input's mesh");
}

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  return Layouter(catalog, request).run();
}

}  // namespace uckpt::megatron
