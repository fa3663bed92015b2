// The rules of one layout with those it uses, in the order in which they are tried.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/ucl/pattern_index.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout {

struct RuleRef {
  RuleRef(const ucl::Rule& rule, Scope scope);
  const ucl::Rule* rule;
  Scope scope;
  ucl::Shape whole;  // `[...]` in the place of a body that has no shape, for messages
};
struct IndexRef {
  const ucl::Index* index = nullptr;
  Scope scope;
};

class RuleBook {
 public:
  // The layout must be there. `use` is followed in place; what it names was checked.
  RuleBook(const ucl::Spec& spec, ucl::LayoutRef layout);

  const std::vector<RuleRef>& rules() const { return rules_; }
  const std::vector<ucl::LayoutRef>& layouts() const { return layouts_; }
  // How the names with this capture are placed; a layout's own `index` replaces that of one it uses.
  const IndexRef* index(std::string_view capture) const;
  const std::map<std::string, IndexRef, std::less<>>& indices() const { return indices_; }
  // The first rule whose pattern takes the name and that `wanted` accepts.
  std::optional<uint32_t> first(std::string_view name,
                                const std::function<bool(const RuleRef&)>& wanted) const;
  // The rules that came by `use`, and whose name this rule of another layout, above them, takes.
  void each_overridden(uint32_t rule, std::string_view name, const std::function<void(uint32_t)>& see) const;

 private:
  void add(const ucl::Spec& spec, ucl::LayoutRef layout, size_t depth);

  std::vector<RuleRef> rules_;
  std::vector<ucl::LayoutRef> layouts_;
  std::map<std::string, IndexRef, std::less<>> indices_;
  ucl::PatternIndex patterns_;
};

// The shape of a rule's body; where it has none, the tensor is whole: `[...]`.
const ucl::Shape& shape_of(const RuleRef& rule);
// The orders of blocks in the shapes of these rules: another order has the same shapes.
std::vector<std::string> trusted_orders(const RuleBook& book, const std::set<uint32_t>& rules);

}  // namespace uckpt::layout
