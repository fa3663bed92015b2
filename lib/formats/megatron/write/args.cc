// The training run's arguments: the source's with the target's mesh, or made from the model's settings.
#include <algorithm>
#include <functional>
#include <numeric>

#include "lib/formats/megatron/write/target.h"
#include "lib/tensor/setting_lists.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

// How many layers the ends have where the stages are uneven, in Megatron's two numbers. The stages between
// have equal parts of the rest.
struct Uneven {
  std::optional<int64_t> first, last;
  bool is_said = true;  // by these two numbers
};

std::vector<int64_t> stage_layers(const TargetCheckpoint& target) {
  std::vector<int64_t> out;
  for (const auto& chunks : target.layers) out.push_back(std::reduce(chunks.begin(), chunks.end()));
  return out;
}

Uneven uneven_stages(const TargetCheckpoint& target) {
  Uneven out;
  const std::vector<int64_t> stages = stage_layers(target);
  const auto even = [&](size_t from, size_t to) {
    return std::adjacent_find(stages.begin() + static_cast<long>(from),
                              stages.begin() + static_cast<long>(to),
                              std::not_equal_to<>()) == stages.begin() + static_cast<long>(to);
  };
  const size_t n = stages.size();
  if (n < 2 || even(0, n)) return out;
  if (even(1, n)) {
    out.first = stages.front();
  } else if (even(0, n - 1)) {
    out.last = stages.back();
  } else {
    out.first = stages.front();
    out.last = stages.back();
    out.is_said = even(1, n - 1);
  }
  return out;
}

class ArgsWriter {
 public:
  ArgsWriter(OutputFile& file, const TargetCheckpoint& target, StateCopier& copier)
      : file_(file), out_(file.out()), target_(target), copier_(copier) {
    set_mesh();
    set_stages();
  }

  void write() {
    const Value source = target_.source.args_value();
    out_.begin_object();
    out_.global("argparse", "Namespace");
    out_.begin_tuple(0);
    out_.end_tuple();
    out_.state();
    out_.begin_dict();
    if (const Value dict = source ? source.is_dict() ? source : source.state() : Value()) {
      copy(dict);
    } else {
      make();
    }
    for (const auto& [name, set] : set_)
      if (set.is_needed && !written_.contains(name)) put(name, set);
    out_.end_dict();
    out_.end_object();
  }

 private:
  struct Set {
    std::function<void(pickle::Pickler&)> value;
    bool is_needed;  // also where the source does not have it
  };

  void number(const std::string& name, int64_t value, bool is_needed = true) {
    set_[name] = {[value](pickle::Pickler& out) { out.integer(value); }, is_needed};
  }
  void none(const std::string& name, bool is_needed = false) {
    set_[name] = {[](pickle::Pickler& out) { out.none(); }, is_needed};
  }
  void optional(const std::string& name, std::optional<int64_t> value, bool is_needed) {
    value ? number(name, *value, is_needed) : none(name, false);
  }
  void flag(const std::string& name, bool value, bool is_needed) {
    set_[name] = {[value](pickle::Pickler& out) { out.boolean(value); }, is_needed};
  }
  void text(const std::string& name, std::string value) {
    set_[name] = {[value](pickle::Pickler& out) { out.text(value); }, true};
  }

  void set_mesh() {
    const TargetMesh& m = target_.mesh;
    number("tensor_model_parallel_size", m.tp);
    number("pipeline_model_parallel_size", m.pp);
    number("transformer_pipeline_model_parallel_size", m.pp, false);
    m.vp > 1 ? number("virtual_pipeline_model_parallel_size", m.vp)
             : none("virtual_pipeline_model_parallel_size", true);
    number("expert_model_parallel_size", m.ep);
    number("expert_tensor_parallel_size", m.etp, m.ep > 1 || m.etp != m.tp);
    number("context_parallel_size", m.cp, m.cp > 1);
    number("world_size", m.world());
    number("data_parallel_size", m.dp);
    if (target_.padded_vocab) number("padded_vocab_size", *target_.padded_vocab);
    text("ckpt_format", target_.format);
    flag("use_dist_ckpt", target_.format != "torch", false);
    if (target_.has_optimizer) flag("use_distributed_optimizer", target_.is_distributed, true);
    if (target_.iteration) number("iteration", *target_.iteration);
  }

  void set_stages() {
    const Uneven uneven = uneven_stages(target_);
    for (const char* name : {"decoder_first_pipeline_num_layers", "num_layers_in_first_pipeline_stage"})
      optional(name, uneven.first, true);
    for (const char* name : {"decoder_last_pipeline_num_layers", "num_layers_in_last_pipeline_stage"})
      optional(name, uneven.last, true);
    none("pipeline_model_parallel_layout");
    flag("account_for_embedding_in_pipeline_split", false, false);
    flag("account_for_loss_in_pipeline_split", false, false);
    const auto& first = target_.layers.front();
    const bool is_virtual = target_.mesh.vp > 1;
    is_virtual ? number("num_layers_per_virtual_pipeline_stage", first.front(), !uneven.first && !uneven.last)
               : none("num_layers_per_virtual_pipeline_stage");
    is_virtual ? number("num_virtual_stages_per_pipeline_rank", target_.mesh.vp, false)
               : none("num_virtual_stages_per_pipeline_rank");
  }

  void put(const std::string& name, const Set& set) {
    written_.insert(name);
    out_.text(name);
    set.value(out_);
  }

  void copy(const Value& dict) {
    for (size_t i = 0; i < dict.size(); ++i) {
      const auto [key, value] = dict.entry(i);
      const std::string name(key.text().value_or(""));
      if (const auto set = set_.find(name); set != set_.end()) {
        put(name, set->second);
        continue;
      }
      written_.insert(name);
      out_.copy(key);
      copier_.copy(value, target_.source.common());
    }
  }

  // As the settings say it, under Megatron's names.
  void make() {
    const std::vector<int64_t> stages = stage_layers(target_);
    number("num_layers", std::reduce(stages.begin(), stages.end()));
    const DType params = target_.params_dtype;
    set_["params_dtype"] = {[this, params](pickle::Pickler&) { file_.dtype(params); }, true};
    flag("bf16", params == DType::kBF16, true);
    flag("fp16", params == DType::kF16, true);
    for (const auto& [name, setting] : target_.catalog.settings) {
      if (set_.contains(name) || std::holds_alternative<std::vector<std::string>>(setting)) continue;
      if (const auto list = list_of_item(name)) {
        if (name == item_key(*list, 0) && !set_.contains(*list)) list_setting(std::string(*list));
        continue;
      }
      written_.insert(name);
      out_.text(name);
      value(setting);
    }
  }

  void list_setting(const std::string& name) {
    const std::vector<ModelSetting> items = list_items(target_.catalog.settings, name);
    written_.insert(name);
    out_.text(name);
    const bool is_tuple =
        name == "window_size";  // Megatron compares it with tuples, and asks for lists elsewhere
    is_tuple ? out_.begin_tuple(items.size()) : out_.begin_list();
    for (const ModelSetting& item : items) value(item);
    is_tuple ? out_.end_tuple() : out_.end_list();
  }

  void value(const ModelSetting& setting) {
    std::visit(
        [&](const auto& v) {
          using T = std::decay_t<decltype(v)>;
          if constexpr (std::is_same_v<T, bool>) out_.boolean(v);
          if constexpr (std::is_same_v<T, int64_t>) out_.integer(v);
          if constexpr (std::is_same_v<T, double>) out_.real(v);
          if constexpr (std::is_same_v<T, std::string>) out_.text(v);
        },
        setting);
  }

  OutputFile& file_;
  pickle::Pickler& out_;
  const TargetCheckpoint& target_;
  StateCopier& copier_;
  std::map<std::string, Set, std::less<>> set_;
  std::set<std::string, std::less<>> written_;
};

}  // namespace

void write_args(OutputFile& out, const TargetCheckpoint& target, StateCopier& copier) {
  ArgsWriter(out, target, copier).write();
}

}  // namespace uckpt::megatron
