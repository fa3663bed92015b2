#include "lib/layout/rule_book.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

constexpr size_t kDeepestUse = 64;

}  // namespace

RuleRef::RuleRef(const ucl::Rule& r, Scope s) : rule(&r), scope(s) {
  whole.ellipsis = ucl::Ellipsis::kFirst;
  whole.span = whole.ellipsis_span = r.body.span;
}

RuleBook::RuleBook(const ucl::Spec& spec, ucl::LayoutRef layout) {
  add(spec, layout, 0);
  for (uint32_t i = 0; i < rules_.size(); ++i) patterns_.add(rules_[i].rule->name, i);
}

void RuleBook::add(const ucl::Spec& spec, ucl::LayoutRef layout, size_t depth) {
  const bool known = std::any_of(layouts_.begin(), layouts_.end(),
                                 [&](const ucl::LayoutRef& l) { return l.layout == layout.layout; });
  if (!layout || known || depth > kDeepestUse) return;
  layouts_.push_back(layout);
  const Scope scope{layout.file, layout.layout};
  for (const ucl::LayoutItem& item : layout.layout->items)
    if (const auto* index = std::get_if<ucl::Index>(&item))
      indices_.try_emplace(index->name.text, IndexRef{index, scope});
  for (const ucl::LayoutItem& item : layout.layout->items) {
    if (const auto* rule = std::get_if<ucl::Rule>(&item)) rules_.emplace_back(*rule, scope);
    if (const auto* use = std::get_if<ucl::LayoutUse>(&item))
      add(spec, spec.layout(use->layout.text), depth + 1);
  }
}

const IndexRef* RuleBook::index(std::string_view capture) const {
  const auto found = indices_.find(capture);
  return found == indices_.end() ? nullptr : &found->second;
}

std::optional<uint32_t> RuleBook::first(std::string_view name,
                                        const std::function<bool(const RuleRef&)>& wanted) const {
  for (const uint32_t id : patterns_.matching(name))
    if (wanted(rules_[id])) return id;
  return std::nullopt;
}

void RuleBook::each_overridden(uint32_t rule, std::string_view name,
                               const std::function<void(uint32_t)>& see) const {
  if (layouts_.size() == 1) return;
  const ucl::Layout* own = rules_[rule].scope.layout;
  for (const uint32_t id : patterns_.matching(name)) {
    const ucl::Layout* other = rules_[id].scope.layout;
    if (id > rule && other != own && other != layouts_.front().layout) see(id);
  }
}

const ucl::Shape& shape_of(const RuleRef& rule) {
  const ucl::Body& body = rule.rule->body;
  return body.kind == ucl::Body::Kind::kShape ? body.shape : rule.whole;
}

std::vector<std::string> trusted_orders(const RuleBook& book, const std::set<uint32_t>& rules) {
  std::vector<std::string> out;
  for (const uint32_t rule : rules) {
    const ucl::Rule& r = *book.rules()[rule].rule;
    if (r.body.kind != ucl::Body::Kind::kShape) continue;
    ucl::each_factor(r.body.shape, [&](const ucl::Factor& f) {
      if (f.kind == ucl::Factor::Kind::kConcat)
        out.push_back(
            cat("the order ", ucl::text_of(f), " in ", ucl::text_of(r.name), ", which no shape tells"));
    });
  }
  return out;
}

}  // namespace uckpt::layout
