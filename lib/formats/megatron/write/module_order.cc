#include "lib/formats/megatron/write/module_order.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace uckpt::megatron {

namespace {

constexpr std::string_view kExtraStateEnd = "._extra_state";

// "weight12" is "weight" and 13; without a number 0.
std::pair<std::string_view, int64_t> split(std::string_view segment) {
  size_t end = segment.size();
  while (end > 0 && segment[end - 1] >= '0' && segment[end - 1] <= '9') --end;
  int64_t number = 0;
  const char* last = segment.data() + segment.size();
  if (end == segment.size() || std::from_chars(segment.data() + end, last, number).ec != std::errc() ||
      number == std::numeric_limits<int64_t>::max())
    return {segment, 0};
  return {segment.substr(0, end), number + 1};
}

template <class Visit>
void each_segment(std::string_view name, Visit visit) {
  for (size_t at = 0;;) {
    const size_t dot = std::min(name.find('.', at), name.size());
    if (!visit(name.substr(at, dot - at)) || dot == name.size()) return;
    at = dot + 1;
  }
}

}  // namespace

std::string template_of(std::string_view name, std::vector<int64_t>* numbers) {
  std::string out;
  each_segment(name, [&](std::string_view segment) {
    const auto [text, number] = split(segment);
    const bool is_number = text.empty() && number > 0;
    if (is_number && numbers) numbers->push_back(number - 1);
    if (!out.empty()) out += '.';
    out += is_number ? std::string_view("#") : segment;
    return true;
  });
  return out;
}

void ModuleOrder::add(std::string_view name) {
  uint32_t at = 0;
  each_segment(name, [&](std::string_view segment) {
    const std::string text(split(segment).first);
    const auto place = static_cast<int64_t>(nodes_[at].places.size());
    nodes_[at].places.try_emplace(text, place);
    const auto [child, is_new] = nodes_[at].children.try_emplace(text, static_cast<uint32_t>(nodes_.size()));
    at = child->second;
    if (is_new) nodes_.emplace_back();
    return true;
  });
  const std::string shape = template_of(name);
  (name.ends_with(kExtraStateEnd) ? extra_ : parameters_).insert(shape);
}

bool ModuleOrder::knows(std::string_view name) const {
  uint32_t at = 0;
  bool known = true;
  each_segment(name, [&](std::string_view segment) {
    const auto child = nodes_[at].children.find(split(segment).first);
    known = child != nodes_[at].children.end();
    if (known) at = child->second;
    return known;
  });
  return known;
}

ModuleOrder::Key ModuleOrder::key_of(std::string_view name) const {
  Key key;
  uint32_t at = 0;
  bool known = true;
  each_segment(name, [&](std::string_view segment) {
    const auto [text, number] = split(segment);
    const auto child = known ? nodes_[at].children.find(text) : nodes_[at].children.end();
    known = known && child != nodes_[at].children.end();
    key.push_back(known ? nodes_[at].places.find(text)->second : std::numeric_limits<int64_t>::max());
    key.push_back(number);
    if (known) at = child->second;
    return true;
  });
  return key;
}

bool ModuleOrder::has_parameters(const std::string& module) const {
  const auto at = parameters_.lower_bound(module);
  return at != parameters_.end() && at->starts_with(module);
}

}  // namespace uckpt::megatron
