// The rules of one layout with those it uses, in the order in which they are tried.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/ucl/pattern_index.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout {

struct RuleRef {
  const ucl::Rule* rule = nullptr;
  Scope scope;
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
  // The first rule whose pattern takes the name and that `wanted` accepts.
  std::optional<uint32_t> first(std::string_view name,
                                const std::function<bool(const RuleRef&)>& wanted) const;

 private:
  void add(const ucl::Spec& spec, ucl::LayoutRef layout, size_t depth);

  std::vector<RuleRef> rules_;
  std::vector<ucl::LayoutRef> layouts_;
  std::map<std::string, IndexRef, std::less<>> indices_;
  ucl::PatternIndex patterns_;
};

}  // namespace uckpt::layout
