#include "lib/formats/deepspeed/weights.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/zero_padded.h"

namespace uckpt::deepspeed {

namespace {

// Names in param_shapes of layers that a pipeline uses more than once, by the name inside the layer's file.
using TiedNames = std::unordered_map<std::string_view, std::vector<std::string_view>>;

TiedNames tied_names(const Catalog& catalog) {
  TiedNames out;
  for (const Tensor& t : catalog.tensors) {
    const std::string_view name = t.name;
    if ((t.state != state::kMaster && t.state != state::kParam) || !name.starts_with(kTiedModules)) continue;
    const size_t dot = name.find('.', kTiedModules.size());
    if (dot != name.npos) out[name.substr(dot + 1)].push_back(name);
  }
  return out;
}

bool has_shape(const Builder& builder, std::string_view name, const Shape& shape) {
  const auto tensor = builder.find_weight(name);
  return tensor &&
         builder.vocabulary.logical(std::string(name), shape) == builder.catalog.tensors[*tensor].shape;
}

// The key of the tied module that this layer file is, if only one can be: it has all its names and shapes.
std::optional<std::string> tied_prefix(const Builder& builder, const WeightFile& file,
                                       const TiedNames& tied) {
  std::optional<std::set<std::string>> keys;
  for (const NamedTensor& t : file.tensors) {
    std::set<std::string> own;
    const auto it = tied.find(t.name);
    if (it == tied.end()) return std::nullopt;
    for (const std::string_view name : it->second) {
      if (has_shape(builder, name, t.info.shape)) own.emplace(name.substr(0, name.size() - t.name.size()));
    }
    if (!keys) {
      keys = std::move(own);
    } else {
      std::erase_if(*keys, [&](const std::string& key) { return !own.contains(key); });
    }
  }
  return keys && keys->size() == 1 ? std::optional(*keys->begin()) : std::nullopt;
}

void collect_layer(Builder& builder, WeightFile& file, const TiedNames& tied, Weights& out) {
  const std::string own = cat(file.file.layer, ".");
  const bool named = std::any_of(file.tensors.begin(), file.tensors.end(), [&](const NamedTensor& t) {
    const std::string name = own + t.name;
    return builder.find_weight(name) || out.is_buffer(name);
  });
  std::optional<std::string> prefix;
  if (!named) prefix = tied_prefix(builder, file, tied);
  for (const NamedTensor& t : file.tensors) {
    out.all.push_back({prefix.value_or(own) + t.name, &t.info, &file.source, &file.file, std::nullopt});
  }
}

using Memory = std::tuple<std::string_view, int64_t, DType, Shape, Shape>;

// Weights of one file that are one and the same memory.
void find_same(std::vector<Weight>& all, size_t first) {
  std::map<Memory, size_t> seen;
  for (size_t i = first; i < all.size(); ++i) {
    const torch::TensorInfo& info = *all[i].info;
    if (!info.refusal.empty() || info.storage_key.empty() || info.numel() == 0) continue;
    const auto [it, fresh] =
        seen.emplace(Memory{info.storage_key, info.storage_offset, info.dtype, info.shape, info.stride}, i);
    if (!fresh) all[i].same_as = it->second;
  }
}

// A parameter of stage 3 is saved as an empty tensor. Each has an empty storage of its own, so that names
// with one storage are names of one parameter; a name without data is that of the only one with data among
// them.
void find_same_placeholders(const Builder& builder, std::vector<Weight>& all, size_t first) {
  std::map<std::string_view, std::vector<size_t>> with_data;  // by storage
  const auto is_placeholder = [](const Weight& w) {
    return w.info->numel() == 0 && w.info->refusal.empty() && !w.info->storage_key.empty();
  };
  for (size_t i = first; i < all.size(); ++i)
    if (is_placeholder(all[i]) && builder.find_weight(all[i].name))
      with_data[all[i].info->storage_key].push_back(i);
  for (size_t i = first; i < all.size(); ++i) {
    if (!is_placeholder(all[i]) || builder.find_weight(all[i].name)) continue;
    const auto found = with_data.find(all[i].info->storage_key);
    if (found != with_data.end() && found->second.size() == 1) all[i].same_as = found->second.front();
  }
}

std::string dtypes_of(const Weights& weights) {
  std::map<DType, size_t> counts;
  for (const Weight& w : weights.all) {
    if (!weights.is_buffer(w.name)) ++counts[w.info->dtype];
  }
  std::vector<std::pair<size_t, DType>> sorted;
  for (const auto& [dtype, n] : counts) sorted.emplace_back(n, dtype);
  std::sort(sorted.rbegin(), sorted.rend());
  std::string out;
  for (const auto& [n, dtype] : sorted) out += cat(out.empty() ? "" : ", ", name_of(dtype));
  return out;
}

// Adds weights one by one; second names wait until all firsts are there.
class WeightAdder {
 public:
  WeightAdder(Builder& builder, Checkpoint& checkpoint, const Weights& weights,
              const std::unordered_set<std::string>& trained, bool compare)
      : builder_(builder), checkpoint_(checkpoint), weights_(weights), trained_(trained), compare_(compare) {
    for (const ModelFile& f : checkpoint.models) {
      if (!f.frozen_shapes) continue;
      for (const Param& p : *f.frozen_shapes) frozen_.insert(p.name);
    }
  }

  void run() {
    for (const Weight& w : weights_.all) builder_.guard([&] { add(w); });
    for (const Weight* w : aliases_) builder_.guard([&] { add_alias(*w); });
    if (without_data_.empty()) return;
    builder_.catalog.warnings.push_back(
        cat(without_data_.size(),
            " parameters have no data in this checkpoint, as where frozen ones were left out when it was "
            "saved: ",
            escape(without_data_.front(), 100), without_data_.size() > 1 ? ", …" : ""));
  }

 private:
  void add(const Weight& w) {
    const bool empty_placeholder = checkpoint_.stage == 3 && w.info->numel() == 0;
    if (weights_.is_buffer(w.name)) return put(w, state::kBuffer);
    if (const auto master = builder_.find(state::kMaster, w.name)) {
      if (!empty_placeholder && compare_) add_module_copy(w, *master);
      return;
    }
    if (weights_.shared.contains(w.name) || w.same_as) {
      aliases_.push_back(&w);
      return;
    }
    if (empty_placeholder) {
      if (!frozen_.contains(w.name) && !builder_.find_weight(w.name)) without_data_.push_back(w.name);
      return;
    }
    const bool is_master = w.info->dtype == DType::kF32 && trained_.contains(w.name);
    put(w, is_master ? state::kMaster : state::kParam);
  }

  std::string replica_of(const Weight& w) const { return cat("replica in ", w.file->name); }

  void put(const Weight& w, std::string_view state) {
    const bool tied_to_earlier =
        state == state::kBuffer && w.same_as && weights_.is_buffer(weights_.all[*w.same_as].name);
    if (tied_to_earlier) {
      aliases_.push_back(&w);
      return;
    }
    const Shape shape =
        state == state::kBuffer ? w.info->shape : builder_.vocabulary.logical(w.name, w.info->shape);
    const std::string replica = replica_of(w);
    const NewTensor tensor{state, w.name, w.info->dtype, shape, "whole", replica};
    if (const std::string why = builder_.refusal_of(*w.info); !why.empty())
      return builder_.put_refused(tensor, why);
    builder_.put(tensor, [&]() -> std::optional<std::string> {
      builder_.whole(*w.source, *w.info, shape);
      return std::nullopt;
    });
  }

  void add_module_copy(const Weight& w, uint32_t master) {
    if (const std::string why = builder_.refusal_of(*w.info); !why.empty()) {
      builder_.catalog.warnings.push_back(
          cat("the module weight ", escape(w.name), " is not compared with its master: ", why));
      return;
    }
    const Tensor& tensor = builder_.catalog.tensors[master];
    if (!tensor.refusal.empty()) return;
    if (builder_.vocabulary.logical(w.name, w.info->shape) != tensor.shape) {
      throw refused("deepspeed.mixed_runs", cat("expected a weight of shape ", shape_text(tensor.shape),
                                                " as its master, found ", shape_text(w.info->shape)))
          .in_file(w.source->bytes()->name())
          .in_tensor(w.name);
    }
    const Shape shape = tensor.shape;
    const bool module_only = w.file->role == Role::kModel || w.file->role == Role::kZeroModel;
    builder_.add_copy(master, w.info->dtype, true,
                      module_only ? "module weight" : cat("module weight in ", w.file->name),
                      [&] { builder_.whole(*w.source, *w.info, shape); });
  }

  void add_alias(const Weight& w) {
    const auto stated = weights_.shared.find(w.name);
    const std::string target(
        stated != weights_.shared.end() ? stated->second : std::string_view(weights_.all[*w.same_as].name));
    auto tensor = builder_.find_weight(target);
    // The list of buffers has each buffer of a module once, under its first name.
    if (!tensor && weights_.is_buffer(target)) tensor = builder_.find(state::kBuffer, target);
    if (!tensor || !is_tied(w, target, builder_.catalog.tensors[*tensor])) {
      if (checkpoint_.stage == 3 && w.info->numel() == 0) {
        without_data_.push_back(w.name);
      } else {
        put_plain(w);
      }
      return;
    }
    const std::string state = builder_.catalog.tensors[*tensor].state;
    builder_.add_alias(state, w.name, *tensor);
    // Tied names that were saved apart are compared too.
    const bool apart = !w.same_as && w.info->numel() > 0 && w.info->refusal.empty();
    if (!apart || !builder_.catalog.tensors[*tensor].refusal.empty()) return;
    const Shape shape = builder_.catalog.tensors[*tensor].shape;
    if (builder_.vocabulary.logical(target, w.info->shape) != shape) return;
    builder_.add_copy(*tensor, w.info->dtype, state == state::kMaster,
                      cat("tied weight ", escape(w.name, 60)),
                      [&] { builder_.whole(*w.source, *w.info, shape); });
  }

  // DeepSpeed takes parameters that begin at one address for one: so it does with all that have no elements,
  // and with one that is a view of another's beginning.
  bool is_tied(const Weight& w, const std::string& target, const Tensor& tensor) const {
    const bool is_shard = !compare_ || checkpoint_.mesh.tp > 1;
    if (is_shard || !w.info->refusal.empty()) return true;
    if (w.info->numel() == 0) return checkpoint_.stage == 3;  // where all are placeholders
    return builder_.vocabulary.logical(target, w.info->shape) == tensor.shape;
  }

  void put_plain(const Weight& w) {
    const Shape shape = w.info->shape;
    const NewTensor tensor{state::kParam, w.name, w.info->dtype, shape, "whole", {}};
    if (const std::string why = builder_.refusal_of(*w.info); !why.empty())
      return builder_.put_refused(tensor, why);
    builder_.put(tensor, [&]() -> std::optional<std::string> {
      builder_.whole(*w.source, *w.info, shape);
      return std::nullopt;
    });
  }

  Builder& builder_;
  Checkpoint& checkpoint_;
  const Weights& weights_;
  const std::unordered_set<std::string>& trained_;
  bool compare_;
  std::unordered_set<std::string_view> frozen_;
  std::vector<const Weight*> aliases_;
  std::vector<std::string> without_data_;
};

// Buffers that every rank of stage 3 holds: compared with the first one's.
void compare_rank_buffers(Builder& builder, Checkpoint& checkpoint) {
  for (ModelFile& f : checkpoint.models) {
    if (f.damage || checkpoint.reference_model(f.file.model) == &f) continue;
    if (f.file.model % checkpoint.mesh.tp != builder.tp_rank) continue;
    for (const NamedTensor& t : f.module) {
      const auto buffer = builder.find(state::kBuffer, t.name);
      if (!buffer || !t.info.refusal.empty()) continue;
      const Tensor& tensor = builder.catalog.tensors[*buffer];
      if (tensor.alias || tensor.shape != t.info.shape || tensor.dtype != t.info.dtype) continue;
      const Shape shape = tensor.shape;
      builder.add_copy(*buffer, t.info.dtype, false, cat("replica on rank ", f.file.data),
                       [&] { builder.whole(f.source, t.info, shape); });
    }
  }
}

// Frozen weights of stage 2 are saved twice; where that is not one memory, they are compared.
void compare_frozen_fragments(Builder& builder, ModelFile& file) {
  if (!file.frozen_shapes || file.fragments.size() != file.frozen_shapes->size()) return;
  for (size_t i = 0; i < file.fragments.size(); ++i) {
    const Param& p = (*file.frozen_shapes)[i];
    const Place& place = file.fragments[i];
    if (place.numel != p.numel) {
      throw refused("deepspeed.sizes",
                    cat("expected a frozen weight of ", p.numel, " elements, found ", place.numel))
          .in_file(file.source.bytes()->name())
          .in_tensor(p.name);
    }
    const auto known = builder.find(state::kParam, p.name);
    const auto add_place = [&]() -> std::optional<std::string> {
      builder.flat(file.source, place, p.numel, 0, p.numel);
      return std::nullopt;
    };
    if (!known) {
      if (!builder.find_weight(p.name)) {
        builder.put({state::kParam, p.name, place.dtype, p.shape, "whole", {}}, add_place);
      }
      continue;
    }
    const Tensor& tensor = builder.catalog.tensors[*known];
    const auto pieces = builder.catalog.pieces_of(tensor.pieces);
    const bool same_memory = pieces.size() == 1 && pieces[0].offset == place.offset;
    if (same_memory || tensor.alias || tensor.shape != p.shape || p.numel == 0) continue;
    builder.add_copy(*known, place.dtype, false, "frozen_param_fragments", [&] { add_place(); });
  }
}

}  // namespace

Weights collect_weights(Builder& builder, Checkpoint& checkpoint) {
  Weights out;
  for (const ModelFile& f : checkpoint.models) {
    for (const std::string& name : f.buffer_names) out.buffers.insert(name);
    for (const auto& [alias, name] : f.shared) out.shared.emplace(alias, name);
  }
  for (int64_t m = builder.tp_rank; m < checkpoint.model_ranks(); m += checkpoint.mesh.tp) {
    ModelFile* file = checkpoint.reference_model(m);
    if (!file) continue;
    const size_t first = out.all.size();
    for (const NamedTensor& t : file->module)
      out.all.push_back({t.name, &t.info, &file->source, &file->file, std::nullopt});
    find_same(out.all, first);
    if (checkpoint.stage == 3) find_same_placeholders(builder, out.all, first);
  }
  std::vector<WeightFile*> layers;
  for (WeightFile& f : checkpoint.layers) {
    if (!f.damage && f.file.model == builder.tp_rank) layers.push_back(&f);
  }
  std::sort(layers.begin(), layers.end(), [](auto* a, auto* b) { return a->file.layer < b->file.layer; });
  const TiedNames tied = layers.empty() ? TiedNames() : tied_names(builder.catalog);
  for (WeightFile* f : layers) {
    const size_t first = out.all.size();
    collect_layer(builder, *f, tied, out);
    find_same(out.all, first);
  }
  std::vector<WeightFile*> experts;
  for (WeightFile& f : checkpoint.experts) {
    if (!f.damage && f.file.model % checkpoint.mesh.tp == builder.tp_rank) experts.push_back(&f);
  }
  std::stable_sort(experts.begin(), experts.end(), [](auto* a, auto* b) {
    return std::tie(a->file.model, a->file.layer, a->file.expert) <
           std::tie(b->file.model, b->file.layer, b->file.expert);
  });
  for (WeightFile* f : experts) {
    const size_t first = out.all.size();
    for (const NamedTensor& t : f->tensors)
      out.all.push_back({t.name, &t.info, &f->source, &f->file, std::nullopt});
    find_same(out.all, first);
  }
  out.dtypes = dtypes_of(out);
  return out;
}

void add_weights(Builder& builder, Checkpoint& checkpoint, const Weights& weights,
                 const std::unordered_set<std::string>& trained, bool compare) {
  WeightAdder(builder, checkpoint, weights, trained, compare).run();
  if (checkpoint.stage == 3) {
    compare_rank_buffers(builder, checkpoint);
    return;
  }
  for (int64_t m = builder.tp_rank; m < checkpoint.model_ranks(); m += checkpoint.mesh.tp) {
    if (ModelFile* file = checkpoint.reference_model(m)) {
      builder.guard([&] { compare_frozen_fragments(builder, *file); });
    }
  }
}

namespace {

// The number of the first layer of which no file is here.
std::string first_gap(const std::vector<RankFile>& layers) {
  int64_t gap = 0;
  while (std::ranges::any_of(layers, [&](const RankFile& f) { return f.layer == gap; })) ++gap;
  return cat(gap);
}

// By the number of experts of each layer that the model file states.
std::set<std::string> missing_experts(const Builder& builder, const Checkpoint& checkpoint) {
  std::set<std::string> missing;
  const ModelFile* model = nullptr;
  for (const ModelFile& f : checkpoint.models)
    if (!model && !f.damage && f.experts) model = &f;
  const auto& files = checkpoint.folder.experts;
  const bool unnumbered = std::ranges::any_of(files, [](const RankFile& f) { return f.layer < 0; });
  if (!model || model->has_autoep || unnumbered) return missing;
  constexpr int64_t kMostExperts = 1 << 16;    // of one layer; more is a damaged number
  std::set<std::pair<int64_t, int64_t>> here;  // layer and expert
  for (const RankFile& f : files)
    if (f.model == builder.tp_rank) here.emplace(f.layer, f.expert);
  for (size_t layer = 0; layer < model->experts->size(); ++layer) {
    for (int64_t e = 0; e < std::min((*model->experts)[layer], kMostExperts); ++e) {
      if (here.contains({static_cast<int64_t>(layer), e})) continue;
      missing.insert(cat("layer_", layer, "_expert_", e, "_mp_rank_", zero_padded(builder.tp_rank, 2),
                         "_model_states.pt"));
    }
  }
  return missing;
}

}  // namespace

std::vector<std::string> missing_weight_files(const Builder& builder, const Checkpoint& checkpoint,
                                              const Weights& weights) {
  std::unordered_set<std::string_view> here;
  std::map<std::string, int64_t, std::less<>> moe_layers;  // name up to the expert's number -> L
  for (const Weight& w : weights.all) {
    here.insert(w.name);
    const auto at = parse_expert(w.name);
    if (at && w.file->role == Role::kExpert) moe_layers.emplace(at->layer(w.name), w.file->layer);
  }
  std::set<std::string> missing = missing_experts(builder, checkpoint);
  const std::string rank = cat(builder.tp_rank < 10 ? "0" : "", builder.tp_rank);
  const bool pipeline = !checkpoint.folder.layers.empty();
  const bool plain_tail =
      pipeline && checkpoint.folder.layers.front().name.find("-model_0") == std::string::npos;
  const auto layer_name = [&](const std::string& number) {
    return cat("layer_", number.size() == 1 ? "0" : "", number, plain_tail ? "" : "-model_" + rank,
               "-model_states.pt");
  };
  // A layer whose tied name is not known has the weights that seem to be missing.
  const bool any_unplaced = std::ranges::any_of(weights.all, [&](const Weight& w) {
    return w.file->role == Role::kLayer && !builder.find(state::kMaster, w.name) &&
           !weights.is_buffer(w.name);
  });
  for (const Tensor& t : builder.catalog.tensors) {
    if (t.state != state::kMaster || here.contains(t.name)) continue;
    if (const auto at = parse_expert(t.name); at && !checkpoint.folder.experts.empty()) {
      const auto layer = moe_layers.find(at->layer(t.name));
      const std::string l = layer == moe_layers.end() ? "?" : cat(layer->second);
      missing.insert(cat("layer_", l, "_expert_", at->number, "_mp_rank_", rank, "_model_states.pt"));
      continue;
    }
    if (pipeline && t.name.starts_with(kTiedModules) && !any_unplaced) {
      missing.insert(layer_name(first_gap(checkpoint.folder.layers)));
      continue;
    }
    const size_t dot = t.name.find('.');
    const bool numbered = dot != t.name.npos && dot > 0 && dot < 10 &&
                          std::all_of(t.name.begin(), t.name.begin() + static_cast<ptrdiff_t>(dot),
                                      [](char c) { return c >= '0' && c <= '9'; });
    if (!pipeline || !numbered) continue;
    missing.insert(layer_name(t.name.substr(0, dot)));
  }
  return {missing.begin(), missing.end()};
}

}  // namespace uckpt::deepspeed
