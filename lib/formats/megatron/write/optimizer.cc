// The optimizer's entry in model_optim_rng.pt: the options of its groups, and of an optimizer that is not
// distributed all its states.
#include <algorithm>
#include <cmath>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/source_objects.h"
#include "lib/formats/megatron/write/target.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

constexpr std::string_view kKind = "is_expert_parallel";

// Megatron's usual two groups: matrices, and what has one dim, which no weight decay shrinks.
bool decays(const Held& h) { return h.shape.size() != 1; }

bool is_decayed(const Value& group) {
  for (const std::string_view key : {"wd_mult", "pre_wd_mult"})
    if (const Value v = entry(group, key)) return v.number().value_or(1) != 0;
  return true;
}
bool is_expert_group(const Value& group) {
  const Value v = entry(group, kKind);
  return v && v.boolean().value_or(false);
}

// One group of the target: the source's options, or none.
struct Group {
  SourceState::Found options;
  bool is_expert = false, is_decayed = true;
};

class OptimizerWriter {
 public:
  OptimizerWriter(OutputFile& file, const TargetCheckpoint& target, StateCopier& copier, size_t number)
      : file_(file), out_(file.out()), target_(target), copier_(copier), number_(number) {}

  // A list where experts have an optimizer of their own.
  void write() {
    if (!target_.has_experts) return optimizer(false);
    out_.begin_list();
    optimizer(false);
    optimizer(true);
    out_.end_list();
  }

  void groups_alone(bool of_experts) { param_groups(groups_of(of_experts), {}); }

 private:
  void optimizer(bool of_experts) {
    const std::vector<Group> groups = groups_of(of_experts);
    if (target_.is_fp32()) return torch_state(groups, of_experts);
    out_.begin_dict();
    file_.key("optimizer");
    if (target_.is_distributed) {
      out_.begin_dict();
      param_groups(groups, {});
      out_.end_dict();
    } else {
      torch_state(groups, of_experts);
    }
    if (const SourceState::Found& scaler = target_.source.grad_scaler(); scaler.value) {
      file_.key("grad_scaler");
      copier_.copy(scaler.value, *scaler.file);
    }
    if (!target_.is_distributed) masters(groups, of_experts);
    out_.end_dict();
  }

  // The source's groups of this kind; where it has none of experts, they are those of the others. Ranks must
  // have the same groups, so they are of all parameters.
  std::vector<Group> groups_of(bool of_experts) const {
    std::vector<Group> out;
    for (const bool look_for_experts : {of_experts, false}) {
      for (const SourceState::Found& g : target_.source.groups())
        if (is_expert_group(g.value) == look_for_experts &&
            (!of_experts || look_for_experts || has(true, is_decayed(g.value))))
          out.push_back({g, of_experts, is_decayed(g.value)});
      if (!out.empty() || !of_experts) break;
    }
    if (!out.empty()) return out;
    for (const bool decayed : {true, false})
      if (has(of_experts, decayed)) out.push_back({{}, of_experts, decayed});
    return out;
  }

  bool has(bool of_experts, bool decayed) const {
    for (size_t r = 0; r < target_.parts.ranks(); ++r)
      for (const Held& h : target_.parts.held(r))
        if (h.is_trained() && h.is_expert == of_experts && decays(h) == decayed) return true;
    return false;
  }

  struct Place {
    size_t rank;
    const Held* held;
  };
  // The parameters of this file in each group: by chunk, in order of registration.
  std::vector<std::vector<Place>> places(const std::vector<Group>& groups, bool of_experts) const {
    std::vector<std::vector<Place>> out(groups.size());
    for (int64_t v = 0; v < target_.mesh.vp; ++v) {
      const size_t rank = target_.rank_of(number_, v);
      for (const Held& h : target_.parts.held(rank)) {
        if (!h.is_trained() || h.is_expert != of_experts) continue;
        const auto fits = [&](const Group& g) { return g.is_decayed == decays(h); };
        if (std::ranges::count_if(groups, fits) != 1)
          throw refused(
              "megatron.groups",
              "the optimizer's groups tell its parameters by more than whether their weights decay, "
              "and nothing says which has it")
              .in_file(target_.catalog.path)
              .in_tensor(h.logical_name);
        out[static_cast<size_t>(std::ranges::find_if(groups, fits) - groups.begin())].push_back({rank, &h});
      }
    }
    return out;
  }

  // As torch's optimizers say it; numbers count through the groups.
  void torch_state(const std::vector<Group>& groups, bool of_experts) {
    const auto list = places(groups, of_experts);
    std::vector<size_t> sizes;
    out_.begin_dict();
    file_.key("state");
    out_.begin_dict();
    int64_t index = 0;
    for (const auto& group : list) {
      sizes.push_back(group.size());
      for (const Place& p : group) {
        out_.integer(index++);
        state(p);
      }
    }
    out_.end_dict();
    param_groups(groups, sizes);
    out_.end_dict();
  }

  void state(const Place& p) {
    out_.begin_dict();
    if (keeps_parameter_steps()) {
      file_.key("step");
      file_.scalar(static_cast<float>(target_.step.value_or(0)));
    }
    for (const auto& [name, index] : p.held->states) {
      file_.key(name);
      file_.tensor(target_.parts.hole(p.rank, index, DType::kF32, false), p.held->shape);
    }
    out_.end_dict();
  }

  void masters(const std::vector<Group>& groups, bool of_experts) {
    file_.key("fp32_from_fp16_params");
    out_.begin_list();
    for (const auto& group : places(groups, of_experts)) {
      out_.begin_list();
      for (const Place& p : group)
        if (p.held->dtype != DType::kF32)
          file_.tensor(
              target_.parts.hole(p.rank, *p.held->trained_weight(), DType::kF32, !p.held->master.has_value()),
              p.held->shape);
      out_.end_list();
    }
    out_.end_list();
  }

  bool keeps_parameter_steps() const {
    return target_.source.groups().empty() || target_.source.has_parameter_steps();
  }

  // `sizes`: how many parameters each has here; empty where they are not listed.
  void param_groups(const std::vector<Group>& groups, const std::vector<size_t>& sizes) {
    file_.key("param_groups");
    out_.begin_list();
    int64_t next = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
      out_.begin_dict();
      options(groups[g]);
      if (!sizes.empty()) {
        file_.key("params");
        out_.begin_list();
        for (size_t i = 0; i < sizes[g]; ++i) out_.integer(next++);
        out_.end_list();
      }
      out_.end_dict();
    }
    out_.end_list();
  }

  // The source's, in their order; which parameters a group has, and the step, are the target's.
  void options(const Group& group) {
    const Value& from = group.options.value;
    if (!from) defaults(group);
    bool has_kind = false, has_step = false;
    for (size_t i = 0; from && i < from.size(); ++i) {
      const auto [key, value] = from.entry(i);
      const std::string_view name = key.text().value_or("");
      if (name == "params") continue;
      has_kind |= name == kKind;
      has_step |= name == "step";
      if (name == kKind) {
        file_.flag(kKind, group.is_expert);
      } else if (name == "step") {
        write_step(value.real().has_value());
      } else {
        out_.copy(key);
        copier_.copy(value, *group.options.file);
      }
    }
    if (!has_kind && (!from || group.is_expert)) file_.flag(kKind, group.is_expert);
    if (!has_step && (target_.is_distributed || !keeps_parameter_steps())) write_step(false);
  }

  // Apex and Transformer Engine count in whole numbers; torch's step was a float.
  void write_step(bool as_real) {
    const double step = target_.step.value_or(0);
    as_real || step != std::floor(step) ? file_.entry("step", step)
                                        : file_.entry("step", static_cast<int64_t>(step));
  }

  // As megatron-core 0.16 makes them, with the numbers that the source has.
  void defaults(const Group& group) {
    const OptimizerNumbers& n = target_.numbers;
    file_.flag("default_config", true);
    file_.entry("wd_mult", group.is_decayed ? 1.0 : 0.0);
    file_.entry("lr_mult", 1.0);
    file_.flag("is_decoupled_lr", false);
    file_.entry("max_lr", n.lr);
    file_.entry("min_lr", n.min_lr);
    file_.entry("lr", n.lr);
    file_.flag("bias_correction", true);
    file_.key("betas");
    out_.begin_tuple(2);
    out_.real(n.beta1);
    out_.real(n.beta2);
    out_.end_tuple();
    file_.entry("eps", n.eps);
    file_.entry("weight_decay", group.is_decayed ? n.weight_decay : 0.0);
  }

  OutputFile& file_;
  pickle::Pickler& out_;
  const TargetCheckpoint& target_;
  StateCopier& copier_;
  const size_t number_;
};

}  // namespace

OptimizerNumbers optimizer_numbers(const Catalog& catalog) {
  OptimizerNumbers out;
  const deepspeed::SourceObjects other(catalog);
  const Value groups = other.param_groups();
  const Value first = groups && groups.is_sequence() && groups.size() > 0 ? groups.at(0) : Value();
  const auto setting = [&](std::string_view name) -> std::optional<double> {
    const auto at = catalog.settings.find(name);
    if (at == catalog.settings.end()) return std::nullopt;
    if (const auto* r = std::get_if<double>(&at->second)) return *r;
    if (const auto* n = std::get_if<int64_t>(&at->second)) return static_cast<double>(*n);
    return std::nullopt;
  };
  const auto take = [&](double& number, std::string_view argument, const Value& value) {
    if (const auto said = value ? value.number() : setting(argument)) number = *said;
  };
  const Value betas = entry(first, "betas");
  const bool has_betas = betas && betas.is_sequence() && betas.size() == 2;
  take(out.lr, "lr", entry(first, "lr"));
  take(out.min_lr, "min_lr", entry(first, "min_lr"));
  take(out.beta1, "adam_beta1", has_betas ? betas.at(0) : Value());
  take(out.beta2, "adam_beta2", has_betas ? betas.at(1) : Value());
  take(out.eps, "adam_eps", entry(first, "eps"));
  take(out.weight_decay, "weight_decay", entry(first, "weight_decay"));
  return out;
}

void write_optimizer(OutputFile& out, const TargetCheckpoint& target, StateCopier& copier, size_t file) {
  OptimizerWriter(out, target, copier, file).write();
}

void write_param_groups(OutputFile& out, const TargetCheckpoint& target, StateCopier& copier,
                        bool of_experts) {
  OptimizerWriter(out, target, copier, 0).groups_alone(of_experts);
}

void write_scheduler(OutputFile& out, const TargetCheckpoint& target) {
  const OptimizerNumbers& n = target.numbers;
  const auto batch = target.catalog.arguments.find("global_batch_size");
  const int64_t samples = batch == target.catalog.arguments.end() ? 1 : batch->second;
  pickle::Pickler& p = out.out();
  p.begin_dict();
  out.entry("max_lr", n.lr);
  out.entry("lr_warmup_steps", int64_t{0});
  out.entry("num_steps", target.iteration.value_or(0) * samples);
  out.key("lr_decay_style");
  p.text("constant");
  out.entry("lr_decay_steps", std::max<int64_t>(1, target.iteration.value_or(0) * samples));
  out.entry("min_lr", n.min_lr);
  out.entry("start_wd", n.weight_decay);
  out.entry("end_wd", n.weight_decay);
  out.key("wd_incr_style");
  p.text("constant");
  out.entry("wd_incr_steps", std::max<int64_t>(1, target.iteration.value_or(0) * samples));
  p.end_dict();
}

}  // namespace uckpt::megatron
