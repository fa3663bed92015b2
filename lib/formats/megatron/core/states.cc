#include "lib/formats/megatron/core/states.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/formats/megatron/core/buckets.h"
#include "lib/formats/megatron/core/unstacked.h"
#include "lib/formats/megatron/remainders.h"
#include "lib/formats/megatron/rounding.h"
#include "lib/formats/torch/guards.h"
#include "lib/formats/torch/name_walk.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

// For messages where a weight is not what its master rounds to.
constexpr std::string_view kModuleWeight = "module weight";
constexpr std::string_view kShiftedStates =
    "module weight (megatron-core 0.16 writes shifted optimizer states where there are several buckets of "
    "gradients and the sharding is fully_reshardable)";

// The place of an element in the file of the piece that has it, of those whose axes are the tensor's dims.
struct ElementPlace {
  const Piece* piece;
  int64_t offset;     // bytes
  int64_t following;  // elements back to back from there on, this one too
};
std::optional<ElementPlace> find_element(const Catalog& catalog, PieceRange range,
                                         std::span<const int64_t> at, DType dtype) {
  for (const Piece& piece : catalog.pieces_of(range)) {
    const std::span<const Axis> axes = catalog.axes_of(piece);
    ElementPlace out{&piece, piece.offset, 1};
    bool has = axes.size() == at.size();
    for (size_t d = 0; has && d < axes.size(); ++d) {
      const int64_t in_box = at[d] - axes[d].start;
      has = in_box >= 0 && in_box < axes[d].extent;
      out.offset += in_box * axes[d].stride * item_size(dtype);
      if (d + 1 == axes.size() && axes[d].stride == 1) out.following = axes[d].extent - in_box;
    }
    if (has) return out;
  }
  return std::nullopt;
}

class States {
 public:
  States(const CoreSource& source, dcp::CatalogBuilder& builder, Catalog& catalog)
      : source_(source),
        builder_(builder),
        catalog_(catalog),
        style_(style_of(source)),
        model_(source.saved.stored, style_, source.is_plain) {}

  void run() {
    const dcp::Stored& stored = source_.saved.stored;
    for (size_t t = 0; t < stored.tensors.size(); ++t)
      refusals_.push_back(builder_.refusal_of(stored.tensors[t], source_.saved.items[t]));
    for (const Logical& t : model_.all()) {
      if (t.state == state::kParam || t.state == state::kBuffer) continue;
      states_of_[t.name].push_back(&t);
      (t.state == state::kMaster ? masters_ : trained_).insert(t.name);
    }
    read_buckets();
    read_group_steps();
    for (const Logical& t : model_.all()) {
      if (t.state == state::kParam) add_parameter(t);
      if (t.state == state::kBuffer) add_whole(t, t.state);
    }
    // What no weight belongs to.
    for (const auto& [name, list] : states_of_)
      if (!done_.contains(name))
        for (const Logical* t : list) add_whole(*t, t->state);
    for (const size_t t : others_)
      builder_.add_tensor(stored.tensors[t], source_.saved.items[t], std::string(state::kOther),
                          stored.tensors[t].key);
  }

 private:
  static NameStyle style_of(const CoreSource& source) {
    NameStyle style = NameStyle::of(source.common.arguments);
    // Keys of torch's are the modules' own; and nothing tells where there are no arguments.
    style.transformer_engine |= source.is_plain || source.common.arguments.empty();
    return style;
  }

  std::string refusal_of(const Logical& t) const {
    for (const StoredPart& part : t.parts)
      if (!refusals_[part.stored].empty()) return refusals_[part.stored];
    return "";
  }

  Tensor& enter(std::string_view state, const std::string& name, DType dtype, const Shape& shape,
                std::string layout) {
    Tensor& out = catalog_.tensors.emplace_back();
    out.state = state;
    out.name = name;
    out.dtype = dtype;
    out.shape = shape;
    out.layout = std::move(layout);
    out.pieces = {catalog_.piece_mark(), 0};
    return out;
  }

  void add_whole(const Logical& t, std::string_view state) {
    Tensor& out = enter(state, t.name, t.dtype, t.shape, t.layout);
    out.refusal = refusal_of(t);
    if (out.refusal.empty()) add_pieces(t, out.pieces);
  }

  void add_pieces(const Logical& t, PieceRange& range) {
    const uint32_t mark = catalog_.piece_mark();
    model_.add_pieces(t, builder_, catalog_, source_.saved.items);
    range = catalog_.pieces_since(mark);
  }

  // The weight, its master, and all states of it.
  void add_parameter(const Logical& t) {
    const auto list = states_of_.find(t.name);
    const auto fragments = fragments_.find(t.name);
    const bool has_master = masters_.contains(t.name), is_trained = trained_.contains(t.name);
    std::optional<size_t> master;
    if (list != states_of_.end())
      for (const Logical* s : list->second) {
        if (s->state == state::kMaster) master = catalog_.tensors.size();
        add_whole(*s, s->state);
      }
    if (fragments != fragments_.end())
      for (const std::string& state : bucket_states_) {
        if (state == state::kMaster) master = catalog_.tensors.size();
        add_from_buckets(t, state, fragments->second);
      }
    if (!has_master && !master) {
      const bool is_master = is_trained && t.dtype == DType::kF32;
      add_whole(t, is_master ? state::kMaster : state::kParam);
    } else if (master) {
      Tensor& weight = catalog_.tensors[*master];
      std::string refusal = refusal_of(t);
      if (weight.shape != t.shape) {
        refusal = cat("its weight has the shape ", shape_text(t.shape));
      } else if (refusal.empty()) {
        PieceRange range;
        add_pieces(t, range);
        weight.copies.insert(weight.copies.begin(), {range, t.dtype, true, std::string(module_weight())});
      }
      if (weight.refusal.empty()) weight.refusal = std::move(refusal);
    }
    if (master || is_trained) add_step(t.name);
    done_.insert(t.name);
  }

  // The sharding that is known to go wrong has names, so its states are not from buckets.
  std::string_view module_weight() const {
    const bool may_be_shifted = source_.common.sharding == "fully_reshardable" && buckets_.empty();
    return may_be_shifted ? kShiftedStates : kModuleWeight;
  }

  void add_step(const std::string& name) {
    const auto& step = source_.common.steps.of(is_expert(name) && source_.mesh.ep > 1);
    if (!step) return;
    Tensor& out = enter(state::kStep, name, step->dtype, step->shape, "one number");
    const uint32_t mark = catalog_.piece_mark();
    catalog_.add_literal(step->span(), 1);
    out.pieces = catalog_.pieces_since(mark);
  }

  void add_from_buckets(const Logical& t, const std::string& state,
                        const std::vector<BucketFragment>& fragments) {
    const DType dtype = buckets_.at(fragments.front().bucket).states.begin()->second.dtype;
    const size_t at = catalog_.tensors.size();
    enter(state, t.name, dtype, t.shape,
          cat("in ", fragments.size(), fragments.size() == 1 ? " bucket" : " buckets"));
    uint32_t mark = catalog_.piece_mark();
    for (const BucketFragment& f : fragments)
      if (f.replica.empty()) add_fragment(catalog_, f, buckets_, state, t.shape);
    catalog_.tensors[at].pieces = catalog_.pieces_since(mark);
    add_replicas(catalog_.tensors[at], t, state, fragments);
  }

  // Fragments of one set of ranks after another; together each set is the whole.
  void add_replicas(Tensor& tensor, const Logical& t, const std::string& state,
                    const std::vector<BucketFragment>& fragments) {
    std::map<std::string, std::vector<const BucketFragment*>> sets;
    for (const BucketFragment& f : fragments)
      if (!f.replica.empty()) sets[f.replica].push_back(&f);
    for (const auto& [what, set] : sets) {
      const uint32_t mark = catalog_.piece_mark();
      for (const BucketFragment* f : set) add_fragment(catalog_, *f, buckets_, state, t.shape);
      tensor.copies.push_back({catalog_.pieces_since(mark), tensor.dtype, false, what});
    }
  }

  // Buckets among what the model's keys do not explain.
  void read_buckets() {
    const dcp::Stored& stored = source_.saved.stored;
    std::set<std::string> states;
    for (const size_t t : model_.others()) {
      const dcp::StoredTensor& tensor = stored.tensors[t];
      const auto key = parse_bucket_key(tensor.key);
      if (!key || tensor.shape.size() != 1 || !refusals_[t].empty()) {
        others_.push_back(t);
        continue;
      }
      FlatBucket& bucket = buckets_[{key->optimizer, key->group, key->buffer, key->bucket}];
      FlatArray& array = bucket.states[key->state];
      if (!array.runs.empty() || (bucket.numel != 0 && bucket.numel != tensor.shape[0]))
        throw refused("megatron.buckets",
                      cat("expected a bucket of ", bucket.numel, " elements, found ", tensor.shape[0]))
            .in_tensor(tensor.key);
      bucket.numel = array.numel = tensor.shape[0];
      array.dtype = tensor.dtype;
      states.insert(key->state);
      const bool is_first = bucket.cuts.empty();
      for (size_t c = 0; c < tensor.chunks.size(); ++c) {
        const dcp::Chunk& chunk = tensor.chunks[c];
        dcp::ItemTensor& item = source_.saved.items[t][c];
        if (item.stride()[0] != 1 && chunk.sizes[0] > 1)
          throw refused("megatron.buckets", "expected a bucket back to back, found strides")
              .in_tensor(tensor.key);
        const auto place = builder_.place(chunk.item.file, item);
        array.runs.push_back({place.file, place.record, place.offset, place.flags, chunk.offsets[0],
                              chunk.offsets[0] + chunk.sizes[0]});
        if (is_first) bucket.cuts.push_back(chunk.offsets[0]);
      }
      std::ranges::sort(array.runs, {}, &FlatRun::begin);
      std::ranges::sort(bucket.cuts);
    }
    if (buckets_.empty()) read_coalesced(states);
    if (buckets_.empty()) return;
    leave_remainders(states);
    for (const auto& [place, bucket] : buckets_)
      for (const std::string& state : states) {
        const auto at = bucket.states.find(state);
        if (at == bucket.states.end() || at->second.dtype != bucket.states.begin()->second.dtype)
          return refuse_buckets(cat("expected every bucket with the state ", escape(state),
                                    " and of one type, found one without"));
      }
    bucket_states_.assign(states.begin(), states.end());
    try {
      Placement placed =
          place_in_buckets(model_, buckets_, source_.common.arguments, source_.mesh, style_,
                           [&](const Fragments& fragments) { return agree_with_weights(fragments); });
      fragments_ = std::move(placed.fragments);
      if (!placed.guessed.empty()) warn_of_guess(placed.guessed);
    } catch (const Error& e) {
      return refuse_buckets(cat(e.message(), " (--dist-ckpt-optim-fully-reshardable saves names)"));
    }
    for (const auto& [name, list] : fragments_) trained_.insert(name);
  }

  // Masters of a type of their own: the moments can be had without.
  void leave_remainders(std::set<std::string>& states) {
    const std::string master(state::kMaster);
    const auto has_remainders = [&](const auto& bucket) {
      const auto at = bucket.second.states.find(master);
      return at != bucket.second.states.end() && at->second.dtype == DType::kI16;
    };
    if (!std::ranges::all_of(buckets_, has_remainders)) return;
    for (auto& [place, bucket] : buckets_) bucket.states.erase(master);
    states.erase(master);
    catalog_.tensors.push_back(refused_remainders());
  }

  // For all of them; the weights can be had without.
  void refuse_buckets(const std::string& why) {
    int64_t numel = 0;
    for (const auto& [place, bucket] : buckets_) numel += bucket.numel;
    enter(state::kOther, "optimizer.distributed", buckets_.begin()->second.states.begin()->second.dtype,
          {numel}, cat("in ", buckets_.size(), buckets_.size() == 1 ? " bucket" : " buckets"))
        .refusal = cat(why, ": --states param writes the weights alone");
    buckets_.clear();
  }

  void warn_of_guess(const std::string& name) {
    catalog_.warnings.push_back(
        cat("the optimizer's buckets have no names, and where ", escape(name),
            " is registered among the parameters is not known: they are taken in an order that fills the "
            "buckets and in which the states round to the weights"));
  }

  // Looks at a few elements of one fragment of each parameter: enough to tell parameters apart.
  bool agree_with_weights(const Fragments& fragments) {
    if (std::ranges::find(bucket_states_, state::kMaster) == bucket_states_.end()) return false;
    for (const Logical& t : model_.all()) {
      if (t.state != state::kParam || !refusal_of(t).empty()) continue;
      const auto list = fragments.find(t.name);
      if (list == fragments.end()) continue;
      Catalog scratch;
      const BucketFragment& fragment = list->second.front();
      add_fragment(scratch, fragment, buckets_, std::string(state::kMaster), t.shape);
      const PieceRange masters = scratch.pieces_since(0);
      model_.add_pieces(t, builder_, scratch, source_.saved.items);
      const PieceRange weights = scratch.pieces_since(masters.count);
      const DType dtype = buckets_.at(fragment.bucket).states.at(std::string(state::kMaster)).dtype;
      if (masters.count > 0 && !is_rounded(scratch, scratch.pieces[0], dtype, weights, t.dtype)) return false;
    }
    return true;
  }

  // The beginning of a master's piece, against the weight.
  bool is_rounded(const Catalog& scratch, const Piece& master, DType master_dtype, PieceRange weights,
                  DType weight_dtype) const {
    constexpr int64_t kMost = 16;
    Shape at;
    for (const Axis& axis : scratch.axes_of(master)) at.push_back(axis.start);
    const auto weight = find_element(scratch, weights, at, weight_dtype);
    if (!weight || master.flags != kPlain || weight->piece->flags != kPlain) return true;
    const Axis last = at.empty() ? Axis{1, 0, 1, 1} : scratch.axes_of(master).back();
    const int64_t numel = std::min({kMost, last.stride == 1 ? last.extent : 1, weight->following});
    const auto wide = sample(*catalog_.files[master.file], master.offset, master_dtype, numel);
    const auto narrow = sample(*catalog_.files[weight->piece->file], weight->offset, weight_dtype, numel);
    for (size_t i = 0; wide && narrow && i < wide->size(); ++i)
      if (!is_rounding((*narrow)[i], (*wide)[i], weight_dtype)) return false;
    return true;
  }

  // With `dp_zero_gather_scatter` each group keeps what else is distrib_optim.pt in an object: {buffer:
  // {(types): {state: flat tensor, "numel_unpadded": n}}}.
  void read_coalesced(std::set<std::string>& states) {
    for (const dcp::StoredBytes& b : source_.saved.stored.bytes) {
      const auto key = parse_group_key(b.key);
      if (!key || key->name != "param_state") continue;
      const dcp::ItemObject item = dcp::open_object(*source_.saved.files, b, source_.options);
      if (!item.file) continue;
      Value root = item.file->root();
      if (root.is_sequence() && root.size() == 1) root = root.at(0);
      try {
        if (!root.is_dict() || !root.get("buckets_coalesced"))
          throw refused("megatron.param_state",
                        "expected the coalesced buffers of a distributed optimizer, found others");
        for (int64_t buffer = 0; const Value types = root.get_int(buffer); ++buffer) {
          if (!types.is_dict() || types.size() != 1)
            throw refused("megatron.param_state", "expected one pair of types in each buffer");
          add_coalesced(*item.file, b, {key->optimizer, key->group, buffer, 0}, types.entry(0).second,
                        states);
        }
      } catch (Error& e) {
        throw e.in_file(item.source->name()).in_tensor(b.key);
      }
    }
  }

  void add_coalesced(const torch::TorchFile& file, const dcp::StoredBytes& stored, const BucketPlace& at,
                     const Value& arrays, std::set<std::string>& states) {
    FlatBucket& bucket = buckets_[at];
    bucket.is_coalesced = true;
    for (size_t i = 0; arrays.is_dict() && i < arrays.size(); ++i) {
      const auto [name, value] = arrays.entry(i);
      const auto info = file.tensor(value);
      if (!name.text() || !info || info->shape.size() != 1) continue;
      const bool fits =
          info->refusal.empty() && info->contiguous() && (bucket.numel == 0 || bucket.numel == info->numel());
      if (!fits) throw refused("megatron.param_state", "expected flat tensors of one size in each buffer");
      dcp::ItemTensor item;
      item.offset = stored.item.offset + info->offset;
      dcp::ItemForm form{{}, info->flags};
      if (info->record != kNoRecord && file.records()[info->record].crc) {
        const torch::FileRecord& record = file.records()[info->record];
        item.record_crc = *record.crc;
        form.record_name = record.name;
        form.record_before = info->offset - record.offset;
        form.record_size = record.size;
      }
      item.form = std::make_shared<const dcp::ItemForm>(std::move(form));
      // Arrays may share a record.
      const std::pair at_record(stored.item.file, item.is_checked() ? item.record_offset() : int64_t{-1});
      if (const auto known = numbers_.find(at_record); known != numbers_.end()) item.number = known->second;
      const auto place = builder_.place(stored.item.file, item);
      numbers_.emplace(at_record, place.record);
      const std::string state = state_of(*name.text());
      bucket.numel = info->numel();
      bucket.states[state] = {info->dtype,
                              info->numel(),
                              {{place.file, place.record, place.offset, place.flags, 0, info->numel()}}};
      states.insert(state);
    }
  }

  // With `dp_reshardable` each group of ranks keeps its options in an object.
  void read_group_steps() {
    Steps& steps = source_.common.steps;
    if (steps.dense || buckets_.empty()) return;
    std::set<int64_t> seen;
    for (const dcp::StoredBytes& b : source_.saved.stored.bytes) {
      const auto key = parse_group_key(b.key);
      if (!key || key->name != "optimizer" || !seen.insert(key->optimizer).second) continue;
      const dcp::ItemObject item = dcp::open_object(*source_.saved.files, b, source_.options);
      if (!item.file) continue;
      Value root = item.file->root();
      if (root.is_sequence() && root.size() == 1) root = root.at(0);
      steps.take(*item.file, item.source, root);
    }
  }

  const CoreSource& source_;
  dcp::CatalogBuilder& builder_;
  Catalog& catalog_;
  const NameStyle style_;
  Unstacked model_;
  std::vector<std::string> refusals_;  // of stored tensors
  std::map<std::string, std::vector<const Logical*>> states_of_;
  std::set<std::string> masters_, trained_, done_;
  std::map<std::pair<uint32_t, int64_t>, uint32_t> numbers_;  // of records, by file and where they begin
  BucketMap buckets_;
  Fragments fragments_;
  std::vector<std::string> bucket_states_;
  std::vector<size_t> others_;  // stored tensors
};

}  // namespace

void add_states(const CoreSource& source, dcp::CatalogBuilder& builder, Catalog& catalog) {
  States(source, builder, catalog).run();
}

void add_common(const Common& common, const OpenOptions& options, dcp::CatalogBuilder& builder,
                Catalog& catalog) {
  merge_globals(catalog.globals, common.file->globals());
  if (common.file->refusal()) builder.refuse(Error(*common.file->refusal()).in_file(common.bytes->name()));
  const auto registered = common.file->register_with(catalog, common.bytes);
  const auto is_leaf = [&](const Value& value) { return common.file->tensor(value).has_value(); };
  constexpr size_t kMost = 1 << 20;
  size_t count = 0;
  torch::walk_names(common.file->root(), is_leaf, [&](const torch::NamedLeaf& leaf) {
    const torch::TensorInfo info = *common.file->tensor(leaf.value);
    Tensor& tensor = catalog.tensors.emplace_back();
    tensor.state = state::kOther;
    tensor.name = cat("common.pt.", leaf.name);
    tensor.dtype = info.dtype;
    tensor.shape = info.shape;
    tensor.layout = "inside common.pt";
    tensor.refusal =
        info.refusal.empty() ? torch::expansion_refusal(info, options.allow_expand) : info.refusal;
    const uint32_t mark = catalog.piece_mark();
    if (tensor.refusal.empty())
      catalog.add_whole(registered.file, registered.record_of(info), info.offset, info.shape, info.stride,
                        info.flags);
    tensor.pieces = catalog.pieces_since(mark);
    return ++count < kMost;
  });
  const torch::FileRecord pickle = common.file->pickle_record();
  Object object{"common.pt", "", registered.file, pickle.offset, pickle.size, kNoRecord};
  for (size_t r = 0; r < common.file->records().size(); ++r)
    if (common.file->records()[r].offset == pickle.offset) object.record = registered.records[r];
  if (object.record == kNoRecord && pickle.crc) {
    object.record = catalog.add_record(registered.file, pickle.offset, pickle.size, *pickle.crc, pickle.name);
  }
  try {
    if (options.want_objects) object.json = common.file->json();
  } catch (Error& e) {
    builder.refuse(e.in_file(common.bytes->name()));
  }
  catalog.objects.push_back(std::move(object));
}

}  // namespace uckpt::megatron
