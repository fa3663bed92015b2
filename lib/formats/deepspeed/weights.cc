#include "lib/formats/deepspeed/weights.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/shapes.h"

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
    for (const auto& weight : weights_.fused) builder_.guard([&] { add_fused(weight.first, weight.second); });
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

  // A weight of AutoEP, one row of which lies in each expert's file. Files that are not there are named
  // elsewhere.
  void add_fused(const std::string& name, const std::vector<ExpertRow>& rows) {
    const int64_t experts = layer_of(checkpoint_.fused(), name)->experts;
    if (static_cast<int64_t>(rows.size()) != experts) return;
    const torch::TensorInfo& first = *rows.front().info;
    Shape shape = first.shape;
    shape.insert(shape.begin(), experts);
    for (size_t i = 0; i < rows.size(); ++i) {
      const torch::TensorInfo& info = *rows[i].info;
      if (rows[i].expert != static_cast<int64_t>(i) || info.shape != first.shape ||
          info.dtype != first.dtype || !info.refusal.empty() || !info.contiguous())
        throw refused("deepspeed.experts", cat("expected experts that are alike, found another expert ", i))
            .in_file(rows[i].source->bytes()->name())
            .in_tensor(name);
    }
    const auto add_rows = [&]() -> std::optional<std::string> {
      for (const ExpertRow& r : rows) {
        const int64_t n = r.info->numel();
        builder_.flat(*r.source, {r.info->offset, n, r.info->record, r.info->dtype, r.info->flags},
                      numel_of(shape), r.expert * n, n);
      }
      return std::nullopt;
    };
    const auto master = builder_.find(state::kMaster, name);
    if (!master) {
      const bool is_master = first.dtype == DType::kF32 && trained_.contains(name);
      return builder_.put(
          {is_master ? state::kMaster : state::kParam, name, first.dtype, shape, "experts", {}}, add_rows);
    }
    const Tensor& tensor = builder_.catalog.tensors[*master];
    if (!compare_ || !tensor.refusal.empty()) return;
    if (tensor.shape != shape)
      throw refused("deepspeed.mixed_runs", cat("expected experts of shape ", shape_text(tensor.shape),
                                                " as their master, found ", shape_text(shape)))
          .in_file(rows.front().source->bytes()->name())
          .in_tensor(name);
    builder_.add_copy(*master, first.dtype, true, "module weights in the files of experts", add_rows);
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

// AutoEP registers its router under the name of the one that it replaces, too. Where experts are saved that
// is a copy, and the list of shared parameters does not have modules that stand twice in another.
void find_second_routers(const std::vector<FusedExperts>& layers, const std::vector<NamedTensor>& module,
                         Weights& out) {
  constexpr std::string_view kExperts = "experts", kRouter = "router.";
  if (layers.empty()) return;
  std::map<std::string, std::string_view> names;
  for (const NamedTensor& t : module) names.emplace(t.name, t.name);
  for (const FusedExperts& layer : layers) {
    if (!layer.prefix.ends_with(kExperts)) continue;
    const std::string path = layer.prefix.substr(0, layer.prefix.size() - kExperts.size());
    for (auto it = names.lower_bound(path); it != names.end() && it->first.starts_with(path); ++it) {
      const size_t dot = it->first.find('.', path.size());
      if (dot == std::string::npos || it->first.compare(path.size(), kRouter.size(), kRouter) == 0) continue;
      const auto router = names.find(cat(path, kRouter, it->first.substr(dot + 1)));
      if (router != names.end()) out.shared.emplace(it->second, router->second);
    }
  }
}

}  // namespace

Weights collect_weights(Builder& builder, Checkpoint& checkpoint) {
  Weights out;
  const std::vector<FusedExperts>& fused = checkpoint.fused();
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
    find_second_routers(fused, file->module, out);
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
    for (const NamedTensor& t : f->tensors) {
      if (const auto row = fused_row(fused, t.name))
        out.fused[row->weight].push_back({row->expert, &t.info, &f->source});
      else
        out.all.push_back({t.name, &t.info, &f->source, &f->file, std::nullopt});
    }
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

}  // namespace uckpt::deepspeed
