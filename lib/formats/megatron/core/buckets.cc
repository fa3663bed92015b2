#include "lib/formats/megatron/core/buckets.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/megatron/grad_buffers.h"
#include "lib/formats/torch/sizes.h"

namespace uckpt::megatron {

namespace {

constexpr int64_t kAlignment = 64;
constexpr std::string_view kEmbedding = "embedding.word_embeddings.weight", kOutput = "output_layer.weight",
                           kCopy = "copy of the last pipeline stage";

// In which order the modules of the embedding, of a layer and of what follows them register their parameters:
// a module's own come before those of its children. Of layers that predict further tokens the first three.
constexpr std::string_view kOrder[] = {
    "embedding.word_embeddings.",
    "embedding.position_embeddings.",
    "embedding.tokentype_embeddings.",
    "enorm.",
    "hnorm.",
    "eh_proj.",
    "input_layernorm.",
    "self_attention.core_attention.softmax_offset",
    "self_attention.linear_proj.",
    "self_attention.linear_q_proj.",
    "self_attention.linear_q_down_proj.",
    "self_attention.linear_q_up_proj.layer_norm_",
    "self_attention.linear_q_up_proj.",
    "self_attention.linear_kv_down_proj.",
    "self_attention.linear_kv_up_proj.layer_norm_",
    "self_attention.linear_kv_up_proj.",
    "self_attention.linear_qkv.layer_norm_",
    "self_attention.linear_qkv.",
    "self_attention.q_layernorm.",
    "self_attention.k_layernorm.",
    "self_attention.kv_layernorm.",
    "pre_mlp_layernorm.",
    "mlp.router.",
    "mlp.experts.",
    "mlp.shared_experts.gate_weight",
    "mlp.shared_experts.linear_fc1.",
    "mlp.shared_experts.linear_fc2.",
    "mlp.linear_fc1.layer_norm_",
    "mlp.linear_fc1.",
    "mlp.linear_fc2.",
    "final_layernorm.",
    kOutput,
};

struct Parameter {
  const Logical* tensor;
  size_t cut_dim = 0;
  std::vector<std::pair<int64_t, int64_t>> parts;  // start and extent along that dim; one if it is not cut
  bool is_expert = false;
  int64_t expert = 0;
  std::string below;  // its name below the layer, without the expert's number
  size_t module = 0;  // of what lies behind the decoder's layers: further layers from 1 on, then the head
  size_t index = 0;   // in the order of the keys
  size_t rank = 0;    // in the usual order; past its end where that does not know it
};

// The number at `at` in a name, and where it ends.
std::optional<std::pair<int64_t, size_t>> number_at(std::string_view name, size_t at) {
  int64_t out = 0;
  const auto [end, error] = std::from_chars(name.data() + at, name.data() + name.size(), out);
  if (error != std::errc()) return std::nullopt;
  return std::pair(out, static_cast<size_t>(end - name.data()));
}

Parameter parameter_of(const Unstacked& model, const Logical& tensor) {
  Parameter out;
  out.tensor = &tensor;
  std::set<std::pair<int64_t, int64_t>> parts;
  bool is_cut = false;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    std::set<std::pair<int64_t, int64_t>> along;
    model.each_box(tensor, [&](const LogicalBox& b) { along.emplace(b.offsets[d], b.sizes[d]); });
    if (along.size() < 2) continue;
    if (is_cut)
      throw refused("megatron.buckets",
                    "its chunks are cut along two dims, which tensor parallel ranks do not do")
          .in_tensor(tensor.name);
    is_cut = true;
    out.cut_dim = d;
    parts = std::move(along);
  }
  out.parts.assign(parts.begin(), parts.end());
  if (!is_cut) out.parts.assign(1, {0, tensor.shape.empty() ? 1 : tensor.shape[0]});
  return out;
}

// A rank's fragment of a parameter that is cut over `ranks`; gated layers have two boxes a rank.
std::optional<BucketFragment> fragment_of(const Parameter& p, int64_t ranks, int64_t rank) {
  const Shape& shape = p.tensor->shape;
  const auto parts = static_cast<int64_t>(p.parts.size());
  BucketFragment out;
  std::vector<size_t> own;
  if (parts == 1)
    own = {0};
  else if (parts == ranks)
    own = {static_cast<size_t>(rank)};
  else if (parts == 2 * ranks)
    own = {static_cast<size_t>(rank), static_cast<size_t>(rank + ranks)};
  else
    return std::nullopt;
  out.shape = shape;
  if (!shape.empty()) out.shape[p.cut_dim] = 0;
  for (const size_t i : own)
    if (!shape.empty()) out.shape[p.cut_dim] += p.parts[i].second;
  const Shape strides = torch::row_major(out.shape);
  int64_t along = 0;
  for (const size_t i : own) {
    BucketFragment::Box b{{Shape(shape.size(), 0), shape}, 0};
    if (!shape.empty()) {
      b.box.offsets[p.cut_dim] = p.parts[i].first;
      b.box.sizes[p.cut_dim] = p.parts[i].second;
      b.offset = along * strides[p.cut_dim];
      along += p.parts[i].second;
    }
    out.boxes.push_back(std::move(b));
  }
  if (parts == 1 && rank > 0) out.replica = cat("replica on tensor parallel rank ", rank);
  return out;
}

struct StageChunk {
  int64_t stage, number;
  bool is_last;  // of several
};

struct Variant {
  bool usual_order, experts_in_turn;
};

class Placer {
 public:
  Placer(const Unstacked& model, const BucketMap& buckets, const Arguments& arguments,
         const Parallelism& mesh, const NameStyle& style, const Agrees& agrees)
      : buckets_(buckets),
        mesh_(mesh),
        style_(style),
        agrees_(agrees),
        has_arguments_(!arguments.empty()),
        is_tied_(arguments.tied()) {
    if (arguments.overlap_grad_reduce())
      bucket_size_ = arguments.bucket_size().value_or(default_bucket_size(mesh.dp * mesh.cp));
    for (const Logical& t : model.all())
      if (t.state == state::kParam) sort_in(parameter_of(model, t), model.all().size());
    for (const auto& [place, bucket] : buckets) optimizers_ = std::max(optimizers_, std::get<0>(place) + 1);
  }

  // An order that agrees with the weights; else the known one, where chunks show that the sizes are right.
  Placement run() {
    std::optional<Fragments> known;
    bool has_contradicted = false;
    for (const Variant& v : variants()) {
      order(v);
      auto out = place();
      if (!out) continue;
      if (agrees_(*out)) return {std::move(*out), is_known(v) ? "" : unknown()};
      has_contradicted = true;
      if (is_known(v) && !buckets_.begin()->second.is_coalesced) known = std::move(out);
    }
    if (known) return {std::move(*known), ""};
    throw refused("megatron.buckets",
                  cat("the optimizer's buckets have no names, and ",
                      has_contradicted
                          ? cat("in no order that fills them do the states round to the weights", where())
                          : cat("the parameters do not fill them, as where some are frozen: ", furthest_)));
  }

 private:
  std::vector<Variant> variants() const {
    std::vector<Variant> out;
    for (const bool usual : {true, false})
      for (const bool turn : {!style_.grouped_experts, style_.grouped_experts})
        if (!usual || unknown_.empty()) out.push_back({usual, turn});
    return out;
  }

  bool is_known(const Variant& v) const {
    return v.usual_order &&
           (experts_ == 0 || (has_arguments_ && v.experts_in_turn != style_.grouped_experts));
  }

  std::string where() const {
    return unknown_.empty()
               ? ""
               : cat(": where ", escape(unknown_), " is registered among the parameters is not known");
  }

  // One of the parameters that make an order a guess.
  const std::string& unknown() const { return unknown_.empty() ? example_ : unknown_; }

  void sort_in(Parameter p, size_t most_layers) {
    constexpr std::string_view kLayers = "decoder.layers.", kLocal = "local_experts.";
    const std::string& name = p.tensor->name;
    std::vector<Parameter>* into = name.starts_with("embedding.") ? &before_ : &behind_;
    p.below = name;
    if (name.starts_with(kLayers)) {
      const auto layer = number_at(name, kLayers.size());
      if (!layer || static_cast<size_t>(layer->first) >= most_layers)
        throw refused("megatron.layers",
                      cat("expected the number of one of at most ", most_layers, " layers"))
            .in_tensor(name);
      layers_.resize(std::max(layers_.size(), static_cast<size_t>(layer->first) + 1));
      into = &layers_[static_cast<size_t>(layer->first)];
      p.below = name.substr(std::min(name.size(), layer->second + 1));
    } else if (name.starts_with("decoder.")) {
      p.below = name.substr(8);
    } else if (into == &behind_) {
      sort_behind(p);
    }
    p.is_expert = is_expert(name);
    if (p.is_expert || example_.empty()) example_ = name;
    if (const size_t at = p.below.find(kLocal); at != std::string::npos) {
      const auto e = number_at(p.below, at + kLocal.size());
      if (e) p.expert = e->first, p.below.erase(at, e->second - at);
    } else if (p.is_expert) {
      const size_t digits = p.below.find_last_not_of("0123456789") + 1;
      if (const auto e = number_at(p.below, digits)) p.expert = e->first, p.below.erase(digits);
    }
    experts_ = std::max(experts_, p.is_expert ? p.expert + 1 : 0);
    p.rank = static_cast<size_t>(
        std::ranges::find_if(kOrder, [&](std::string_view o) { return p.below.starts_with(o); }) -
        std::begin(kOrder));
    p.index = count_++;
    if (p.rank == std::size(kOrder) && unknown_.empty()) unknown_ = name;
    into->push_back(std::move(p));
  }

  // The layers that predict further tokens wrap a decoder's.
  static void sort_behind(Parameter& p) {
    constexpr std::string_view kFurther = "mtp.layers.", kInner = "transformer_layer.";
    p.module = SIZE_MAX;
    const auto layer = p.below.starts_with(kFurther) ? number_at(p.below, kFurther.size()) : std::nullopt;
    if (!layer) return;
    p.module = static_cast<size_t>(layer->first) + 1;
    p.below.erase(0, std::min(p.below.size(), layer->second + 1));
    if (p.below.starts_with(kInner)) p.below.erase(0, kInner.size());
  }

  using Key = std::tuple<size_t, size_t, int64_t, size_t, bool, int64_t>;
  static Key usual_key(const Parameter& p, bool in_turn) {
    const size_t second = p.below.find("linear_fc2") != std::string::npos ? 1 : 0;
    return {p.module, p.rank, in_turn ? p.expert : 0, second, !p.below.ends_with("weight"), p.expert};
  }

  // As the modules register them, or as the keys come. Experts lie together: one after another, or matrix by
  // matrix.
  void order(const Variant& v) {
    for (std::vector<Parameter>& layer : layers_) order(layer, v);
    order(before_, v);
    order(behind_, v);
  }

  static void order(std::vector<Parameter>& list, const Variant& v) {
    size_t first_expert = SIZE_MAX;
    for (const Parameter& p : list)
      if (p.is_expert) first_expert = std::min(first_expert, p.index);
    std::ranges::sort(list, {}, [&](const Parameter& p) -> Key {
      if (v.usual_order) return usual_key(p, v.experts_in_turn);
      return {0, p.is_expert ? first_expert : p.index, v.experts_in_turn ? p.expert : 0, p.index, false, 0};
    });
  }

  // Stages in turn, chunk by chunk; each takes as many layers as fill its buckets.
  std::optional<Fragments> place() {
    Fragments out;
    std::vector<int64_t> dense(static_cast<size_t>(mesh_.pp), 0), expert(static_cast<size_t>(mesh_.pp), 0);
    size_t next = 0;
    for (int64_t v = 0; v < mesh_.vp; ++v) {
      for (int64_t p = 0; p < mesh_.pp; ++p) {
        const bool first = v == 0 && p == 0, last = v + 1 == mesh_.vp && p + 1 == mesh_.pp;
        std::optional<Fragments> fit;
        size_t count = 0;
        const size_t least = last ? layers_.size() - next : 0;
        for (count = least; !fit && next + count <= layers_.size(); ++count) {
          std::vector<const Parameter*> own = held(next, count, first, last);
          fit = fill(own, {p, v, last && !first}, dense[static_cast<size_t>(p)],
                     expert[static_cast<size_t>(p)]);
        }
        if (!fit) {
          furthest_ = cat("no number of layers from ", next, " on is that of virtual stage ", v,
                          " of pipeline stage ", p);
          return std::nullopt;
        }
        next += count - 1;
        for (auto& [name, list] : *fit) std::ranges::move(list, std::back_inserter(out[name]));
      }
    }
    if (next != layers_.size()) return std::nullopt;
    return out;
  }

  std::vector<const Parameter*> held(size_t first_layer, size_t layers, bool first, bool last) const {
    std::vector<const Parameter*> out;
    const auto add = [&](const std::vector<Parameter>& list) {
      for (const Parameter& p : list) out.push_back(&p);
    };
    if (first || (last && has_further())) add(before_);
    for (size_t l = first_layer; l < first_layer + layers; ++l) add(layers_[l]);
    if (last) add(behind_);
    return out;
  }

  // Layers that predict further tokens have a copy of the embedding beside them, before all else.
  bool has_further() const {
    return std::ranges::any_of(behind_,
                               [](const Parameter& p) { return p.module > 0 && p.module < SIZE_MAX; });
  }

  static bool is_copy(const Parameter& p, const StageChunk& chunk) {
    return chunk.is_last && p.tensor->name.starts_with("embedding.");
  }

  bool has_head() const {
    return std::ranges::any_of(behind_, [](const Parameter& p) { return p.tensor->name == kOutput; });
  }

  // All ranks of a stage; the numbers of the buffers of this chunk follow those before it.
  std::optional<Fragments> fill(std::vector<const Parameter*> own, StageChunk chunk, int64_t& dense,
                                int64_t& expert) const {
    const bool apart = mesh_.ep > 1;
    std::vector<const Parameter*> dense_own, expert_own;
    for (const Parameter* p : own) (apart && p->is_expert ? expert_own : dense_own).push_back(p);
    // The last stage has the table of embeddings, too, where it is the head.
    if (chunk.is_last && is_tied_ && !has_head() && !has_further())
      for (const Parameter& p : before_)
        if (p.tensor->name == kEmbedding) dense_own.push_back(&p);
    Fragments out;
    int64_t next_dense = dense, next_expert = expert;
    for (int64_t t = 0; t < mesh_.tp; ++t) {
      next_dense = dense;
      if (!fill_rank(dense_own, 0, t + mesh_.tp * chunk.stage, mesh_.tp, t, chunk, next_dense, out))
        return std::nullopt;
    }
    for (int64_t e = 0; apart && e < mesh_.ep; ++e) {
      std::vector<const Parameter*> local;
      const int64_t each = experts_ / mesh_.ep;
      for (const Parameter* p : expert_own)
        if (each > 0 && p->expert / each == e) local.push_back(p);
      for (int64_t t = 0; t < mesh_.etp; ++t) {
        next_expert = expert;
        const int64_t group = t + mesh_.etp * (e + mesh_.ep * chunk.stage);
        if (!fill_rank(local, optimizers_ - 1, group, mesh_.etp, t, chunk, next_expert, out))
          return std::nullopt;
      }
    }
    dense = next_dense, expert = next_expert;
    return out;
  }

  // One rank's buffers: one for each type of its parameters, in order of their first one.
  bool fill_rank(const std::vector<const Parameter*>& own, int64_t optimizer, int64_t group, int64_t ranks,
                 int64_t rank, StageChunk chunk, int64_t& buffer, Fragments& out) const {
    std::vector<DType> dtypes;
    for (const Parameter* p : own)
      if (std::ranges::find(dtypes, p->tensor->dtype) == dtypes.end()) dtypes.push_back(p->tensor->dtype);
    for (const DType dtype : dtypes) {
      std::vector<const Parameter*> list;
      for (const Parameter* p : own)
        if (p->tensor->dtype == dtype) list.push_back(p);
      const BucketPlace at{optimizer, group, buffer++, 0};
      const auto bucket = buckets_.find(at);
      if (bucket == buckets_.end()) return false;
      const bool fits = bucket->second.is_coalesced ? fill_coalesced(list, at, ranks, rank, chunk, out)
                                                    : fill_buffer(list, at, ranks, rank, chunk, out);
      if (!fits) return false;
    }
    return !dtypes.empty() || !buckets_.contains({optimizer, group, buffer, 0});
  }

  // The buckets are not apart, so their rule has to tell where they end.
  bool fill_coalesced(const std::vector<const Parameter*>& list, const BucketPlace& at, int64_t ranks,
                      int64_t rank, StageChunk chunk, Fragments& out) const {
    std::vector<GradParameter> parameters;
    std::vector<BucketFragment> fragments;
    for (const Parameter* p : list) {
      auto fragment = fragment_of(*p, ranks, rank);
      if (!fragment) return false;
      const bool is_shared = (is_tied_ || has_further()) && mesh_.pp > 1 && p->tensor->name == kEmbedding;
      parameters.push_back({numel_of(fragment->shape), p->tensor->dtype, false, is_shared});
      fragments.push_back(std::move(*fragment));
    }
    const BucketRule first = bucket_rule(chunk.stage, chunk.number, bucket_size_);
    std::vector<BucketRule> rules = other_rules(first, bucket_size_);
    rules.insert(rules.begin(), first);
    for (const BucketRule& rule : rules) {
      const std::vector<GradBuffer> buffers = grad_buffers(parameters, rule);
      if (buffers.size() != 1 || buffers[0].numel_unpadded != buckets_.at(at).numel) continue;
      for (const PlacedParameter& placed : buffers[0].parameters) {
        BucketFragment& fragment = fragments[placed.parameter];
        fragment.bucket = at;
        fragment.start = placed.coalesced;
        if (is_copy(*list[placed.parameter], chunk)) fragment.replica = kCopy;
        out[list[placed.parameter]->tensor->name].push_back(std::move(fragment));
      }
      return true;
    }
    return false;
  }

  bool fill_buffer(const std::vector<const Parameter*>& list, BucketPlace at, int64_t ranks, int64_t rank,
                   StageChunk chunk, Fragments& out) const {
    auto bucket = buckets_.find(at);
    int64_t position = 0;
    const auto is_full = [&] {
      return position == bucket->second.numel || round_up(position, kAlignment) == bucket->second.numel;
    };
    for (auto p = list.rbegin(); p != list.rend(); ++p) {
      if (bucket == buckets_.end()) return false;
      if (position > 0 && is_full()) {
        ++std::get<3>(at);
        bucket = buckets_.find(at);
        position = 0;
        if (bucket == buckets_.end()) return false;
      }
      auto fragment = fragment_of(**p, ranks, rank);
      if (!fragment) return false;
      const int64_t numel = numel_of(fragment->shape);
      const auto start = checked_add(position, kAlignment - 1);
      const auto end = start ? checked_add(*start / kAlignment * kAlignment, numel) : std::nullopt;
      if (!end || *end > bucket->second.numel) return false;
      fragment->start = *end - numel;
      const auto is_cut = [&](int64_t n) { return std::ranges::binary_search(bucket->second.cuts, n); };
      if (!is_cut(fragment->start) || (*end != bucket->second.numel && !is_cut(*end))) return false;
      position = *end;
      fragment->bucket = at;
      if (is_copy(**p, chunk)) fragment->replica = kCopy;
      out[(*p)->tensor->name].push_back(std::move(*fragment));
    }
    if (list.empty()) return true;
    if (bucket == buckets_.end() || !is_full()) return false;
    ++std::get<3>(at);
    return !buckets_.contains(at);
  }

  const BucketMap& buckets_;
  const Parallelism& mesh_;
  const NameStyle& style_;
  const Agrees& agrees_;
  const bool has_arguments_, is_tied_;
  int64_t optimizers_ = 1, experts_ = 0, bucket_size_ = 0;
  size_t count_ = 0;
  std::string unknown_;  // the first that is not in the usual order; empty: all are
  std::string example_;  // an expert's, if there are any: their order hangs on the run's arguments
  std::vector<Parameter> before_, behind_;
  std::vector<std::vector<Parameter>> layers_;
  std::string furthest_;
};

}  // namespace

Placement place_in_buckets(const Unstacked& model, const BucketMap& buckets, const Arguments& arguments,
                           const Parallelism& mesh, const NameStyle& style, const Agrees& agrees) {
  return Placer(model, buckets, arguments, mesh, style, agrees).run();
}

void add_fragment(Catalog& catalog, const BucketFragment& fragment, const BucketMap& buckets,
                  const std::string& state, const Shape& shape) {
  const FlatBucket& bucket = buckets.at(fragment.bucket);
  const auto array = bucket.states.find(state);
  if (array == bucket.states.end()) return;
  const std::vector<FlatRun>& runs = array->second.runs;
  const int64_t end = fragment.start + numel_of(fragment.shape);
  auto run = std::ranges::upper_bound(runs, fragment.start, {}, &FlatRun::begin);
  if (run != runs.begin()) --run;
  const Shape strides = torch::row_major(fragment.shape);
  for (; run != runs.end() && run->begin < end; ++run)
    for (const BucketFragment::Box& b : fragment.boxes)
      add_flat_box(catalog, *run, array->second.dtype, shape, b.box, strides, fragment.start + b.offset);
}

}  // namespace uckpt::megatron
