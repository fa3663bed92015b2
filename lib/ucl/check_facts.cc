// `given` and `where`, and the names in expressions and conditions.
#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::ucl {

namespace {

// Names and where they were first declared.
class Table {
 public:
  explicit Table(const Context& context) : c_(context) {}

  void declare(const Name& name) {
    const auto [first, is_new] = spans_.try_emplace(name.text, name.span);
    if (!is_new) twice(c_, name, first->second);
  }
  static void twice(const Context& c, const Name& name, Span first) {
    c.error(name.span, "ucl.name_twice", cat("`", name.text, "` is declared twice"))
        .note(c.file.source, first, "the first time");
  }

 private:
  const Context& c_;
  std::map<std::string, Span> spans_;
};

// The names that stand in a block or a file: as axes, and in expressions.
class Uses {
 public:
  bool has(std::string_view name) const { return names_.contains(name) || axes_.contains(name); }
  const NameSet& axes() const { return axes_; }
  void mention(const std::string& name) { names_.insert(name); }

  template <class Items>
  void add_items(const Items& items) {
    for (const auto& item : items) std::visit([this](const auto& node) { this->add(node); }, item);
  }

  // Axes that nothing declares: what a mistyped `where` was probably meant for.
  std::vector<std::string> undeclared_axes(const Context& c) const {
    std::vector<std::string> out;
    for (const std::string& a : axes_)
      if (!c.where.contains(a) && !c.spec.given(a)) out.push_back(a);
    return out;
  }

  void add(const Layout& layout) {
    for (const MeshAxis& m : layout.mesh)
      if (m.parts) names_.insert({m.parts->first.text, m.parts->second.text});
    add_items(layout.items);
  }
  void add(const Map& map) { add_items(map.items); }

 private:
  void add(const Given& given) {
    for (const GivenVar& v : given.vars)
      if (v.fallback) add(*v.fallback);
  }
  void add(const Where& where) {
    for (const Binding& b : where.bindings) add(b.value);
  }
  void add(const Index& index) {
    if (index.count) add(*index.count);
  }
  void add(const Rule& rule) {
    add(rule.body.shape);
    if (rule.body.value) add(rule.body.value->expr);
    add(rule.when);
  }
  void add(const MapRule& rule) {
    for (const Side* side : {&rule.left, &rule.right})
      for (const Part& p : side->parts) {
        if (p.shape) add(*p.shape);
        if (p.value) add(p.value->expr);
      }
    add(rule.when);
  }
  template <class Other>
  void add(const Other&) {}  // what names no size

  void add(const Expr& expr) {
    each_name(expr, [this](const std::string& name, Span) { names_.insert(name); });
  }
  void add(const std::vector<Condition>& when) {
    for (const Condition& c : when) {
      add(c.left);
      add(c.right);
    }
  }
  void add(const Shape& shape) {
    each_factor(shape, [this](const Factor& f) {
      if (f.kind == Factor::Kind::kAxis) axes_.insert(f.axis.text);
      if (f.pad) add(*f.pad);
    });
  }

  NameSet names_, axes_;
};

void warn_unused(const Context& c, const Where& where, const Uses& uses) {
  if (c.unsure()) return;
  for (const Binding& b : where.bindings)
    if (!uses.has(b.name.text))
      c.warning(b.name.span, "ucl.unused_where", cat("nothing speaks of `", b.name.text, "`"))
          .suggest(b.name.text, [&] { return uses.undeclared_axes(c); });
}

// A given may stand in several files, but not with two defaults.
void check_default(const Context& c, const GivenVar& var) {
  const GivenRef first = c.spec.given(var.name.text);
  if (!first || first.file == &c.file || !first.var->fallback || !var.fallback) return;
  if (text_of(*first.var->fallback) == text_of(*var.fallback)) return;
  c.error(var.fallback->span, "ucl.default_twice", cat("the given `", var.name.text, "` has two defaults"))
      .note(first.file->source, first.var->fallback->span, "the first one");
}

// Where the file declares a name outside of blocks.
const Span* declared_in_file(const Context& c, std::string_view name) {
  if (const auto found = c.where.find(name); found != c.where.end()) return &found->second;
  const GivenRef given = c.spec.given(name);
  return given.file == &c.file ? &given.var->name.span : nullptr;
}

// The `where` of a block: its names are the block's own, and not those of the file.
template <class Block>
void check_block(const Context& c, const std::vector<const Block*>& blocks, Scope scope) {
  Table table(c);
  Uses uses;
  for (const Block* b : blocks) uses.add(*b);
  scope.axes = &uses.axes();
  each<Where>(blocks.front()->items, [&](const Where& w) {
    for (const Binding& b : w.bindings) {
      if (const Mesh::Axis* axis = scope.mesh ? scope.mesh->find(b.name.text) : nullptr;
          axis && !axis->is_part) {
        uses.mention(b.name.text);
        c.error(b.name.span, "ucl.where_mesh",
                cat("`", b.name.text, "` is a mesh axis, whose size is not set here"))
            .note(axis->file->source, axis->span, "declared here")
            .hint("mesh sizes come with the checkpoint, or from `--layout`");
      }
      if (const Span* outer = declared_in_file(c, b.name.text)) Table::twice(c, b.name, *outer);
      table.declare(b.name);
      check_expr(c, scope, b.value);
    }
    warn_unused(c, w, uses);
  });
}

// ---- names in expressions
// ------------------------------------------------------------------------------------

bool is_known(const Context& c, const Scope& scope, std::string_view name) {
  if (c.spec.given(name)) return true;
  if (scope.givens_only) return false;
  return c.where.contains(name) || scope.where.contains(name) || (scope.mesh && scope.mesh->find(name)) ||
         (scope.axes && scope.axes->contains(name));
}

std::vector<std::string> known_names(const Context& c, const Scope& scope) {
  std::vector<std::string> out = c.spec.given_names();
  if (scope.givens_only) return out;
  for (const auto* places : {&c.where, &scope.where})
    for (const auto& [name, span] : *places) out.push_back(name);
  if (scope.mesh) out.insert(out.end(), scope.mesh->names().begin(), scope.mesh->names().end());
  return out;
}

void unknown_name(const Context& c, const Scope& scope, const std::string& name, Span span) {
  if (!scope.mesh && c.facts.mesh_names.contains(name)) {
    c.error(span, "ucl.mesh_size", cat("the mesh axis `", name, "` has a size only inside of its layout"));
  } else if (scope.givens_only && c.where.contains(name)) {
    c.error(span, "ucl.unknown_name", cat("`", name, "` is set by `where`: a default speaks of givens"));
  } else if (!c.unsure()) {
    c.error(span, "ucl.unknown_name", cat("nothing called `", name, "` has a size here")).suggest(name, [&] {
      return known_names(c, scope);
    });
  }
}

void check_condition_name(const Context& c, const Scope& scope, const std::string& name, Span span) {
  if (scope.mesh && scope.mesh->find(name)) return;
  const bool is_where = c.where.contains(name) || scope.where.contains(name);
  const GivenRef given = c.spec.given(name);
  if (!given && !is_where && !c.facts.mesh_names.contains(name) && !c.unsure()) {
    c.error(span, "ucl.unknown_name",
            cat("no ", scope.mesh ? "mesh axis and no " : "", "given is called `", name, "`"))
        .suggest(name, [&] { return known_names(c, scope); });
    return;
  }
  if (!given && !is_where) return unknown_name(c, scope, name, span);
  if (given && !c.facts.sizing.contains(name)) return;
  Diagnostic& d = c.error(span, "ucl.condition",
                          cat("`", name, given ? "` is a given that sizes a shape" : "` is set by `where`",
                              ": a condition cannot wait for sizes"));
  if (given) d.note(given.file->source, given.var->name.span, "declared here");
  d.hint("conditions speak of mesh sizes, and of givens that no shape and no `where` uses");
}

// Nothing has such a size: left alone, it would count as one that the shapes tell.
void refuse_division_by_zero(const Context& c, const Expr& expr) {
  for (const Operand& o : expr.operands) {
    const bool is_zero = o.expr.kind == Expr::Kind::kNumber && o.expr.number == 0;
    if (expr.kind == Expr::Kind::kProduct && o.inverted && is_zero)
      c.error(o.expr.span, "ucl.divided_by_zero", "a size is divided by 0");
    refuse_division_by_zero(c, o.expr);
  }
}

}  // namespace

void check_expr(const Context& context, const Scope& scope, const Expr& expr) {
  refuse_division_by_zero(context, expr);
  each_name(expr, [&](const std::string& name, Span span) {
    if (!is_known(context, scope, name)) unknown_name(context, scope, name, span);
  });
}

void check_when(const Context& context, const Scope& scope, const std::vector<Condition>& when) {
  for (const Condition& w : when)
    for (const Expr* side : {&w.left, &w.right})
      each_name(*side, [&](const std::string& name, Span span) {
        check_condition_name(context, scope, name, span);
      });
}

void check_facts(const Context& context) {
  const auto& statements = context.file.program.statements;
  Table table(context);
  Uses uses;
  uses.add_items(statements);
  Scope of_default, of_where;
  of_default.givens_only = true;
  of_where.axes = &uses.axes();
  for (const Statement& s : statements) {
    if (const auto* given = std::get_if<Given>(&s)) {
      for (const GivenVar& v : given->vars) {
        table.declare(v.name);
        check_default(context, v);
        if (v.fallback) check_expr(context, of_default, *v.fallback);
      }
    } else if (const auto* where = std::get_if<Where>(&s)) {
      for (const Binding& b : where->bindings) {
        table.declare(b.name);
        check_expr(context, of_where, b.value);
      }
      warn_unused(context, *where, uses);
    }
  }
}

void check_where(const Context& context, const std::vector<const Layout*>& blocks, const Scope& scope) {
  check_block(context, blocks, scope);
}
void check_where(const Context& context, const std::vector<const Map*>& blocks, const Scope& scope) {
  check_block(context, blocks, scope);
}

}  // namespace uckpt::ucl
