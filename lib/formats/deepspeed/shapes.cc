#include "lib/formats/deepspeed/shapes.h"

#include <charconv>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

Error malformed_shapes(std::string_view expected) {
  return refused("deepspeed.malformed", cat("in the list of shapes: expected ", expected));
}

// torch.Size is a call on a tuple where the pickle machine keeps it as a node of its own.
pickle::Value sizes_of(const pickle::Value& value) {
  if (!value || value.is_sequence()) return value;
  if (is_call(value.kind())) {
    if (value.global_name() == "torch.Size" && value.args() && value.args().size() == 1)
      return value.args().at(0);
  }
  return value;
}

bool same_shape(const Shape& shape, const pickle::Value& value) {
  const pickle::Value sizes = sizes_of(value);
  if (!sizes || !sizes.is_sequence() || sizes.size() != shape.size()) return false;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (sizes.at(i).integer() != shape[i]) return false;
  }
  return true;
}

}  // namespace

Shape read_shape(const pickle::Value& value) {
  const pickle::Value sizes = sizes_of(value);
  if (!sizes || !sizes.is_sequence()) throw malformed_shapes("a shape");
  Shape shape;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto size = sizes.at(i).integer();
    if (!size || *size < 0) throw malformed_shapes("sizes that are whole numbers");
    shape.push_back(*size);
  }
  return shape;
}

ParamList read_params(const pickle::Value& value) {
  if (!value || !value.is_dict()) throw malformed_shapes("a dict of names and shapes");
  ParamList params;
  for (size_t i = 0; i < value.size(); ++i) {
    const auto [key, sizes] = value.entry(i);
    const auto name = key.text();
    if (!name) throw malformed_shapes("names that are text");
    Param p{std::string(*name), read_shape(sizes), 0};
    const auto numel = checked_product(p.shape);
    if (!numel) throw malformed_shapes("a tensor of less than 2^63 elements").in_tensor(p.name);
    p.numel = *numel;
    params.push_back(std::move(p));
  }
  return params;
}

ParamGroups read_param_groups(const pickle::Value& value) {
  if (value && value.is_dict()) return {read_params(value)};
  if (!value || !value.is_sequence()) throw malformed_shapes("a list of dicts");
  ParamGroups groups;
  for (size_t i = 0; i < value.size(); ++i) groups.push_back(read_params(value.at(i)));
  return groups;
}

std::optional<std::string> differs(const ParamList& params, const pickle::Value& value) {
  if (!value || !value.is_dict() || value.size() != params.size()) {
    return cat("expected ", params.size(), " parameters, found ",
               value && value.is_dict() ? value.size() : 0);
  }
  for (size_t i = 0; i < params.size(); ++i) {
    const auto [key, sizes] = value.entry(i);
    if (key.text() != std::string_view(params[i].name)) {
      return cat("expected the parameter ", escape(params[i].name), ", found ",
                 escape(key.text().value_or("?")));
    }
    if (!same_shape(params[i].shape, sizes)) {
      return cat(escape(params[i].name), ": expected shape ", shape_text(params[i].shape), ", found another");
    }
  }
  return std::nullopt;
}

std::optional<std::string> differs(const ParamGroups& groups, const pickle::Value& value) {
  if (value && value.is_dict() && groups.size() == 1) return differs(groups[0], value);
  if (!value || !value.is_sequence() || value.size() != groups.size()) {
    return cat("expected ", groups.size(), " groups of parameters, found ",
               value && value.is_sequence() ? value.size() : 0);
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    if (auto difference = differs(groups[i], value.at(i))) return difference;
  }
  return std::nullopt;
}

std::optional<ExpertName> parse_expert(std::string_view name) {
  constexpr std::string_view kMark = "deepspeed_moe.experts.deepspeed_experts.";
  const size_t mark = name.find(kMark);
  if (mark == name.npos || (mark > 0 && name[mark - 1] != '.')) return std::nullopt;
  ExpertName at{mark + kMark.size(), mark + kMark.size(), 0};
  while (at.number_end < name.size() && name[at.number_end] >= '0' && name[at.number_end] <= '9')
    ++at.number_end;
  const size_t digits = at.number_end - at.number_at;
  if (digits == 0 || digits > 9 || at.number_end == name.size() || name[at.number_end] != '.')
    return std::nullopt;
  std::from_chars(name.data() + at.number_at, name.data() + at.number_end, at.number);
  return at;
}

void count_expert(LocalExperts& local, std::string_view name) {
  const auto at = parse_expert(name);
  if (!at) return;
  int64_t& count = local[std::string(at->layer(name))];
  count = std::max(count, at->number + 1);
}

std::string with_expert(std::string_view name, const ExpertName& at, int64_t number) {
  return cat(name.substr(0, at.number_at), number, name.substr(at.number_end));
}

}  // namespace uckpt::deepspeed
