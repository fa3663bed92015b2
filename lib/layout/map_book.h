// The rules of one map, read from one naming to the other, in the order in which they are tried; and which
// maps lead from a naming to another.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/ucl/pattern_index.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout {

struct MapRuleRef {
  const ucl::MapRule* rule = nullptr;
  Scope scope;
  bool reversed = false;  // its right side is the source

  const ucl::Side& source() const { return reversed ? rule->right : rule->left; }
  const ucl::Side& target() const { return reversed ? rule->left : rule->right; }
};

class MapBook {
 public:
  // The map must be there; its first naming, as asked for, is the source. `use` is followed in place.
  MapBook(const ucl::Spec& spec, ucl::MapRef map);

  const std::vector<MapRuleRef>& rules() const { return rules_; }
  // The map at hand, then those it uses.
  const std::vector<ucl::MapRef>& maps() const { return maps_; }

  struct PartId {
    uint32_t rule, part;
    bool operator==(const PartId&) const = default;
  };
  using Wanted = std::function<bool(const MapRuleRef&)>;
  // The first part of a side that takes the name, of a rule that `wanted` accepts.
  std::optional<PartId> first_source(std::string_view name, const Wanted& wanted) const;
  std::optional<PartId> first_target(std::string_view name, const Wanted& wanted) const;
  // Did the rule come by `use`, below this one of another map?
  bool is_overridable(uint32_t rule, uint32_t by) const;
  // The parts of rules that came by `use`, and whose name this rule of another map, above them, takes or
  // makes.
  using SeePart = std::function<void(PartId)>;
  void each_overridden_source(uint32_t rule, std::string_view name, const SeePart& see) const;
  void each_overridden_target(uint32_t rule, std::string_view name, const SeePart& see) const;

 private:
  // One side of all rules.
  struct Names {
    ucl::PatternIndex patterns;
    std::vector<PartId> ids;
    void add(const ucl::Side& side, uint32_t rule);
  };
  void add(const ucl::Spec& spec, ucl::MapRef map, size_t depth);
  std::optional<PartId> first(const Names& names, std::string_view name, const Wanted& wanted) const;
  void each_overridden(const Names& names, uint32_t rule, std::string_view name, const SeePart& see) const;

  std::vector<MapRuleRef> rules_;
  std::vector<ucl::MapRef> maps_;
  Names sources_, targets_;
};

// The one chain of maps from a naming to another, in order; each is asked for in that direction. Throws
// trouble (`usage.as`) if there is no such naming, no chain, or more than one.
std::vector<ucl::MapRef> map_chain(const ucl::Spec& spec, std::string_view from, std::string_view to);

}  // namespace uckpt::layout
