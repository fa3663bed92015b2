#include "lib/pickle/fields.h"

#include "lib/pickle/document.h"

namespace uckpt::pickle {

namespace {

// The dicts of attributes in what BUILD gave: the state itself, or both of (attributes or None, slots).
struct Attributes {
  Value first, second;
};

Attributes attributes_of(const Value& state) {
  if (!state) return {};
  if (state.is_dict()) return {state, {}};
  if (state.kind() != Kind::kTuple || state.size() != 2 || !state.at(1).is_dict()) return {};
  if (state.at(0).is_dict()) return {state.at(0), state.at(1)};
  if (state.at(0).is_none()) return {{}, state.at(1)};
  return {};
}

Field entry_field(const Value& dict, size_t i) {
  const auto [key, value] = dict.entry(i);
  return {value, key, {}};
}

Field object_field(const Value& object, size_t i) {
  const Value args = object.args(), state = object.state();
  const Attributes attributes = attributes_of(state);
  const bool has_attributes = attributes.first || attributes.second;
  if (args.size() > 0 && i-- == 0) return {args, {}, has_attributes ? "__args__" : "args"};
  if (i < attributes.first.size()) return entry_field(attributes.first, i);
  i -= attributes.first.size();
  if (i < attributes.second.size()) return entry_field(attributes.second, i);
  i -= attributes.second.size();
  if (state && !has_attributes && i-- == 0) return {state, {}, "__state__"};
  if (object.item_count() > 0 && i-- == 0) {
    const uint32_t items = object.document()->node(object.id()).d;
    return {Value(object.document(), items), {}, "__items__"};
  }
  return {};
}

}  // namespace

Field field_at(const Value& value, size_t i) {
  switch (value.kind()) {
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kSet:
    case Kind::kFrozenSet:
      return {value.at(i), {}, {}};
    case Kind::kDict:
      return i < value.size() ? entry_field(value, i) : Field{};
    case Kind::kCall:
    case Kind::kObject:
      return object_field(value, i);
    default:
      return {};
  }
}

}  // namespace uckpt::pickle
