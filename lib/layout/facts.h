// The sizes that a whole program shares: mesh sizes, `given` and `where`, and what is said about them
// outside.
//
// Everything is an equation. One that is linear in its only unknown gives it; that repeats until nothing
// changes, so order cannot matter.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/layout/linear.h"
#include "lib/tensor/catalog.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout {

using uckpt::Coordinate;
std::string text_of(const Coordinate& at);  // "tp 1, pp 0"; "0" for the only one

// What is known from outside of the text.
struct Settings {
  std::map<std::string, int64_t, std::less<>> set;        // --set heads=32
  std::map<std::string, int64_t, std::less<>> arguments;  // the checkpoint's own, flat: "num_attention_heads"
  std::map<std::string, int64_t, std::less<>> mesh;       // sizes; an axis that is not here has size 1

  // Of a target: how many of an index's numbers each rank of an axis gets: {"pp", {7, 8, 8, 7}}. They hold
  // where the index itself says no sizes.
  std::map<std::string, std::vector<int64_t>, std::less<>> shares = {};
  // Of a source: a coordinate that lacks an axis stands for all ranks along it. What they hold is joined
  // already, and only padding is left to be told.
  bool is_joined = false;

  // Of a `given`, as an earlier step of the same program found it.
  struct Solved {
    int64_t value;
    std::string from;
  };
  std::map<std::string, Solved, std::less<>> solved = {};
  // The checkpoint's own settings that are texts.
  std::map<std::string, std::string, std::less<>> texts = {};
};

// Where an expression stands, and so what its names mean.
struct Scope {
  const ucl::File* file = nullptr;
  const ucl::Layout* layout = nullptr;  // null outside of layouts
  const ucl::Map* map = nullptr;        // null outside of maps
};

class Facts {
 public:
  // `layouts`: the layout at hand and those it uses, whose mesh and `where` count; `maps`: the same of maps.
  Facts(const ucl::Spec& spec, std::vector<ucl::LayoutRef> layouts, const Settings& settings,
        ucl::Diagnostics& diagnostics, std::vector<ucl::MapRef> maps = {});

  // The unknown behind a name; nothing if it is an axis of the rule at hand.
  std::optional<Unknown> find(const Scope& scope, std::string_view name) const;
  std::optional<int64_t> value(Unknown unknown) const { return sizes_[unknown].value; }
  Linear get(Unknown unknown) const;
  // Gives a size; false if it has another one already.
  bool set(Unknown unknown, int64_t value, std::string from);
  // How many sizes were given so far: equations are worth another look when it grew.
  size_t known() const { return known_; }
  const std::string& name(Unknown unknown) const { return sizes_[unknown].name; }
  // Where the size came from: "--set heads", "the argument num_attention_heads".
  const std::string& origin(Unknown unknown) const { return sizes_[unknown].from; }
  size_t count() const { return sizes_.size(); }

  // Names that are no facts are asked for from `axis`.
  using AxisLookup = std::function<Linear(std::string_view name)>;
  Linear evaluate(const ucl::Expr& expr, const Scope& scope, const AxisLookup& axis) const;
  // All conditions hold; nothing if a size in them is unknown.
  std::optional<bool> holds(const std::vector<ucl::Condition>& when, const Scope& scope) const;

  void propagate();      // the equations of `where` and the mesh, until nothing changes
  void take_defaults();  // of each `given` that is still unknown, then propagates
  void check() const;    // every equation, every contradiction told

  // What no shape proves, and where it came from: "g = 4, from --set g".
  std::vector<std::string> trusted() const;
  // The givens whose sizes are known, for a later step.
  std::map<std::string, Settings::Solved, std::less<>> solved_givens() const;

  // As Settings::is_joined.
  bool is_joined() const { return is_joined_; }

  // The mesh.
  std::optional<int64_t> mesh_size(const Scope& scope, std::string_view axis) const;
  // A rank's place on an axis or part of one. 0 where the axis has size 1; nothing where the format does not
  // tell, or a size is unknown.
  std::optional<int64_t> place(const Scope& scope, const Coordinate& at, std::string_view axis) const;
  // The axis that coordinates have: of a part, the whole.
  std::string_view whole_of(std::string_view axis) const;
  // The same rank moved along an axis or part of one.
  Coordinate moved(const Scope& scope, Coordinate at, std::string_view axis, int64_t to) const;

 private:
  struct Size {
    std::string name, from;
    std::optional<int64_t> value;
  };
  struct Equation {
    Unknown left;
    const ucl::Expr* right;
    Scope scope;
  };
  struct Part {
    std::string whole;  // axis that it is part of
    std::string sibling;
    bool outer;
  };

  bool knows_all_names(const Equation& equation) const;
  void tell_no_number(const Equation& equation) const;
  void tell_no_size(const Equation& equation) const;
  Unknown declare(std::string key, std::string name);
  void declare_mesh(const ucl::LayoutRef& ref, const Settings& settings);
  void declare_where(const ucl::Where& where, const Scope& scope);
  void declare_givens(const Settings& settings);
  void take_arguments(Unknown unknown, const ucl::File& file, const ucl::GivenVar& var,
                      const Settings& settings);
  std::optional<Unknown> find_key(const std::string& key) const;
  static std::string where_key(const Scope& scope, std::string_view name);

  const ucl::Spec& spec_;
  ucl::Diagnostics& diagnostics_;
  std::vector<Size> sizes_;
  std::map<std::string, Unknown, std::less<>> keys_;
  std::map<std::string, Part, std::less<>> parts_;
  std::map<const ucl::Layout*, std::vector<const ucl::Layout*>> used_;
  std::vector<Equation> equations_, defaults_;
  size_t known_ = 0;
  bool is_joined_;
};

}  // namespace uckpt::layout
