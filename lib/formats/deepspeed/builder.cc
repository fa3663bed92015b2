#include "lib/formats/deepspeed/builder.h"

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/guards.h"

namespace uckpt::deepspeed {

std::optional<uint32_t> Builder::find(std::string_view state, std::string_view name) const {
  const auto it = index_.find(cat(state, "/", name));
  return it == index_.end() ? std::nullopt : std::optional(it->second);
}

std::optional<uint32_t> Builder::find_weight(std::string_view name) const {
  const auto master = find(state::kMaster, name);
  return master ? master : find(state::kParam, name);
}

uint32_t Builder::add(const NewTensor& t) {
  const auto number = static_cast<uint32_t>(catalog.tensors.size());
  if (!index_.emplace(cat(t.state, "/", t.name), number).second) {
    throw refused("deepspeed.duplicate_name", "two tensors have this name").in_tensor(t.name);
  }
  Tensor& out = catalog.tensors.emplace_back();
  out.name = t.name;
  out.state = t.state;
  out.dtype = t.dtype;
  out.shape = t.shape;
  out.layout = t.layout;
  return number;
}

void Builder::put(const NewTensor& t, const PieceMaker& make_pieces) {
  const auto known = find(t.state, t.name);
  if (known && catalog.tensors[*known].shape != t.shape) {
    problem(refused("deepspeed.mixed_runs",
                    cat("the shape differs between ranks: expected ",
                        shape_text(catalog.tensors[*known].shape), ", found ", shape_text(t.shape)))
                .in_tensor(t.name));
    return;
  }
  const uint32_t number = known ? *known : add(t);
  const uint32_t mark = catalog.piece_mark();
  std::string refusal;
  try {
    if (const auto missing = make_pieces()) {
      refusal = cat("a part of it lies in ", *missing, ", which cannot be read");
      if (!known) ++incomplete;
    }
  } catch (Error& e) {
    refusal = e.message();
    problem(e.in_tensor(t.name));
  }
  if (!refusal.empty()) {
    catalog.pieces.resize(mark);
    if (!known) catalog.tensors[number].refusal = std::move(refusal);
  } else if (known) {
    catalog.tensors[number].copies.push_back(
        {catalog.pieces_since(mark), t.dtype, false, std::string(t.replica)});
  } else {
    catalog.tensors[number].pieces = catalog.pieces_since(mark);
  }
}

void Builder::problem(const Error& e) {
  if (e.kind() != ErrorKind::kRefused) throw e;
  problems.push_back(e);
}

void Builder::guard(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& e) {
    problem(e);
  }
}

std::string Builder::refusal_of(const torch::TensorInfo& info) const {
  if (!info.refusal.empty()) return info.refusal;
  return torch::expansion_refusal(info, allow_expand);
}

void Builder::put_refused(const NewTensor& t, const std::string& why) {
  if (find(t.state, t.name)) return;
  catalog.tensors[add(t)].refusal = why;
}

void Builder::put_scalar(std::string_view state, const std::string& name, const Scalar& value,
                         std::string_view where) {
  const auto [it, fresh] = scalars_.emplace(cat(state, "/", name), value);
  if (!fresh) {
    if (it->second == value) return;
    problems.push_back(
        refused("deepspeed.step_disagrees", cat("the ", state, " differs between ranks: expected ",
                                                it->second.text(), ", found ", value.text(), " in ", where))
            .in_tensor(name));
    return;
  }
  const uint32_t number = add({state, name, value.dtype, value.shape, "one number", {}});
  const uint32_t mark = catalog.piece_mark();
  if (last_literal_ && last_literal_->first == value) {
    catalog.add_flat(kLiteral, kNoRecord, last_literal_->second, 1, 0, 1);
  } else {
    last_literal_ = {value, static_cast<int64_t>(catalog.literals.size())};
    catalog.add_literal(value.span(), 1);
  }
  catalog.tensors[number].pieces = catalog.pieces_since(mark);
}

void Builder::add_alias(std::string_view state, const std::string& name, uint32_t target) {
  if (find(state, name)) return;
  const Tensor of = catalog.tensors[target];
  const uint32_t number = add({state, name, of.dtype, of.shape, "another name", {}});
  catalog.tensors[number].alias = of.alias ? *of.alias : target;
  catalog.tensors[number].refusal = of.refusal;
}

void Builder::add_copy(uint32_t tensor, DType dtype, bool is_module, std::string what,
                       const std::function<void()>& make_pieces) {
  const uint32_t mark = catalog.piece_mark();
  make_pieces();
  catalog.tensors[tensor].copies.push_back({catalog.pieces_since(mark), dtype, is_module, std::move(what)});
}

void Builder::flat(Source& source, const Place& place, int64_t numel, int64_t start, int64_t extent,
                   int64_t skip) {
  if (extent <= 0) return;
  const FileId file = source.file_id(catalog);
  catalog.add_flat(file, source.record_id(place.record), place.offset + skip * item_size(place.dtype), numel,
                   start, extent, place.flags);
}

void Builder::whole(Source& source, const torch::TensorInfo& info, const Shape& shape) {
  const int64_t numel = numel_of(shape);
  if (numel == 0) return;
  const FileId file = source.file_id(catalog);
  if (info.contiguous()) {
    catalog.add_flat(file, source.record_id(info.record), info.offset, numel, 0, numel, info.flags);
  } else {
    catalog.add_whole(file, source.record_id(info.record), info.offset, shape, info.stride, info.flags);
  }
}

}  // namespace uckpt::deepspeed
