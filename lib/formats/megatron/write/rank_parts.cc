#include "lib/formats/megatron/write/rank_parts.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/cut_shard.h"
#include "lib/formats/read_number.h"

namespace uckpt::megatron {

namespace {

// Module names of experts in all of Megatron's models (its own loaders go by it, too).
bool names_expert(std::string_view name) { return name.find(".experts.") != name.npos; }

// Where the input is whole and one rank has it all, no rules are needed.
std::shared_ptr<const Shards> one_rank(const Catalog& catalog, const WriteRequest& request) {
  auto out = std::make_shared<Shards>();
  RankShards& rank = out->ranks.emplace_back();
  for (const uint32_t index : request.tensors) {
    const Tensor& t = catalog.tensors[index];
    if (t.state == state::kOther || t.state == state::kObjects) continue;
    Shard s;
    s.tensor = t.alias.value_or(index);
    s.name = s.logical_name = t.name;
    s.shape = s.full_shape = t.shape;
    s.is_primary = true;
    s.is_number = t.state == state::kStep;
    s.order = static_cast<uint32_t>(rank.shards.size());
    s.boxes = {static_cast<uint32_t>(out->boxes.size()), 1};
    const int64_t numel = units_of(t);
    out->boxes.push_back({0, static_cast<uint32_t>(out->axes.size()), 1, true});
    out->axes.push_back({numel, 0, numel, 1});
    if (t.alias)
      for (size_t i = 0; i < rank.shards.size(); ++i)
        if (rank.shards[i].tensor == s.tensor) s.tied_to = static_cast<uint32_t>(i);
    rank.shards.push_back(std::move(s));
  }
  return out;
}

double value_of(DType dtype, const Bytes& bytes) {
  const auto as = [&]<class T>(T value) {
    std::memcpy(&value, bytes.data(), std::min(sizeof value, bytes.size()));
    return static_cast<double>(value);
  };
  switch (dtype) {
    case DType::kF32:
      return as(float{});
    case DType::kF64:
      return as(double{});
    case DType::kI64:
      return as(int64_t{});
    case DType::kI32:
      return as(int32_t{});
    default:
      return -1;
  }
}

}  // namespace

RankParts::RankParts(const Catalog& catalog, const WriteRequest& request, const SourceState& source,
                     int64_t ep, TargetLayout& layout, bool needs_order)
    : catalog_(catalog), layout_(layout), has_order_(!needs_order) {
  make_shards(request);
  held_.resize(shards_->size());
  for (size_t rank = 0; rank < held_.size(); ++rank) {
    collect(rank);
    for (Held& h : held_[rank]) {
      settle(h, rank);
      h.is_expert = ep > 1 && names_expert(h.name);
      is_any_trained_ |= h.is_trained();
    }
  }
  set_dtypes(request, source);
  find_shared();
  sort(source);
}

void RankParts::make_shards(const WriteRequest& request) {
  for (const uint32_t index : request.tensors) {
    const Tensor& t = catalog_.tensors[index];
    if (t.state == state::kOther) loose_.emplace(t.name, t.alias.value_or(index));
  }
  has_order_ |= request.shards != nullptr || catalog_.kind == "torch";
  cut_ = request.shards ? request.shards : one_rank(catalog_, request);
  shards_ = &cut_->ranks;
}

void RankParts::collect(size_t rank) {
  std::unordered_map<std::string, size_t> index;
  const auto& shards = (*shards_)[rank].shards;
  for (size_t i = 0; i < shards.size(); ++i) {
    const Shard& s = shards[i];
    const Tensor& t = catalog_.tensors[s.tensor];
    const auto [at, is_new] = index.try_emplace(s.name, held_[rank].size());
    if (is_new) {
      Held& made = held_[rank].emplace_back();
      made.name = s.name;
      made.logical_name = s.logical_name;
      made.order = {s.order};
    }
    Held& h = held_[rank][at->second];
    if (s.tied_to && is_weight(t.state)) h.tied_to = shards[*s.tied_to].name;
    if (t.state == state::kMaster) {
      h.master = i;
    } else if (t.state == state::kParam) {
      h.module = i;
    } else if (t.state == state::kBuffer) {
      h.buffer = i;
    } else if (s.is_number) {
      h.numbers[t.state] = s.tensor;
    } else {
      h.states[t.state] = i;
    }
  }
}

void RankParts::settle(Held& h, size_t rank) const {
  if (!h.master && !h.module && !h.buffer)
    throw refused("megatron.no_weight",
                  "it has optimizer states and no weight, which a Megatron checkpoint cannot hold")
        .in_file(catalog_.path)
        .in_tensor(h.logical_name);
  h.shape = shard(rank, h.weight()).shape;
  if (item_size(catalog_.tensors[shard(rank, h.weight()).tensor].dtype) == 0)
    throw refused("megatron.sub_byte", "a tensor of a type under a byte cannot be cut over ranks")
        .in_file(catalog_.path)
        .in_tensor(h.logical_name);
}

// As asked, else as a rule says, else as the module was.
void RankParts::set_dtypes(const WriteRequest& request, const SourceState& source) {
  std::unordered_map<uint32_t, DType> asked;
  for (size_t i = 0; i < request.tensors.size(); ++i)
    if (i < request.dtypes.size() && request.dtypes[i])
      asked[catalog_.tensors[request.tensors[i]].alias.value_or(request.tensors[i])] = *request.dtypes[i];
  const auto params_dtype = source.args().text("params_dtype");
  const std::optional<DType> trained = params_dtype ? dtype_from_name(*params_dtype) : std::nullopt;
  for (size_t rank = 0; rank < held_.size(); ++rank) {
    for (Held& h : held_[rank]) {
      const Shard& s = shard(rank, h.weight());
      const Tensor& t = catalog_.tensors[s.tensor];
      h.dtype = t.dtype;
      if (h.master && !h.module) {
        h.dtype = t.module_dtype.value_or(trained.value_or(t.dtype));
        for (const Copy& copy : t.copies)
          if (copy.is_module) h.dtype = copy.dtype;
      }
      if (s.dtype) h.dtype = *s.dtype;
      if (const auto found = asked.find(s.tensor); found != asked.end()) h.dtype = found->second;
    }
  }
}

// A tensor that ranks hold under several names: the table that the first and the last stage share.
void RankParts::find_shared() {
  std::map<uint32_t, std::set<std::string>> names;
  const auto each = [&](auto visit) {
    for (size_t rank = 0; rank < held_.size(); ++rank)
      for (Held& h : held_[rank])
        if (!h.tied_to && !h.buffer) visit(h, shard(rank, h.weight()).tensor);
  };
  each([&](Held& h, uint32_t tensor) { names[tensor].insert(h.logical_name); });
  each([&](Held& h, uint32_t tensor) { h.is_shared_embedding = names[tensor].size() > 1; });
}

// As the source's state dicts have them where they have them all, else as the layout's rules do.
void RankParts::sort(const SourceState& source) {
  bool is_known = !source.order().empty();
  for (const auto& list : held_)
    for (const Held& h : list) is_known = is_known && source.order().knows(h.name);
  if (!is_known && !has_order_ && is_any_trained_)
    throw refused("megatron.order",
                  "nothing in it says in which order the program registers its parameters, and the gradient "
                  "buffers of a Megatron checkpoint are in that order")
        .in_file(catalog_.path)
        .hint("--spec with a rule for each parameter gives the order");
  for (auto& list : held_) {
    if (is_known)
      for (Held& h : list) h.order = source.order().key_of(h.name);
    std::ranges::stable_sort(list, {}, &Held::order);
  }
}

Hole RankParts::hole(size_t rank, size_t index, DType dtype, bool is_copy) {
  const Shard& s = shard(rank, index);
  const auto [at, is_new] = made_.try_emplace({rank, index}, static_cast<uint32_t>(layout_.shards.size()));
  if (is_new) add_cut_shard(layout_, *cut_, s, s.tensor);
  return {at->second, 0, 0, 0, numel_of(s.shape), dtype, is_copy};
}

Hole RankParts::whole(uint32_t tensor) {
  const auto [at, is_new] = wholes_.try_emplace(tensor);
  if (is_new) at->second = layout_.add_whole_shard(catalog_, tensor);
  return {at->second, 0, 0, 0, layout_.shards[at->second].numel, catalog_.tensors[tensor].dtype, !is_new};
}

std::optional<uint32_t> RankParts::loose(const std::string& name) const {
  const auto found = loose_.find(name);
  return found == loose_.end() ? std::nullopt : std::optional(found->second);
}

double RankParts::number(uint32_t tensor) const {
  const auto [at, is_new] = numbers_.try_emplace(tensor);
  if (is_new) {
    const Tensor& t = catalog_.tensors[tensor];
    at->second = value_of(t.dtype, read_number(catalog_, t));
  }
  return at->second;
}

}  // namespace uckpt::megatron
