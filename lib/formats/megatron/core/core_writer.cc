#include "lib/formats/megatron/core/core_writer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/dcp/lost_state.h"
#include "lib/formats/dcp/write/chunks.h"
#include "lib/formats/dcp/write/data_files.h"
#include "lib/formats/dcp/write/metadata_pickle.h"
#include "lib/formats/megatron/core/names.h"
#include "lib/formats/megatron/core/stacks.h"
#include "lib/formats/megatron/folder.h"
#include "lib/formats/megatron/write/target.h"
#include "lib/formats/torch/sizes.h"
#include "lib/pickle/machine.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

constexpr std::string_view kMetadataJson =
    "{\"sharded_backend\": \"torch_dist\", \"sharded_backend_version\": 1, \"common_backend\": \"torch\", "
    "\"common_backend_version\": 1}";

// Tensors are whole here, whatever the ranks hold.
WriteRequest whole_of(const WriteRequest& request) {
  WriteRequest out = request;
  out.shards = nullptr;
  return out;
}

class CoreWriter {
 public:
  CoreWriter(const Catalog& catalog, const WriteRequest& request)
      : catalog_(catalog),
        source_(catalog),
        mesh_(target_mesh(catalog, request.mesh)),
        parts_(catalog, whole_of(request), source_, mesh_.ep, layout_, false),
        target_(catalog, source_, mesh_, parts_, notes_),
        shards_(request.shards.get()),
        style_(style_of()),
        loads_({static_cast<int64_t>(mesh_.files.size()), 1}),
        files_(request.shard_size) {
    if (source_.empty()) dcp::tell_lost_state(catalog, request.tensors, notes_);
  }

  TargetLayout run() {
    target_.format = "torch_dist";
    target_.numbers = optimizer_numbers(catalog_);
    read_shards();
    settle();
    add_model();
    add_extra_states();
    add_rng_states();
    add_text_file(layout_, std::string(kTracker), target_.iteration ? cat(*target_.iteration) : "release");
    add_text_file(layout_, target_.folder + "metadata.json", kMetadataJson);
    add_common();
    const size_t first = layout_.files.size();
    const std::vector<dcp::ItemRange> places = std::move(files_).lay_out(layout_);
    Bytes metadata = dcp::metadata_pickle(tensors_, objects_, places, layout_.files, false);
    for (size_t f = first; f < layout_.files.size(); ++f)
      layout_.files[f].name = target_.folder + layout_.files[f].name;
    add_fixed_file(layout_, target_.folder + ".metadata", std::move(metadata));
    note_what_is_made(target_);
    std::set<std::string> seen;
    for (std::string& note : notes_)
      if (seen.insert(note).second) layout_.notes.push_back(std::move(note));
    return std::move(layout_);
  }

 private:
  const std::vector<Held>& held() const { return parts_.held(0); }

  NameStyle style_of() const {
    NameStyle style = NameStyle::of(source_.args());
    if (!source_.empty()) return style;
    for (const Held& h : held()) {
      style.transformer_engine |= h.name.find("linear_qkv.layer_norm_") != std::string::npos;
      style.grouped_experts |= h.name.find(".experts.linear_fc") != std::string::npos;
    }
    return style;
  }

  // What the ranks' rules say: padded sizes, and which layers the stages have.
  void read_shards() {
    int64_t layers = 0;
    for (const Held& h : held()) {
      std::vector<int64_t> numbers;
      if (template_of(h.name, &numbers).starts_with("decoder.layers.#") && !numbers.empty())
        layers = std::max(layers, numbers[0] + 1);
    }
    std::map<std::pair<int64_t, int64_t>, std::set<std::string>> found;
    for (size_t r = 0; shards_ && r < shards_->ranks.size(); ++r) {
      const RankShards& rank = shards_->ranks[r];
      const auto at = [&](std::string_view axis) {
        const auto place = rank.at.find(axis);
        return place == rank.at.end() ? int64_t{0} : place->second;
      };
      for (const Shard& s : rank.shards) {
        if (s.factor != 1 || s.summand != 0)
          throw refused("megatron.value",
                        "a rule changes its value, which Megatron-core's checkpoints do not")
              .in_file(catalog_.path)
              .in_tensor(s.logical_name);
        if (s.full_shape != catalog_.tensors[s.tensor].shape && !s.is_number)
          padded_.emplace(s.tensor, s.full_shape);
        constexpr std::string_view kLayers = "decoder.layers.";
        if (s.name.starts_with(kLayers))
          found[{at("pp"), at("vp")}].insert(
              s.name.substr(kLayers.size(), s.name.find('.', kLayers.size()) - kLayers.size()));
      }
    }
    target_.layers.assign(static_cast<size_t>(mesh_.pp),
                          std::vector<int64_t>(static_cast<size_t>(mesh_.vp), 0));
    const int64_t chunks = mesh_.pp * mesh_.vp;
    for (int64_t p = 0; p < mesh_.pp; ++p)
      for (int64_t v = 0; v < mesh_.vp; ++v) {
        int64_t& count = target_.layers[static_cast<size_t>(p)][static_cast<size_t>(v)];
        const int64_t chunk = v * mesh_.pp + p;
        count = shards_ ? static_cast<int64_t>(found[{p, v}].size())
                        : layers / chunks + (chunk < layers % chunks ? 1 : 0);
      }
  }

  void settle() {
    std::map<DType, int64_t> counts;
    std::set<double> steps;
    for (const Held& h : held()) {
      target_.has_optimizer |= !h.states.empty();
      target_.has_experts |= h.is_expert && h.is_trained();
      if (!h.buffer) ++counts[h.dtype];
      const Shape& shape = full_shape(parts_.shard(0, h.weight()).tensor);
      if (h.name.ends_with("word_embeddings.weight") && !shape.empty()) target_.padded_vocab = shape[0];
      const auto step = h.numbers.find(state::kStep);
      if (h.is_trained() && step != h.numbers.end()) steps.insert(parts_.number(step->second));
    }
    int64_t most = 0;
    for (const auto& [dtype, count] : counts)
      if (count > most) most = count, target_.params_dtype = dtype;
    target_.is_distributed =
        source_.empty() ||
        source_.args().truth("use_distributed_optimizer").value_or(!source_.has_parameter_steps());
    if (steps.size() > 1)
      throw refused(
          "megatron.step_disagrees",
          cat("expected the same step for all parameters, as Megatron's optimizer keeps one, found ",
              *steps.begin(), " and ", *steps.rbegin()))
          .in_file(catalog_.path);
    if (!steps.empty()) target_.step = *steps.begin();
    if (!target_.step && catalog_.iteration) target_.step = static_cast<double>(*catalog_.iteration);
    const double step = target_.step.value_or(0);
    if (!target_.iteration && target_.has_optimizer && step > 0 && step < 1e15 && step == std::floor(step)) {
      target_.iteration = static_cast<int64_t>(step);
      notes_.push_back(cat("the iteration is the optimizer's step, ", *target_.iteration));
    }
    target_.folder = (target_.iteration ? iteration_folder_name(*target_.iteration) : "release") + "/";
  }

  const Shape& full_shape(uint32_t tensor) const {
    const auto at = padded_.find(tensor);
    return at == padded_.end() ? catalog_.tensors[tensor].shape : at->second;
  }

  // An item that is one value; `write` writes it.
  template <class Write>
  uint32_t add_item(int64_t bytes, const Write& write) {
    TargetLayout item;
    OutputFile file(item, "archive.pt");
    write(file);
    file.finish();
    item.files.front().name.clear();
    return files_.add(loads_.choose({}, bytes), std::move(item));
  }

  Hole padded_hole(uint32_t tensor, const Shape& full, DType dtype, bool is_copy) {
    const Shape& own = catalog_.tensors[tensor].shape;
    if (full.size() != own.size())
      throw refused("megatron.padding",
                    cat("expected padding of its dims, found ", shape_text(full), " for ", shape_text(own)))
          .in_tensor(catalog_.tensors[tensor].name);
    const auto [at, is_new] =
        padded_shards_.try_emplace(tensor, static_cast<uint32_t>(layout_.shards.size()));
    if (is_new) {
      layout_.shards.push_back(
          {tensor, numel_of(full), static_cast<uint32_t>(layout_.pieces.size()), 1, true});
      layout_.pieces.push_back(
          {0, static_cast<uint32_t>(layout_.axes.size()), static_cast<uint8_t>(own.size())});
      const Shape strides = torch::row_major(full);
      for (size_t d = 0; d < own.size(); ++d) layout_.axes.push_back({own[d], 0, own[d], strides[d]});
    }
    return {at->second, 0, 0, 0, numel_of(full), dtype, is_copy};
  }

  // All of a tensor, with padding; `axes` leading dims of one element before its own.
  uint32_t add_tensor_item(size_t index, DType dtype, bool is_copy, size_t axes) {
    const uint32_t tensor = parts_.shard(0, index).tensor;
    const Shape& full = full_shape(tensor);
    const Hole hole = full == catalog_.tensors[tensor].shape ? parts_.hole(0, index, dtype, is_copy)
                                                             : padded_hole(tensor, full, dtype, is_copy);
    Shape shape(axes, 1);
    shape.insert(shape.end(), full.begin(), full.end());
    return add_item(hole.bytes(), [&](OutputFile& file) { file.tensor(hole, shape); });
  }

  void add_model() {
    stacks_ = stacks_of(held(), style_, source_.args_value());
    for (const Stack& stack : stacks_) {
      const Held& first = *stack.members.front().held;
      const bool has_states = target_.has_optimizer && first.is_trained();
      const bool has_master = has_states && (target_.is_distributed || first.dtype != DType::kF32);
      add_stack(
          stack, "", [](const Held& h) { return std::optional(h.weight()); },
          [](const Held& h) { return h.dtype; }, has_master);
      if (!has_states) continue;
      if (has_master)
        add_stack(
            stack, target_.is_distributed ? "optimizer.state.param." : "optimizer.state.fp32_param.",
            [](const Held& h) { return h.trained_weight(); }, [](const Held&) { return DType::kF32; }, false);
      for (const auto& [state, index] : stack.members.front().held->states)
        add_stack(
            stack, cat("optimizer.state.", state, "."),
            [&state = state](const Held& h) {
              const auto at = h.states.find(state);
              return at == h.states.end() ? std::nullopt : std::optional(at->second);
            },
            [](const Held&) { return DType::kF32; }, false);
    }
  }

  // `master_follows`: a stack of the weights that the optimizer keeps is written, too.
  template <class Index, class Type>
  void add_stack(const Stack& stack, const std::string& prefix, const Index& index_of, const Type& dtype_of,
                 bool master_follows) {
    const size_t axes = stack.sizes.size();
    dcp::WrittenTensor out;
    out.key = prefix + stack.key;
    for (const Stack::Member& m : stack.members) {
      const auto index = index_of(*m.held);
      if (!index)
        throw refused("megatron.no_state", cat("the other layers have ", out.key, ", this one lacks it"))
            .in_file(catalog_.path)
            .in_tensor(m.held->logical_name);
      const Shape& own = full_shape(parts_.shard(0, *index).tensor);
      const DType dtype = dtype_of(*m.held);
      if (out.items.empty()) {
        out.dtype = dtype;
        out.shape = stack.sizes;
        out.shape.insert(out.shape.end(), own.begin(), own.end());
      }
      Shape offsets = m.numbers, sizes(axes, 1);
      offsets.resize(out.shape.size(), 0);
      sizes.insert(sizes.end(), own.begin(), own.end());
      const bool is_copy = master_follows && m.held->trained_weight() == *index;
      out.boxes.push_back(offsets, sizes);
      out.items.push_back(add_tensor_item(*index, dtype, is_copy, axes));
    }
    tensors_.push_back(std::move(out));
  }

  // Loaders ask for the extra state of each linear layer: what the source has, else None.
  void add_extra_states() {
    std::map<std::string, const Object*> own;
    for (const Object& o : catalog_.objects)
      if (o.size > 0 && o.origin.find("._extra_state/shard_") != std::string::npos) own.emplace(o.origin, &o);
    std::set<std::string> done;
    for (const Stack& stack : stacks_)
      for (const Stack::Member& m : stack.members) {
        const std::string module = module_with_extra_state(stack.key);
        if (module.empty()) continue;
        const std::string key = object_key(cat(module, "._extra_state"), m.numbers, stack.sizes);
        if (!done.insert(key).second) continue;
        const auto at = own.find(key);
        at != own.end() ? copy_object(key, *at->second) : add_extra_state(key, *m.held);
        if (at != own.end()) own.erase(at);
      }
    // Of modules without parameters, and of those that fuse several.
    for (const auto& [key, object] : own) copy_object(key, *object);
  }

  static std::string module_with_extra_state(std::string_view key) {
    const size_t dot = key.rfind('.');
    if (dot == std::string_view::npos || !key.substr(dot + 1).starts_with("weight")) return "";
    const std::string_view module = key.substr(0, dot);
    return module.substr(module.rfind('.') + 1).starts_with("linear_") ? std::string(module) : "";
  }

  static std::string object_key(const std::string& key, const std::vector<int64_t>& numbers,
                                const Shape& sizes) {
    const auto dotted = [](const std::vector<int64_t>& list, int64_t none) {
      std::string out;
      for (const int64_t n : list) out += cat(out.empty() ? "" : ".", n);
      return list.empty() ? cat(none) : out;
    };
    return cat(key, "/shard_", dotted(numbers, 0), "_", dotted(sizes, 1));
  }

  void add_extra_state(const std::string& key, const Held& h) {
    std::vector<int64_t> numbers;
    const std::string name = cat(h.logical_name.substr(0, h.logical_name.rfind('.')), "._extra_state");
    const std::string shape = template_of(name, &numbers);
    const SourceFile* from = nullptr;
    const Value value = source_.extra_state(shape, numbers, 0, &from);
    add_object(key, [&](OutputFile& file) {
      value ? StateCopier(file, parts_, notes_).copy(value, *from) : file.out().none();
    });
  }

  void copy_object(const std::string& key, const Object& object) {
    documents_.push_back(
        pickle::parse_whole(catalog_.files[object.file]->read_range(object.offset, object.size), {}));
    SourceFile from;
    from.origin = object.origin;
    const Value root = documents_.back()->root();
    const uint32_t item =
        add_item(0, [&](OutputFile& file) { StateCopier(file, parts_, notes_).copy(root, from); });
    objects_.push_back({key, {}, item});
  }

  // Each is a list around the value.
  template <class Write>
  void add_object(const std::string& key, const Write& write) {
    const uint32_t item = add_item(0, [&](OutputFile& file) {
      file.out().begin_list();
      write(file);
      file.out().end_list();
    });
    objects_.push_back({key, {}, item});
  }

  // With experts each data parallel rank has states of its own in newer versions, which ask for these alone.
  void add_rng_states() {
    const int64_t ranks = mesh_.ep > 1 ? mesh_.dp * mesh_.cp : 0;
    for (int64_t p = 0; p < mesh_.pp; ++p)
      for (int64_t t = 0; t < mesh_.tp; ++t) {
        const std::string place = cat(p, ".", t), sizes = cat(mesh_.pp, ".", mesh_.tp);
        add_rng_state(cat(place, "_", sizes), source_.rng(t, p, 0, 0));
        for (int64_t d = 0; d < ranks; ++d)
          add_rng_state(cat(place, ".", d, "_", sizes, ".", ranks),
                        source_.rng(t, p, (t + mesh_.tp * d) / mesh_.etp % mesh_.ep, d));
      }
  }

  void add_rng_state(const std::string& shard, const SourceState::Found& found) {
    if (!found.value) return;
    add_object(cat("rng_state/shard_", shard),
               [&](OutputFile& file) { StateCopier(file, parts_, notes_).copy(found.value, *found.file); });
  }

  void add_common() {
    OutputFile file(layout_, target_.folder + "common.pt");
    pickle::Pickler& out = file.out();
    out.begin_dict();
    StateCopier copier(file, parts_, notes_);
    file.key("args");
    write_args(file, target_, copier);
    file.entry("checkpoint_version", 3.0);
    file.entry("iteration", target_.iteration.value_or(0));
    if (target_.has_optimizer) {
      file.key("optimizer");
      write_optimizers(file, copier);
    }
    bool has_scheduler = false;
    const SourceFile& from = source_.common();
    for (size_t i = 0; from.root && from.root.is_dict() && i < from.root.size(); ++i) {
      const auto [key, value] = from.root.entry(i);
      const std::string name(key.text().value_or(""));
      if (is_own(name)) continue;
      has_scheduler |= name == "opt_param_scheduler" || name == "lr_scheduler";
      out.copy(key);
      copier.copy(value, from);
    }
    if (target_.has_optimizer && !has_scheduler) {
      file.key("opt_param_scheduler");
      write_scheduler(file, target_);
    }
    file.key("content_metadata");
    write_content(file);
    out.end_dict();
    file.finish();
  }

  static bool is_own(const std::string& name) {
    static constexpr std::string_view kOwn[] = {
        "args",      "checkpoint_version", "iteration",          "optimizer",
        "rng_state", "content_metadata",   "rerun_state_machine"};
    return std::ranges::find(kOwn, name) != std::end(kOwn) || name.starts_with("model");
  }

  void write_optimizers(OutputFile& file, StateCopier& copier) {
    if (!target_.has_experts) return write_one(file, copier, false);
    file.out().begin_dict();
    for (const int64_t i : {0, 1}) {
      file.out().integer(i);
      write_one(file, copier, i == 1);
    }
    file.out().end_dict();
  }

  void write_one(OutputFile& file, StateCopier& copier, bool of_experts) {
    pickle::Pickler& out = file.out();
    const auto torch_state = [&] {
      out.begin_dict();
      if (!target_.is_distributed) {
        file.key("state");
        out.begin_dict();
        file.key("common_step");
        file.scalar(static_cast<float>(target_.step.value_or(0)));
        out.end_dict();
      }
      write_param_groups(file, target_, copier, of_experts);
      out.end_dict();
    };
    if (target_.is_fp32()) return torch_state();
    out.begin_dict();
    file.key("optimizer");
    torch_state();
    if (const SourceState::Found& scaler = source_.grad_scaler(); scaler.value) {
      file.key("grad_scaler");
      copier.copy(scaler.value, *scaler.file);
    }
    if (target_.is_distributed) {
      file.key("param_state_sharding_type");
      out.text("fully_reshardable");
    }
    out.end_dict();
  }

  void write_content(OutputFile& file) {
    pickle::Pickler& out = file.out();
    out.begin_dict();
    if (target_.is_distributed) {
      file.key("distrib_optim_sharding_type");
      out.text("fully_reshardable");
      file.flag("distrib_optim_fully_reshardable_mem_efficient", false);
    }
    file.flag("singleton_local_shards", false);
    file.flag("chained_optim_avoid_prefix", true);
    if (std::ranges::any_of(stacks_, &Stack::is_apart)) file.flag("non_homogeneous_layers", true);
    out.end_dict();
  }

  const Catalog& catalog_;
  TargetLayout layout_;
  std::vector<std::string> notes_;
  const SourceState source_;
  const TargetMesh mesh_;
  RankParts parts_;
  TargetCheckpoint target_;
  const Shards* shards_;
  const NameStyle style_;
  dcp::RankLoads loads_;
  dcp::DataFileBook files_;
  std::map<uint32_t, Shape> padded_;            // full shapes, by tensor
  std::map<uint32_t, uint32_t> padded_shards_;  // of the layout, by tensor
  std::vector<Stack> stacks_;
  std::vector<dcp::WrittenTensor> tensors_;
  std::vector<dcp::WrittenObject> objects_;
  std::vector<std::unique_ptr<pickle::Document>> documents_;
};

}  // namespace

TargetLayout lay_out_core(const Catalog& catalog, const WriteRequest& request) {
  return CoreWriter(catalog, request).run();
}

}  // namespace uckpt::megatron
