#include "lib/layout/rule_order.h"

#include <algorithm>
#include <map>

#include "lib/base/text.h"

namespace uckpt::layout {

namespace {

// A segment in a form that is the same only where it takes the same texts.
std::string form_of(const ucl::Segment& s) {
  std::string out = cat(static_cast<int>(s.kind));
  for (const std::string& piece : s.pieces) out += cat(":", piece.size(), ":", piece);
  if (!s.capture) return out;
  out += cat("{", static_cast<int>(s.capture->kind), "+", s.capture->offset);
  for (const std::string& choice : s.capture->choices) out += cat("|", choice.size(), ":", choice);
  return out;
}

}  // namespace

RuleOrder::RuleOrder(const RuleBook& book) : book_(book), blocks_(book.rules().size()) {
  std::map<std::string, uint32_t> known;
  for (uint32_t rule = 0; rule < blocks_.size(); ++rule) {
    std::string form;
    for (const ucl::Segment& s : book.rules()[rule].rule->name.segments) {
      form += cat("/", form_of(s));
      if (!s.capture || s.capture->kind != ucl::Capture::Kind::kNumber) continue;
      blocks_[rule].push_back({&*s.capture, known.emplace(form, rule).first->second});
    }
  }
}

RuleOrder::Key RuleOrder::key_of(uint32_t rule, const std::string& name) const {
  const ucl::NamePattern& pattern = book_.rules()[rule].rule->name;
  const ucl::CaptureValues values = ucl::match(pattern, name).value_or(ucl::CaptureValues{});
  const auto value = [&](const std::string& capture) {
    return std::find_if(values.begin(), values.end(),
                        [&](const ucl::CaptureValue& v) { return v.name == capture; });
  };
  Key key;
  for (const Block& b : blocks_[rule]) {
    const auto found = value(b.capture->name.text);
    key.insert(key.end(), {b.first, found == values.end() ? 0 : found->number});
  }
  key.push_back(rule);
  for (const ucl::Capture* c : pattern.captures()) {
    if (c->kind != ucl::Capture::Kind::kChoice) continue;
    const auto found = value(c->name.text);
    if (found == values.end()) continue;
    key.push_back(std::find(c->choices.begin(), c->choices.end(), found->text) - c->choices.begin());
  }
  return key;
}

}  // namespace uckpt::layout
