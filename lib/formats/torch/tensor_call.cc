#include "lib/formats/torch/tensor_call.h"

#include "lib/pickle/document.h"

namespace uckpt::torch {

using pickle::Known;
using pickle::Value;

bool is_tensor_call(const Value& value) {
  switch (pickle::known_of(value)) {
    case Known::kRebuildTensor:
    case Known::kRebuildTensorV2:
    case Known::kRebuildTensorV3:
    case Known::kRebuildParameter:
    case Known::kRebuildParameterWithState:
    case Known::kRebuildFromType:
      return true;
    default:
      return false;
  }
}

std::optional<Shape> shape_of_call(const Value& value) {
  if (!is_tensor_call(value)) return std::nullopt;
  const Value args = value.args();
  // A Parameter is made of a tensor; a subclass by a function, whose arguments are a tuple.
  const Known known = pickle::known_of(value);
  if (known == Known::kRebuildParameter || known == Known::kRebuildParameterWithState)
    return args.size() > 0 ? shape_of_call(args.at(0)) : std::nullopt;
  const Value parts = known == Known::kRebuildFromType && args.size() > 2 ? args.at(2) : args;
  if (!parts.is_sequence() || parts.size() < 3 || !parts.at(2).is_sequence()) return std::nullopt;
  Shape out;
  for (size_t i = 0; i < parts.at(2).size(); ++i) {
    const auto size = parts.at(2).at(i).integer();
    if (!size || *size < 0) return std::nullopt;
    out.push_back(*size);
  }
  return out;
}

std::string storage_key_of(const Value& tensor) {
  Value storage = tensor;
  while (pickle::is_call(storage.kind()) && storage.args().size() > 0) storage = storage.args().at(0);
  const Value id = storage.kind() == pickle::Kind::kPersistent ? storage.callable() : Value();
  return id && id.is_sequence() && id.size() > 2 ? std::string(id.at(2).text().value_or("")) : "";
}

}  // namespace uckpt::torch
