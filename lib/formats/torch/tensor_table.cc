#include "lib/formats/torch/tensor_table.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/torch/name_walk.h"
#include "lib/formats/torch/tensor_path.h"

namespace uckpt::torch {

namespace {

using pickle::Kind;
using pickle::Known;
using pickle::Value;

constexpr std::string_view kDistributed =
    "a distributed tensor (DTensor) holds one rank's part and cannot be converted alone";

void check_arity(const Value& args, size_t least, size_t most, std::string_view what) {
  if (args.size() < least || args.size() > most) {
    throw refused("tensor.arguments", cat("expected ", least, least == most ? "" : cat(" to ", most),
                                          " arguments of ", what, ", found ", args.size()));
  }
}

bool flag(const Value& value, std::string_view what) {
  const auto b = value.boolean();
  if (!b)
    throw refused("tensor.arguments",
                  cat("expected ", what, " of a tensor as true or false, found something else"));
  return *b;
}

TensorInfo refused_tensor(std::string why, Shape shape = {}, std::optional<DType> dtype = {}) {
  TensorInfo info;
  info.refusal = std::move(why);
  info.shape = std::move(shape);
  info.stride.assign(info.shape.size(), 0);
  info.dtype = dtype.value_or(DType::kU8);
  return info;
}

// One past the last element that a view reaches, counted from the storage's begin.
int64_t reach(const Shape& shape, const Shape& stride, int64_t offset) {
  std::optional<int64_t> last = offset;
  for (size_t d = 0; d < shape.size() && last; ++d) {
    const auto step = checked_mul(shape[d] - 1, stride[d]);
    last = step ? checked_add(*last, *step) : std::nullopt;
  }
  last = last ? checked_add(*last, 1) : std::nullopt;
  if (!last) throw refused("tensor.out_of_bounds", "the last element of a tensor lies beyond 64 bits");
  return *last;
}

// Nothing for a type that we do not have, whatever torch it may come from.
std::optional<DType> dtype_of(const Value& value) {
  const pickle::Global* global = value.kind() == Kind::kGlobal ? pickle::global_of(value) : nullptr;
  if (global && global->known == Known::kNone) return std::nullopt;
  if (!global || global->known != Known::kDtype)
    throw refused("tensor.dtype", "expected the type of a tensor, found something else");
  return global->dtype;
}

}  // namespace

TensorTable::TensorTable(const pickle::Document& document, StorageTable storages, bool big_endian,
                         int64_t max_rank)
    : document_(document), storages_(std::move(storages)), big_endian_(big_endian), max_rank_(max_rank) {
  // A tensor's arguments have smaller ids than the tensor.
  for (uint32_t id = 0; id < document.node_count(); ++id) {
    if (document.node(id).kind != Kind::kCall && document.node(id).kind != Kind::kObject) continue;
    const Value value(&document, id);
    const Known known = pickle::known_of(value);
    if (!is_rebuild(known)) continue;
    try {
      tensors_.emplace_back(id, rebuild(known, value.args()));
    } catch (Error& error) {
      throw error.in_tensor(path_to(document, id));
    }
  }
}

const TensorInfo* TensorTable::find(uint32_t node) const {
  const Kind kind = document_.node(node).kind;
  if (kind != Kind::kCall && kind != Kind::kObject) return nullptr;
  const auto found = std::ranges::lower_bound(tensors_, node, {}, &std::pair<uint32_t, TensorInfo>::first);
  return found != tensors_.end() && found->first == node ? &found->second : nullptr;
}

bool TensorTable::has(uint32_t node) const {
  return document_.node(node).kind == Kind::kPersistent || find(node) != nullptr;
}

std::optional<TensorInfo> TensorTable::get(uint32_t node) const {
  if (document_.node(node).kind == Kind::kPersistent) {
    if (const StorageRef* ref = storages_.find(node)) return bare_storage(*ref);
    return refused_tensor(StorageTable::why_opaque(Value(&document_, node)));
  }
  if (const TensorInfo* info = find(node)) return *info;
  return std::nullopt;
}

TensorInfo TensorTable::rebuild(Known how, Value args) const {
  // _rebuild_from_type_v2(function, type, arguments, state): function(*arguments) is the tensor.
  std::string why;
  while (how == Known::kRebuildFromType) {
    check_arity(args, 4, 4, "_rebuild_from_type_v2");
    if (args.at(0).kind() != Kind::kGlobal || args.at(1).kind() != Kind::kGlobal ||
        args.at(2).kind() != Kind::kTuple) {
      throw refused(
          "tensor.arguments",
          "expected a function, a class and arguments in _rebuild_from_type_v2, found something else");
    }
    const Known type = pickle::known_of(args.at(1));
    if (type == Known::kDistributedTensor)
      why = kDistributed;
    else if (type != Known::kTensorClass)
      why = cat("tensor of the unknown class ", escape(args.at(1).global_name()));
    how = pickle::known_of(args.at(0));
    if (!is_rebuild(how))
      return refused_tensor(cat("tensor rebuilt by the unknown function ", escape(args.at(0).global_name())));
    args = args.at(2);
  }
  TensorInfo info = rebuild_plain(how, args);
  if (!why.empty()) info = refused_tensor(std::move(why), std::move(info.shape), info.dtype);
  return info;
}

TensorInfo TensorTable::rebuild_plain(Known how, const Value& args) const {
  switch (how) {
    case Known::kRebuildTensor:
      check_arity(args, 4, 4, "_rebuild_tensor");
      return from_storage(args, {}, 0);
    case Known::kRebuildTensorV2:
      check_arity(args, 6, 7, "_rebuild_tensor_v2");
      flag(args.at(4), "the gradient flag");
      return from_storage(args, {}, 6);
    case Known::kRebuildTensorV3:
      return untyped(args);
    case Known::kRebuildParameter:
      return parameter(args, 3);
    case Known::kRebuildParameterWithState:
      return parameter(args, 4);
    case Known::kRebuildMeta:
      return meta(args);
    case Known::kRebuildSparse:
      return sparse(args);
    case Known::kRebuildQuantised:
      return quantised(args);
    case Known::kRebuildWrapper:
      return wrapper(args);
    case Known::kRebuildNested:
      return refused_tensor("nested tensors cannot be converted");
    default:
      return refused_tensor(std::string(kDistributed));
  }
}

Shape TensorTable::read_sizes(const Value& value, std::string_view what) const {
  if (value.kind() != Kind::kTuple)
    throw refused("tensor.arguments",
                  cat("expected ", what, " of a tensor as a tuple, found something else"));
  if (static_cast<int64_t>(value.size()) > max_rank_)
    throw refused("limit.tensor_rank",
                  cat("expected a tensor of at most ", max_rank_, " dimensions, found ", value.size()));
  Shape sizes;
  sizes.reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    const auto size = value.at(i).integer();
    if (!size || *size < 0)
      throw refused("tensor.negative",
                    cat("expected ", what, " of a tensor as integers from 0, found something else"));
    sizes.push_back(*size);
  }
  return sizes;
}

// Sizes whose product stays within 64 bits.
Shape TensorTable::read_shape(const Value& value) const {
  Shape shape = read_sizes(value, "the sizes");
  if (!checked_product(shape))
    throw refused("tensor.numel", cat("the elements of a tensor ", shape_text(shape), " leave 64 bits"));
  return shape;
}

// Arguments `first`, `first` + 1, `first` + 2: offset, sizes, strides.
TensorTable::Layout TensorTable::read_layout(const Value& args, size_t first) const {
  Layout layout;
  const auto offset = args.at(first).integer();
  if (!offset || *offset < 0)
    throw refused("tensor.negative",
                  "expected the offset of a tensor as an integer from 0, found something else");
  layout.offset = *offset;
  layout.shape = read_shape(args.at(first + 1));
  layout.stride = read_sizes(args.at(first + 2), "the strides");
  if (layout.shape.size() != layout.stride.size()) {
    throw refused("tensor.rank", cat("expected as many strides as sizes, found ", layout.stride.size(),
                                     " for ", layout.shape.size()));
  }
  return layout;
}

TensorInfo TensorTable::place(const StorageRef& ref, Layout layout, std::optional<DType> dtype) const {
  const Storage& storage = storages_.storage(ref);
  int64_t available = ref.view_numel;
  if (storage.untyped && dtype) {
    const int item = item_size(*dtype);
    if (item == 0)
      return refused_tensor(cat("packed values of type ", name_of(*dtype), " cannot be converted"),
                            layout.shape, dtype);
    if (ref.view_numel % item != 0)
      throw refused("tensor.storage_size", cat("expected a storage of whole elements of ", item,
                                               " bytes, found ", ref.view_numel, " bytes"));
    available = ref.view_numel / item;
  }
  const int64_t numel = *checked_product(layout.shape);
  if (numel > 0) {
    const int64_t last = reach(layout.shape, layout.stride, layout.offset);
    if (last > available) {
      throw refused("tensor.out_of_bounds",
                    cat("a tensor ", shape_text(layout.shape), " reaches element ", last, " of storage ",
                        storage.key, ", which has ", available));
    }
  }
  TensorInfo info;
  if (!storage.refusal.empty() || !dtype) {
    info = refused_tensor(storage.refusal.empty() ? "its type is not known" : storage.refusal,
                          std::move(layout.shape));
    return info;
  }
  const int item = item_size(*dtype);
  info.dtype = *dtype;
  info.shape = std::move(layout.shape);
  info.stride = std::move(layout.stride);
  info.storage_key = storage.key;
  info.storage_offset = ref.view_offset + layout.offset;
  info.record = storage.record;
  // Inside the storage by now, except for empty tensors, whose offset means nothing.
  info.offset = storage.offset + (numel > 0 ? info.storage_offset * item : 0);
  if (big_endian_) {
    if (storage.untyped)
      info.refusal = "big-endian bytes of an untyped storage: their order is not defined";
    else if (item > 1)
      info.flags |= kByteSwapped;
  }
  return info;
}

TensorInfo TensorTable::from_storage(const Value& args, std::optional<DType> dtype,
                                     size_t metadata_at) const {
  const Value at = args.at(0);
  Layout layout = read_layout(args, 1);
  const StorageRef* ref = at.kind() == Kind::kPersistent ? storages_.find(at.id()) : nullptr;
  if (!ref) {
    if (at.kind() == Kind::kPersistent)
      return refused_tensor(StorageTable::why_opaque(at), std::move(layout.shape), dtype);
    if (is_call(at.kind()))
      return refused_tensor("its storage is the result of a call", std::move(layout.shape), dtype);
    throw refused("tensor.storage", "expected the storage of a tensor, found something else");
  }
  const Storage& storage = storages_.storage(*ref);
  TensorInfo info = place(*ref, std::move(layout),
                          dtype             ? dtype
                          : storage.untyped ? DType::kU8
                                            : storage.dtype);
  if (metadata_at > 0 && args.size() > metadata_at) apply_metadata(args.at(metadata_at), info);
  return info;
}

// _rebuild_tensor_v3: the storage is bytes and the type stands apart.
TensorInfo TensorTable::untyped(const Value& args) const {
  check_arity(args, 7, 8, "_rebuild_tensor_v3");
  flag(args.at(4), "the gradient flag");
  const auto dtype = dtype_of(args.at(6));
  if (!dtype)
    return refused_tensor(cat("values of type ", escape(args.at(6).global_name()), " cannot be converted"),
                          read_layout(args, 1).shape);
  const Value at = args.at(0);
  const StorageRef* ref = at.kind() == Kind::kPersistent ? storages_.find(at.id()) : nullptr;
  if (ref && !storages_.storage(*ref).untyped && storages_.storage(*ref).dtype != dtype)
    throw refused("tensor.dtype",
                  "expected an untyped storage, or one of the tensor's type, found another type");
  return from_storage(args, dtype, 7);
}

namespace {

bool has_negatives(DType dtype) {
  return item_size(dtype) > 0 && dtype != DType::kBool && dtype != DType::kF8E8M0;
}

}  // namespace

void TensorTable::apply_metadata(const Value& metadata, TensorInfo& info) const {
  if (metadata.is_none()) return;
  if (!metadata.is_dict())
    throw refused("tensor.arguments", "expected the metadata of a tensor as a dict, found something else");
  const auto set = [&](std::string_view name) {
    const Value value = metadata.get(name);
    return value && flag(value, name);
  };
  if (set("conj")) {
    if (info.refusal.empty() && uckpt::info(info.dtype).kind != DTypeClass::kComplex)
      throw refused("tensor.conjugate",
                    cat("expected complex values to conjugate, found ", name_of(info.dtype)));
    info.flags |= kConjugated;
  }
  if (set("neg")) {
    if (info.refusal.empty() && !has_negatives(info.dtype))
      throw refused("tensor.negate", cat("expected values that can be negated, found ", name_of(info.dtype)));
    info.flags |= kNegated;
  }
}

const TensorInfo* TensorTable::inner(const Value& value) const {
  return is_call(value.kind()) ? find(value.id()) : nullptr;
}

TensorInfo TensorTable::parameter(const Value& args, size_t arity) const {
  check_arity(args, arity, arity, "_rebuild_parameter");
  flag(args.at(1), "the gradient flag");
  const Value data = args.at(0);
  TensorInfo info;
  if (const TensorInfo* tensor = inner(data))
    info = *tensor;
  else if (is_call(data.kind()))
    info = refused_tensor(cat("a parameter around the unknown ", escape(data.global_name())));
  else
    throw refused("tensor.arguments", "expected a tensor inside a parameter, found something else");
  info.is_parameter = true;
  return info;
}

// (dtype, sizes, strides, requires_grad): a shape without data.
TensorInfo TensorTable::meta(const Value& args) const {
  check_arity(args, 4, 4, "_rebuild_meta_tensor_no_storage");
  const auto dtype = dtype_of(args.at(0));
  return refused_tensor("a tensor on the meta device has a shape and no data", read_shape(args.at(1)), dtype);
}

// A storage saved by itself is a row of its elements.
TensorInfo TensorTable::bare_storage(const StorageRef& ref) const {
  const Storage& storage = storages_.storage(ref);
  return place(ref, {{ref.view_numel}, {1}, 0}, storage.untyped ? DType::kU8 : storage.dtype);
}

// (layout, (indices…, values, size[, is_coalesced])): the values tell the type, the last tuple the shape.
TensorInfo TensorTable::sparse(const Value& args) const {
  const Value parts = args.at(1);
  Shape shape;
  std::optional<DType> dtype;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts.at(i).kind() == Kind::kTuple) shape = read_shape(parts.at(i));
    if (const TensorInfo* tensor = inner(parts.at(i))) dtype = tensor->dtype;
  }
  return refused_tensor("sparse tensors cannot be converted", std::move(shape), dtype);
}

TensorInfo TensorTable::quantised(const Value& args) const {
  if (args.size() >= 4 && args.at(0).kind() == Kind::kPersistent)
    return refused_tensor("quantised tensors cannot be converted", from_storage(args, {}, 0).shape);
  return refused_tensor("quantised tensors cannot be converted");
}

// (class, dtype, sizes, strides, …)
TensorInfo TensorTable::wrapper(const Value& args) const {
  const std::string why = cat("wrapper of the unknown class ", escape(args.at(0).global_name()));
  if (args.size() < 3 || args.at(1).kind() != Kind::kGlobal || args.at(2).kind() != Kind::kTuple)
    return refused_tensor(why);
  const pickle::Global* dtype = pickle::global_of(args.at(1));
  return refused_tensor(why, read_shape(args.at(2)), dtype->dtype);
}

}  // namespace uckpt::torch
