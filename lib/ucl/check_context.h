// What the checks of a program share. Internal to this room's check_*.cc.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/ucl/diagnostics.h"
#include "lib/ucl/spec.h"

namespace uckpt::ucl {

using NameSet = std::set<std::string, std::less<>>;
using NamePlaces = std::map<std::string, Span, std::less<>>;  // where each was first declared

// Tables over the whole program.
struct ProgramFacts {
  explicit ProgramFacts(const Spec& spec);

  NameSet sizing;      // names that size a shape: axes, names in a `pad` or in a `where`
  NameSet mesh_names;  // of any layout
};

// One file of a program, and where messages go.
struct Context {
  const Spec& spec;
  const ProgramFacts& facts;
  const File& file;
  Diagnostics& diagnostics;
  NamePlaces where;  // what the file's own `where` declares, outside of blocks

  // A name that is not found may be in a part of the program that was lost.
  bool unsure() const { return !spec.complete(); }

  Diagnostic& error(Span span, std::string code, std::string message) const {
    return diagnostics.error(file.source, span, std::move(code), std::move(message));
  }
  Diagnostic& warning(Span span, std::string code, std::string message) const {
    return diagnostics.warning(file.source, span, std::move(code), std::move(message));
  }
};

// The mesh axes of a layout and of all that it uses.
class Mesh {
 public:
  struct Axis {
    const File* file = nullptr;
    Span span;
    std::vector<std::string> atoms;  // the axis itself, or its two parts
    bool is_part = false;            // its size is set by a `where`
  };

  // Follows `use` breadth first; a layout that is not found is left to another check.
  Mesh(const Context& context, const Layout& layout);

  const Axis* find(std::string_view name) const;
  const std::vector<std::string>& names() const { return names_; }
  bool complete() const { return complete_; }
  // The layout and all it uses, each once, the layout itself first.
  const std::vector<LayoutRef>& layouts() const { return layouts_; }

 private:
  void declare(const File& file, const MeshAxis& axis);

  std::map<std::string, Axis, std::less<>> axes_;
  std::vector<std::string> names_;  // in the order of the text
  std::vector<LayoutRef> layouts_;
  bool complete_ = true;
};

// What an expression may speak of, besides the givens of the program and the file's own `where`.
struct Scope {
  const Mesh* mesh = nullptr;     // inside a layout
  NamePlaces where;               // of the block
  const NameSet* axes = nullptr;  // of the shape around a `pad`; around a `where`, of all shapes
  bool givens_only = false;       // in the default of a `given`
};
void check_expr(const Context& context, const Scope& scope, const Expr& expr);
void check_when(const Context& context, const Scope& scope, const std::vector<Condition>& when);
// Says so where the name is no mesh axis of the layout; true if it is one, or may be.
bool check_mesh_name(const Context& context, const Mesh& mesh, const Layout& layout, const Name& name);

// What all `where` among statements or items declare.
template <class Items>
NamePlaces where_places(const Items& items) {
  NamePlaces out;
  for (const auto& item : items)
    if (const auto* where = std::get_if<Where>(&item))
      for (const Binding& b : where->bindings) out.try_emplace(b.name.text, b.name.span);
  return out;
}
// `given` and `where` of the file outside of blocks; then the `where` of a block, which may speak of axes in
// that block and those it uses (`blocks`, itself first).
void check_facts(const Context& context);
void check_where(const Context& context, const std::vector<const Layout*>& blocks, const Scope& scope);
void check_where(const Context& context, const std::vector<const Map*>& blocks, const Scope& scope);

void check_statements(const Context& context);  // version, duplicates, convert
void check_layout(const Context& context, const Layout& layout);
void check_map(const Context& context, const Map& map);
void check_config(const Context& context, const Config& config);

// No two blocks of a concatenation have one label.
void check_labels(const Context& context, const Factor& concat);
// The names of a rule: no axis twice in a shape or block, and none that a capture of the name takes.
void check_axes(const Context& context, const NamePattern& name, const Shape& shape);
// No mesh axis cuts a block twice.
void check_cuts(const Context& context, const Mesh& mesh, const Shape& shape);

// The sides of the rule have the same terms, so that it is a bijection. `spent` sums up the size of all terms
// of a map, which is bounded.
void check_bijection(const Context& context, const MapRule& rule, size_t& spent);

void check_dtype(const Context& context, const Name& dtype);

}  // namespace uckpt::ucl
