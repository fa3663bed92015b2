// The model files of a target: module weights, what describes the optimizer files, and the program's state.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/views.h"
#include "lib/formats/deepspeed/write/target.h"
#include "lib/formats/torch/tensor_call.h"
#include "lib/pickle/document.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

class ModelWriter {
 public:
  ModelWriter(const TargetCheckpoint& target, ModelForm form, int64_t model_rank, int64_t data_rank)
      : target_(target),
        is_cut_(form == ModelForm::kStage3),
        parameters_(target.parameters),
        rank_(data_rank),
        model_rank_(model_rank),
        origin_(target.source.model(model_rank, data_rank)),
        file_(target.book, name(target, form, model_rank, data_rank)),
        out_(file_.out()) {}

  void write() {
    find_loose_tensors();
    out_.begin_dict();
    if (origin_.root) {
      for (size_t i = 0; i < origin_.root.size(); ++i) {
        const auto [key, value] = origin_.root.entry(i);
        if (key.text() && write_own(*key.text())) continue;
        out_.copy(key);
        copy(value);
      }
    }
    for (const std::string_view key :
         {"module", "buffer_names", "optimizer", "param_shapes", "frozen_param_shapes", "shared_params",
          "frozen_param_fragments", "lr_scheduler", "data_sampler", "random_ltd", "skipped_steps",
          "global_steps", "dp_world_size", "mp_world_size", "checkpoint_parallel_dimensions",
          "universal_checkpoint_info", "ds_config", "ds_version", "num_experts"})
      write_own(key);
    out_.end_dict();
    file_.finish();
  }

 private:
  static std::string name(const TargetCheckpoint& target, ModelForm form, int64_t model_rank,
                          int64_t data_rank) {
    const std::string rank = cat("mp_rank_", model_rank < 10 ? "0" : "", model_rank, "_model_states.pt");
    return form == ModelForm::kStage3 ? cat(target.folder, "zero_pp_rank_", data_rank, "_", rank)
                                      : cat(target.folder, rank);
  }

  bool source_has(std::string_view key) const { return origin_.root && origin_.root.get(key); }

  // Entries that depend on the layout are made anew, others taken from the source where it has them. False
  // for those of the program. Each is written once.
  bool write_own(std::string_view key) {
    using Write = void (ModelWriter::*)();
    static const std::pair<std::string_view, Write> kLayout[] = {
        {"module", &ModelWriter::module},
        {"buffer_names", &ModelWriter::buffer_names},
        {"optimizer", &ModelWriter::none},
        {"param_shapes", &ModelWriter::param_shapes},
        {"frozen_param_shapes", &ModelWriter::frozen_param_shapes},
        {"shared_params", &ModelWriter::shared_params},
        {"frozen_param_fragments", &ModelWriter::frozen_param_fragments},
        {"dp_world_size", &ModelWriter::dp_world_size},
        {"mp_world_size", &ModelWriter::mp_world_size},
        {"checkpoint_parallel_dimensions", &ModelWriter::dimensions},
        {"universal_checkpoint_info", &ModelWriter::universal_info},
        {"num_experts", &ModelWriter::num_experts}};
    static const std::pair<std::string_view, Write> kDefaults[] = {
        {"lr_scheduler", &ModelWriter::none},  {"data_sampler", &ModelWriter::none},
        {"random_ltd", &ModelWriter::none},    {"skipped_steps", &ModelWriter::zero},
        {"global_steps", &ModelWriter::steps}, {"ds_version", &ModelWriter::version}};
    if (!written_.insert(std::string(key)).second) return true;
    if (key == "ds_config") {
      write_ds_config(file_, target_);
      return true;
    }
    if (key == "universal_checkpoint_info" && !describes_itself(target_, origin_.root)) return true;
    if (is_fused_list(key)) {
      out_.text(key);
      write_fused_layers(file_, target_, origin_.root.get(key));
      return true;
    }
    if (key == "num_experts" && parameters_.moe().empty() && !source_has(key)) return true;
    for (const auto& [name, write] : kLayout) {
      if (name != key) continue;
      out_.text(key);
      (this->*write)();
      return true;
    }
    for (const auto& [name, write] : kDefaults) {
      if (name != key || source_has(key)) continue;
      out_.text(key);
      (this->*write)();
      return true;
    }
    return false;
  }

  bool is_fused_list(std::string_view key) const {
    return (key == "ds_autoep_layers" || key == "autoep_layers") && !parameters_.fused().empty() &&
           origin_.root.get(key).is_sequence();
  }

  void none() { out_.none(); }
  void zero() { out_.integer(0); }
  void steps() { out_.integer(parameters_.catalog().iteration.value_or(0)); }
  void version() { out_.text(target_.ds_version); }
  void dp_world_size() { out_.integer(target_.dp); }
  void mp_world_size() { out_.integer(target_.tp * target_.pp); }
  void dimensions() {
    out_.begin_dict();
    file_.entry("pp_degree", target_.pp);
    file_.entry("tp_degree", target_.tp);
    out_.end_dict();
  }

  void universal_info() { write_universal_info(file_, target_, origin_.root); }

  // Of each MoE layer; without any, DeepSpeed says 0 in one entry.
  void num_experts() {
    if (parameters_.moe().empty()) return out_.copy(origin_.root.get("num_experts"));
    out_.begin_list();
    for (const MoeLayer& layer : parameters_.moe()) out_.integer(layer.experts);
    out_.end_list();
  }

  // Layers of a pipeline and experts have files of their own, but in a universal folder.
  bool is_here(const Named& n) const { return target_.is_universal || !parameters_.is_expert(n.name); }

  void module() {
    if (target_.stages) return out_.none();
    const Value known = source_has("module") ? origin_.root.get("module") : Value();
    const bool is_dict = known && known.is_dict();
    if (is_dict) {
      out_.begin_dict_like(known);
    } else {
      out_.begin_dict(pickle::DictType::kOrderedDict);
    }
    for (const Named& n : parameters_.all()) {
      if (!is_here(n)) continue;
      out_.text(n.key);
      weight(n);
    }
    if (is_dict && known.state()) {
      out_.state();
      out_.copy(known.state());
    }
    out_.end_dict();
  }

  void weight(const Named& n) {
    if (n.tied_to) {
      if (const auto memo = weights_.find(*n.tied_to); memo != weights_.end())
        return out_.again(memo->second);
    }
    const bool is_parameter = n.master || n.module;
    const uint32_t tensor = n.weight();
    if ((is_cut_ && is_parameter) || !target_.book.find(tensor)) {
      file_.empty_tensor(n.module_dtype);
    } else {
      file_.tensor(target_.book.whole(tensor, n.module_dtype), target_.book.part(tensor).shape);
    }
    weights_.emplace(n.name, out_.last());
  }

  // Does the source's module have the name, so that what its lists say of it is all there is to say?
  bool is_known(const Named& n) const {
    const Value known = source_has("module") ? origin_.root.get("module") : Value();
    return known && known.is_dict() && known.get(n.key);
  }

  // Further names of a buffer, where a list of the source's has them.
  void buffer_names() {
    std::vector<std::string> names = parameters_.buffers();
    const Value list = source_has("buffer_names") ? origin_.root.get("buffer_names") : Value();
    const auto is_listed = [&](const std::string& name) {
      for (size_t i = 0; i < list.size(); ++i)
        if (list.at(i).text() == std::string_view(name)) return true;
      return false;
    };
    std::erase_if(names, [&](const std::string& name) {
      const Named& n = parameters_.at(name);
      const bool is_left_out = n.tied_to && list && list.is_sequence() && is_known(n) && !is_listed(name);
      return is_left_out || !target_.holds(model_rank_, name);
    });
    file_.names(names);
  }

  void param_shapes() {
    out_.begin_list();
    if (is_cut_) {
      for (const FlatGroup& g : sub_groups(target_)) shapes_of(g);
    } else {
      for (const FlatGroup& g : flat_groups(target_, model_rank_, 0)) shapes_of(g);
    }
    out_.end_list();
  }

  void shapes_of(const FlatGroup& group) {
    std::vector<std::pair<std::string, Shape>> list;
    for (const FlatParameter& p : group.parameters) list.emplace_back(p.local_name, p.shape);
    // DeepSpeed copies the file's parts where there are experts, and so makes plain tuples of torch.Size.
    const bool has_experts = !parameters_.moe().empty() || !parameters_.fused().empty();
    file_.sizes(list, !has_experts || target_.is_universal);
  }

  // DeepSpeed lists frozen parameters from stage 2 on, and none where they are not to be saved: then a loader
  // leaves the program's own as they are, which an empty list does not let it.
  bool lists_frozen() const {
    if (target_.stage < 2 && !is_cut_) return false;
    const Value known = source_has("frozen_param_shapes") ? origin_.root.get("frozen_param_shapes") : Value();
    return !parameters_.frozen().empty() || (known && known.is_dict());
  }

  void frozen_param_shapes() {
    if (!lists_frozen()) return out_.none();
    const std::vector<std::string> frozen = parameters_.frozen();
    std::vector<std::pair<std::string, Shape>> list;
    for (const std::string& name : frozen)
      list.emplace_back(name, target_.book.part(parameters_.at(name).weight()).shape);
    file_.sizes(list);
  }

  void frozen_param_fragments() {
    if (!lists_frozen()) return out_.none();
    const std::vector<std::string> frozen = parameters_.frozen();
    out_.begin_dict(pickle::DictType::kOrderedDict);
    for (const std::string& name : frozen) {
      const Named& n = parameters_.at(name);
      out_.text(name);
      const auto seen = weights_.find(name);
      if (is_cut_) {
        fragment(n);
      } else if (seen != weights_.end()) {
        out_.again(seen->second);
      } else {
        file_.tensor(target_.book.whole(n.weight(), n.module_dtype), target_.book.part(n.weight()).shape);
      }
    }
    out_.end_dict();
  }

  void fragment(const Named& n) {
    const ShardBook::Part part = target_.book.part(n.weight());
    const int64_t share = share_of(target_, part.numel), from = std::min(part.numel, rank_ * share);
    const int64_t count = std::min(share, part.numel - from);
    Hole hole = target_.book.range(n.weight(), from, count);
    hole.dtype = n.module_dtype;
    file_.flat(n.module_dtype, share, share, count > 0 ? std::vector{hole} : std::vector<Hole>{});
  }

  // As the source has them: it leaves out modules with two names, and has parameters without elements.
  void shared_params() {
    out_.begin_dict();
    if (rank_ == 0 && model_rank_ == 0)
      for (const Named& n : parameters_.all())
        if (const auto other = shared_with(n)) out_.text(n.name), out_.text(*other);
    out_.end_dict();
  }

  std::optional<std::string> shared_with(const Named& n) const {
    const Value list = source_has("shared_params") ? origin_.root.get("shared_params") : Value();
    const bool is_list = list && list.is_dict();
    const auto other = is_list ? list.get(n.name).text() : std::nullopt;
    if (other && parameters_.has(*other)) return std::string(*other);
    return is_list && n.tied_to && is_known(n) ? std::nullopt : n.tied_to;
  }

  // Tensors of the program's own state: the reader has put them into the catalog under their paths.
  void find_loose_tensors() {
    if (!origin_.root || !origin_.root.is_dict()) return;
    static constexpr std::string_view kStructure[] = {"module", "optimizer", "param_shapes",
                                                      "frozen_param_shapes", "frozen_param_fragments"};
    walk_values(origin_.root, "", kStructure, [&](const Value& value, const std::string& path) {
      if (!torch::is_tensor_call(value)) return false;
      loose_.emplace(value.id(), path);
      return true;
    });
  }

  void copy(const Value& value) {
    out_.copy(value, [&](const Value& node, pickle::Pickler& out) {
      const auto found = loose_.find(node.id());
      if (found == loose_.end()) return false;
      auto tensor = target_.parameters.loose(origin_.of_rank, found->second);
      if (!tensor) tensor = target_.parameters.loose(origin_.file, found->second);
      if (!tensor) {
        target_.notes.push_back(
            cat("left out: the tensor ", escape(found->second), " of the program's state"));
        out.none();
        return true;
      }
      const Tensor& t = parameters_.catalog().tensors[*tensor];
      file_.tensor(target_.book.whole(*tensor, t.dtype), t.shape);
      return true;
    });
  }

  const TargetCheckpoint& target_;
  const bool is_cut_;  // over the data parallel ranks
  const Parameters& parameters_;
  int64_t rank_, model_rank_;
  SourceObjects::Origin origin_;
  OutputPickle file_;
  pickle::Pickler& out_;
  std::unordered_set<std::string> written_;
  std::unordered_map<std::string, pickle::Pickler::Memo> weights_;  // of this file, by name
  std::unordered_map<uint32_t, std::string> loose_;                 // node -> path
};

}  // namespace

void add_model_file(const TargetCheckpoint& target, ModelForm form, int64_t model_rank, int64_t data_rank) {
  ModelWriter(target, form, model_rank, data_rank).write();
}

}  // namespace uckpt::deepspeed
