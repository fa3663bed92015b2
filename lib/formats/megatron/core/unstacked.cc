#include "lib/formats/megatron/core/unstacked.h"

#include <algorithm>
#include <numeric>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/dcp/placement.h"
#include "lib/formats/megatron/rank_file.h"
#include "lib/formats/torch/sizes.h"
#include "lib/tensor/nest.h"

namespace uckpt::megatron {

namespace {

constexpr size_t kMostTensors = 1 << 20;

// Takes off what wrappers put before a model's own names.
std::string_view without_wrappers(std::string_view name) {
  for (const std::string_view wrapper : {"model.", "module."})
    while (name.starts_with(wrapper)) name.remove_prefix(wrapper.size());
  return name;
}

// "optimizer.state.NAME.STATE", as torch flattens a state dict.
std::optional<StateKey> parse_plain_state(std::string_view key) {
  constexpr std::string_view kHead = "optimizer.state.";
  const size_t dot = key.rfind('.');
  if (!key.starts_with(kHead) || dot < kHead.size()) return std::nullopt;
  return StateKey{state_of(key.substr(dot + 1)),
                  std::string(without_wrappers(key.substr(kHead.size(), dot - kHead.size())))};
}

Shape below(const Shape& shape, size_t axes) {
  return Shape(shape.begin() + static_cast<std::ptrdiff_t>(axes), shape.end());
}

// Calls `see` with all numbers within a box of leading axes.
template <class See>
void each_number(std::span<const int64_t> offsets, std::span<const int64_t> sizes, const See& see) {
  std::vector<int64_t> at(offsets.begin(), offsets.end());
  for (;;) {
    see(at);
    size_t d = at.size();
    while (d > 0 && ++at[d - 1] == offsets[d - 1] + sizes[d - 1]) at[d - 1] = offsets[d - 1], --d;
    if (d == 0) return;
  }
}

}  // namespace

void add_flat_box(Catalog& catalog, const FlatRun& run, DType dtype, const Shape& tensor,
                  const LogicalBox& box, const Shape& strides, int64_t origin) {
  std::vector<NestLoop> loops;
  for (size_t d = 0; d < tensor.size(); ++d) loops.push_back({box.sizes[d], strides[d]});
  std::vector<Axis> axes(tensor.size());
  clip_nest(loops, origin, run.begin, run.end,
            [&](std::span<const int64_t> starts, std::span<const int64_t> counts) {
              int64_t at = origin - run.begin;
              for (size_t d = 0; d < axes.size(); ++d) {
                axes[d] = {tensor[d], box.offsets[d] + starts[d], counts[d], strides[d]};
                at += starts[d] * strides[d];
              }
              catalog.add_piece(run.file, run.record, run.offset + at * item_size(dtype), axes, run.flags);
            });
}

Unstacked::Unstacked(const dcp::Stored& stored, const NameStyle& style, bool is_plain)
    : stored_(stored), stacks_(stored.tensors.size()) {
  std::vector<std::pair<size_t, StateKey>> states;
  std::vector<std::pair<size_t, std::string>> weights;
  for (size_t t = 0; t < stored.tensors.size(); ++t) {
    const std::string& key = stored.tensors[t].key;
    const auto state = is_plain ? parse_plain_state(key) : parse_state_key(key);
    if (state) {
      states.emplace_back(t, *state);
    } else if (key.starts_with("optimizer.") || key.starts_with("chained_") ||
               (is_plain && !key.starts_with("model."))) {
      others_.push_back(t);
    } else {
      weights.emplace_back(t, without_wrappers(key));
      model_keys_.emplace(weights.back().second, t);
    }
  }
  for (const auto& [t, name] : weights)
    add(t, std::string(is_buffer(name, stored.tensors[t].dtype) ? state::kBuffer : state::kParam), name,
        style);
  for (const auto& [t, state] : states) {
    const auto like = model_keys_.find(std::string(without_wrappers(state.key)));
    if (like != model_keys_.end() && stored.tensors[t].shape != stored.tensors[like->second].shape &&
        stored.tensors[t].shape.size() == stored.tensors[like->second].shape.size() + 1) {
      find_blocks(t, {like->second, {}, -1});
    }
    add(t, state.state, std::string(without_wrappers(state.key)), style);
  }
  for (const Logical& t : all_) {
    if (t.parts.front().half < 0 || t.parts.size() == 2) continue;
    throw refused("megatron.half", cat("it is one half of a gated layer, and the other one is not there"))
        .in_tensor(stored.tensors[t.parts.front().stored].key);
  }
  sort();
}

// A tensor [X, Y] that is cut into blocks [x, y], each of which is flattened and cut anew, is stored as
// [X / x, Y / y, x · y].
void Unstacked::find_blocks(size_t t, const StoredPart& like) {
  const Shape& shape = stored_.tensors[t].shape;
  const Shape& whole = stored_.tensors[like.stored].shape;
  Shape blocks;
  bool fits = true;
  for (size_t d = 0; d < whole.size() && fits; ++d) {
    fits = shape[d] > 0 && whole[d] % shape[d] == 0;
    if (fits) blocks.push_back(whole[d] / shape[d]);
  }
  if (!fits || checked_product(blocks) != shape.back())
    throw refused("megatron.flattened", cat("expected blocks of a tensor ", shape_text(whole),
                                            ", each of them flattened, found ", shape_text(shape)))
        .in_tensor(stored_.tensors[t].key);
  stacks_[t].blocks = std::move(blocks);
}

void Unstacked::add(size_t t, const std::string& state, const std::string& key, const NameStyle& style) {
  const dcp::StoredTensor& tensor = stored_.tensors[t];
  Stack& stack = stacks_[t];
  // Only where the model has both halves: a name may end so for other reasons.
  const auto other_half = [&] {
    std::string other = key;
    other.back() = other.back() == 'w' ? 'v' : 'w';
    return model_keys_.contains(key) && model_keys_.contains(other);
  };
  const bool half = (key.ends_with("_w") || key.ends_with("_v")) && other_half();
  const ModuleName name =
      module_name(half ? std::string_view(key).substr(0, key.size() - 2) : std::string_view(key), style);
  stack.axes = name.axes();
  const Shape whole = stack.blocks.empty() ? tensor.shape : [&] {
    Shape out;
    for (size_t d = 0; d < stack.blocks.size(); ++d) out.push_back(stack.blocks[d] * tensor.shape[d]);
    return out;
  }();
  if (whole.size() < stack.axes + (half ? 1 : 0) ||
      (!stack.blocks.empty() &&
       std::any_of(stack.blocks.begin(), stack.blocks.begin() + static_cast<std::ptrdiff_t>(stack.axes),
                   [](int64_t b) { return b != 1; })))
    throw refused("megatron.stack",
                  cat("expected ", stack.axes, " leading dims that count layers and experts, found a tensor ",
                      shape_text(whole)))
        .in_tensor(tensor.key);
  const std::span<const int64_t> leading = std::span(whole).first(stack.axes);
  const auto count = checked_product(leading);
  if (!count || static_cast<size_t>(*count) > kMostTensors - all_.size())
    throw refused("limit.tensors", cat("expected at most ", kMostTensors, " tensors in its stacks, found ",
                                       shape_text(leading)))
        .in_tensor(tensor.key);
  if (*count == 0) return;
  for (size_t c = 0; c < tensor.item_count(); ++c) {
    const dcp::Chunk& chunk = tensor.item(c);
    each_number(std::span(chunk.offsets).first(stack.axes), std::span(chunk.sizes).first(stack.axes),
                [&](const std::vector<int64_t>& at) { stack.chunks[at].push_back(c); });
  }
  Shape shape = below(whole, stack.axes);
  if (half) {
    const auto twice = checked_mul(shape[0], 2);
    if (!twice) throw refused("dcp.size", "the elements of the tensor leave 64 bits").in_tensor(tensor.key);
    shape[0] = *twice;
  }
  const size_t prefix = prefixes_.try_emplace(name.parts.front(), prefixes_.size()).first->second;
  each_number(Shape(stack.axes, 0), leading, [&](const std::vector<int64_t>& at) {
    StoredPart part{t, at, half ? (key.ends_with("_v") ? 1 : 0) : -1};
    const std::string text = name.at(at);
    const auto [known, fresh] = index_.try_emplace({state, text}, all_.size());
    if (fresh) {
      std::string layout = stack.axes == 0 ? dcp::layout_text(tensor) : "in a stack";
      all_.push_back({state, text, tensor.dtype, shape, {std::move(part)}, std::move(layout)});
      std::vector<int64_t> place = {static_cast<int64_t>(prefix)};
      if (!at.empty()) place.push_back(at[0]);
      order_.emplace_back(std::move(place), order_.size());
      return;
    }
    Logical& into = all_[known->second];
    const bool completes = half && into.parts.size() == 1 && into.parts[0].half == 1 - part.half &&
                           into.dtype == tensor.dtype && into.shape == shape;
    if (!completes)
      throw refused("megatron.name", cat("two tensors come to one name, ", escape(text)))
          .in_tensor(tensor.key);
    into.parts.push_back(std::move(part));
  });
}

void Unstacked::sort() {
  std::vector<size_t> order(all_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(
      order, {}, [&](size_t i) -> const auto& { return order_[i]; });
  std::vector<Logical> sorted;
  for (const size_t i : order) sorted.push_back(std::move(all_[i]));
  all_ = std::move(sorted);
  index_.clear();
  order_.clear();
}

void Unstacked::each_box(const Logical& tensor, const std::function<void(const LogicalBox&)>& see) const {
  for (const StoredPart& part : tensor.parts) {
    const Stack& stack = stacks_[part.stored];
    if (!stack.blocks.empty()) return;
    const dcp::StoredTensor& stored = stored_.tensors[part.stored];
    const auto chunks = stack.chunks.find(part.numbers);
    if (chunks == stack.chunks.end()) continue;
    for (const size_t c : chunks->second) {
      if (c >= stored.chunks.size()) continue;  // a replica
      const dcp::Chunk chunk = stored.chunks[c];
      LogicalBox box{below(chunk.offsets, stack.axes), below(chunk.sizes, stack.axes)};
      if (part.half == 1) box.offsets[0] += tensor.shape[0] / 2;
      see(box);
    }
  }
}

void Unstacked::add_pieces(const Logical& tensor, dcp::CatalogBuilder& builder, Catalog& catalog,
                           std::vector<std::vector<dcp::ItemTensor>>& items) const {
  for (const StoredPart& part : tensor.parts) {
    const Stack& stack = stacks_[part.stored];
    if (!stack.blocks.empty()) {
      add_flattened(tensor, part, builder, catalog, items);
      continue;
    }
    const dcp::StoredTensor& stored = stored_.tensors[part.stored];
    const auto chunks = stack.chunks.find(part.numbers);
    if (chunks == stack.chunks.end()) continue;
    std::vector<Axis> axes(tensor.shape.size());
    for (const size_t c : chunks->second) {
      if (c >= stored.chunks.size()) continue;
      const dcp::Chunk& chunk = stored.chunks[c];
      dcp::ItemTensor& item = items[part.stored][c];
      const auto place = builder.place(chunk.item.file, item);
      int64_t skipped = 0;
      for (size_t d = 0; d < stack.axes; ++d)
        skipped += (part.numbers[d] - chunk.offsets[d]) * item.stride()[d];
      for (size_t d = 0; d < axes.size(); ++d) {
        const size_t from = stack.axes + d;
        const int64_t shift = d == 0 && part.half == 1 ? tensor.shape[0] / 2 : 0;
        axes[d] = {tensor.shape[d], chunk.offsets[from] + shift, chunk.sizes[from], item.stride()[from]};
      }
      catalog.add_piece(place.file, place.record, place.offset + skipped * item_size(tensor.dtype), axes,
                        place.flags);
    }
  }
}

void Unstacked::add_flattened(const Logical& tensor, const StoredPart& part, dcp::CatalogBuilder& builder,
                              Catalog& catalog, std::vector<std::vector<dcp::ItemTensor>>& items) const {
  const Stack& stack = stacks_[part.stored];
  const dcp::StoredTensor& stored = stored_.tensors[part.stored];
  const auto chunks = stack.chunks.find(part.numbers);
  if (chunks == stack.chunks.end()) return;
  const Shape block = below(stack.blocks, stack.axes);
  const Shape strides = torch::row_major(block);
  const size_t last = stored.shape.size() - 1;
  for (const size_t c : chunks->second) {
    if (c >= stored.chunks.size()) continue;
    const dcp::Chunk& chunk = stored.chunks[c];
    dcp::ItemTensor& item = items[part.stored][c];
    const auto place = builder.place(chunk.item.file, item);
    if (item.stride()[last] != 1 && chunk.sizes[last] > 1)
      throw refused("megatron.flattened", "expected a flattened block back to back, found strides")
          .in_tensor(stored.key);
    Shape offsets = chunk.offsets, sizes = chunk.sizes;
    offsets.pop_back(), sizes.pop_back();
    for (size_t d = 0; d < stack.axes; ++d) offsets[d] = part.numbers[d], sizes[d] = 1;
    each_number(offsets, sizes, [&](const std::vector<int64_t>& at) {
      LogicalBox box{Shape(block.size()), block};
      int64_t skipped = 0;
      for (size_t d = 0; d < at.size(); ++d) {
        skipped += (at[d] - chunk.offsets[d]) * item.stride()[d];
        if (d >= stack.axes) box.offsets[d - stack.axes] = at[d] * stack.blocks[d];
      }
      if (part.half == 1) box.offsets[0] += tensor.shape[0] / 2;
      const FlatRun run{place.file,  place.record,        place.offset + skipped * item_size(tensor.dtype),
                        place.flags, chunk.offsets[last], chunk.offsets[last] + chunk.sizes[last]};
      add_flat_box(catalog, run, tensor.dtype, tensor.shape, box, strides, 0);
    });
  }
}

}  // namespace uckpt::megatron
