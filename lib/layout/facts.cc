#include "lib/layout/facts.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

std::string text_of(const Coordinate& at) {
  std::string out;
  for (const auto& [axis, place] : at) out += cat(out.empty() ? "" : ", ", axis, " ", place);
  return out.empty() ? "0" : out;
}

Facts::Facts(const ucl::Spec& spec, std::vector<ucl::LayoutRef> layouts, const Settings& settings,
             ucl::Diagnostics& diagnostics, std::vector<ucl::MapRef> maps)
    : spec_(spec), diagnostics_(diagnostics), is_joined_(settings.is_joined) {
  for (const ucl::LayoutRef& ref : layouts) declare_mesh(ref, settings);
  declare_givens(settings);
  for (const auto& file : spec.files()) {
    ucl::each<ucl::Where>(file->program.statements, [&](const ucl::Where& w) {
      declare_where(w, {file.get(), nullptr});
    });
  }
  for (const ucl::LayoutRef& ref : layouts) {
    ucl::each<ucl::Where>(ref.layout->items, [&](const ucl::Where& w) {
      declare_where(w, {ref.file, ref.layout});
    });
  }
  for (const ucl::MapRef& ref : maps) {
    ucl::each<ucl::Where>(ref.map->items, [&](const ucl::Where& w) {
      declare_where(w, {ref.file, nullptr, ref.map});
    });
  }
  for (const auto& [name, value] : settings.set) {
    for (Unknown u = 0; u < sizes_.size(); ++u)
      if (sizes_[u].name == name) set(u, value, cat("--set ", name));
  }
  propagate();
}

Unknown Facts::declare(std::string key, std::string name) {
  const auto [entry, fresh] = keys_.try_emplace(std::move(key), static_cast<Unknown>(sizes_.size()));
  if (fresh) sizes_.push_back({std::move(name), {}, std::nullopt});
  return entry->second;
}

// The mesh is one for the layout and all it uses: the names are the format's.
void Facts::declare_mesh(const ucl::LayoutRef& ref, const Settings& settings) {
  for (const ucl::MeshAxis& axis : ref.layout->mesh) {
    const Unknown whole = declare(cat("mesh:", axis.name.text), axis.name.text);
    const auto given = settings.mesh.find(axis.name.text);
    set(whole, given == settings.mesh.end() ? 1 : given->second, "the mesh");
    if (!axis.parts) continue;
    const auto& [outer, inner] = *axis.parts;
    declare(cat("mesh:", outer.text), outer.text);
    declare(cat("mesh:", inner.text), inner.text);
    parts_[outer.text] = {axis.name.text, inner.text, true};
    parts_[inner.text] = {axis.name.text, outer.text, false};
  }
}

std::string Facts::where_key(const Scope& scope, std::string_view name) {
  const std::string owner = scope.layout ? scope.layout->name.text
                            : scope.map  ? cat(scope.map->left.text, "<->", scope.map->right.text)
                                         : std::string();
  return cat("where:", scope.file->source.name(), ":", owner, ":", name);
}

void Facts::declare_where(const ucl::Where& where, const Scope& scope) {
  for (const ucl::Binding& b : where.bindings) {
    // A `where` on a part of the mesh sets its size.
    const auto part = find_key(cat("mesh:", b.name.text));
    const Unknown left = part && scope.layout ? *part : declare(where_key(scope, b.name.text), b.name.text);
    equations_.push_back({left, &b.value, scope});
  }
}

void Facts::declare_givens(const Settings& settings) {
  for (const auto& file : spec_.files()) {
    ucl::each<ucl::Given>(file->program.statements, [&](const ucl::Given& given) {
      for (const ucl::GivenVar& var : given.vars) {
        const Unknown u = declare(cat("given:", var.name.text), var.name.text);
        const auto solved = settings.solved.find(var.name.text);
        if (solved != settings.solved.end()) set(u, solved->second.value, solved->second.from);
        take_arguments(u, *file, var, settings);
        if (var.fallback) defaults_.push_back({u, &*var.fallback, {file.get(), nullptr}});
      }
    });
  }
}

namespace {

std::optional<int64_t> argument(const ucl::Key& key, const Settings& settings) {
  if (key.equals) {
    const auto found = settings.texts.find(key.text);
    return found == settings.texts.end() ? std::nullopt
                                         : std::optional<int64_t>(found->second == *key.equals);
  }
  const auto found = settings.arguments.find(key.text);
  return found == settings.arguments.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace

void Facts::take_arguments(Unknown unknown, const ucl::File& file, const ucl::GivenVar& var,
                           const Settings& settings) {
  if (settings.set.contains(var.name.text)) return;  // said by a person, who may know better
  for (const ucl::Key& key : var.keys) {
    const auto found = argument(key, settings);
    if (!found) continue;
    const int64_t value = key.negated ? static_cast<int64_t>(*found == 0) : *found;
    if (set(unknown, value, cat("the argument ", key.text))) continue;
    diagnostics_
        .error(file.source, key.span, "ucl.size_conflict",
               cat("`", var.name.text, "` has two values: ", sizes_[unknown].value.value_or(0), " from ",
                   sizes_[unknown].from, ", ", value, " from the argument ", key.text))
        .hint(cat("--set ", var.name.text, "=N says which is right"));
  }
}

std::optional<Unknown> Facts::find_key(const std::string& key) const {
  const auto found = keys_.find(key);
  return found == keys_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<Unknown> Facts::find(const Scope& scope, std::string_view name) const {
  if (scope.layout) {
    if (const auto u = find_key(cat("mesh:", name))) return u;
    if (const auto u = find_key(where_key(scope, name))) return u;
  }
  if (scope.map) {
    if (const auto u = find_key(where_key(scope, name))) return u;
  }
  if (const auto u = find_key(where_key({scope.file, nullptr}, name))) return u;
  return find_key(cat("given:", name));
}

Linear Facts::get(Unknown unknown) const {
  const auto& value = sizes_[unknown].value;
  return value ? Linear::known(*value) : Linear::of(unknown);
}

bool Facts::set(Unknown unknown, int64_t value, std::string from) {
  Size& size = sizes_[unknown];
  if (size.value) return *size.value == value;
  size.value = value;
  size.from = std::move(from);
  ++known_;
  return true;
}

Linear Facts::evaluate(const ucl::Expr& expr, const Scope& scope, const AxisLookup& axis) const {
  using Kind = ucl::Expr::Kind;
  const auto operand = [&](size_t i) { return evaluate(expr.operands[i].expr, scope, axis); };
  switch (expr.kind) {
    case Kind::kNumber:
      return Linear::known(expr.number);
    case Kind::kName: {
      const auto fact = find(scope, expr.name);
      return fact ? get(*fact) : axis(expr.name);
    }
    case Kind::kMin: {
      const auto a = operand(0).value(), b = operand(1).value();
      return a && b ? Linear::known(std::min(*a, *b)) : Linear::beyond();
    }
    case Kind::kSum:
    case Kind::kProduct: {
      Linear out = operand(0);
      for (size_t i = 1; i < expr.operands.size(); ++i) {
        const bool inverted = expr.operands[i].inverted;
        const Linear next = operand(i);
        if (expr.kind == Kind::kSum) {
          out = inverted ? out - next : out + next;
        } else {
          out = inverted ? out / next : out * next;
        }
      }
      return out;
    }
  }
  return Linear::beyond();
}

namespace {

Linear no_axis(std::string_view) { return Linear::beyond(); }

bool compare(ucl::Comparison how, int64_t a, int64_t b) {
  switch (how) {
    case ucl::Comparison::kLess:
      return a < b;
    case ucl::Comparison::kLessEqual:
      return a <= b;
    case ucl::Comparison::kGreater:
      return a > b;
    case ucl::Comparison::kGreaterEqual:
      return a >= b;
    case ucl::Comparison::kEqual:
      return a == b;
    case ucl::Comparison::kNotEqual:
      return a != b;
  }
  return false;
}

}  // namespace

std::optional<bool> Facts::holds(const std::vector<ucl::Condition>& when, const Scope& scope) const {
  for (const ucl::Condition& c : when) {
    const auto left = evaluate(c.left, scope, no_axis).value();
    if (!left) return std::nullopt;
    if (c.kind == ucl::Condition::Kind::kCompare) {
      const auto right = evaluate(c.right, scope, no_axis).value();
      if (!right) return std::nullopt;
      if (!compare(c.comparison, *left, *right)) return false;
    } else if ((*left != 0) != (c.kind == ucl::Condition::Kind::kTrue)) {
      return false;
    }
  }
  return true;
}

void Facts::propagate() {
  for (size_t before = known_ + 1; before != known_;) {
    before = known_;
    for (const Equation& e : equations_) {
      Unknown unknown = kNobody;
      const auto found = Linear::solve(get(e.left), evaluate(*e.right, e.scope, no_axis), unknown);
      if (found && found->is_whole() && found->over >= 0)
        set(unknown, found->over, cat("`", sizes_[e.left].name, "`"));
    }
    for (const auto& [name, part] : parts_) {
      const Linear whole = get(*find_key(cat("mesh:", part.whole)));
      const Linear parts = get(*find_key(cat("mesh:", name))) * get(*find_key(cat("mesh:", part.sibling)));
      Unknown unknown = kNobody;
      const auto found = Linear::solve(whole, parts, unknown);
      if (found && found->is_whole() && found->over > 0) set(unknown, found->over, "the mesh");
    }
  }
}

void Facts::take_defaults() {
  for (size_t before = known_ + 1; before != known_;) {
    before = known_;
    for (const Equation& e : defaults_) {
      if (sizes_[e.left].value) continue;
      const auto value = evaluate(*e.right, e.scope, no_axis).value();
      if (value && *value >= 0) set(e.left, *value, "its default");
    }
    propagate();
  }
}

bool Facts::knows_all_names(const Equation& e) const {
  bool all = true;
  ucl::each_name(*e.right, [&](std::string_view name, ucl::Span) {
    const auto fact = find(e.scope, name);
    all = all && fact && sizes_[*fact].value;
  });
  return all;
}

void Facts::tell_no_number(const Equation& e) const {
  diagnostics_.error(
      e.scope.file->source, e.right->span, "ucl.size_unknown",
      cat("`", sizes_[e.left].name, "` cannot be this: it is beyond 64 bits, or divided by 0"));
}

// It is known, and no size was made of it.
void Facts::tell_no_size(const Equation& e) const {
  const auto value = evaluate(*e.right, e.scope, no_axis).value();
  diagnostics_.error(
      e.scope.file->source, e.right->span, "ucl.size_conflict",
      cat("`", sizes_[e.left].name, "` cannot be this: a size is a whole number from 0 up, this is ",
          value ? cat(*value) : std::string("a fraction")));
}

void Facts::check() const {
  for (const Equation& e : defaults_)
    if (!sizes_[e.left].value && knows_all_names(e) && evaluate(*e.right, e.scope, no_axis).is_beyond())
      tell_no_number(e);
  for (const Equation& e : equations_) {
    const Linear left = get(e.left), right = evaluate(*e.right, e.scope, no_axis);
    if (right.is_beyond() && knows_all_names(e)) tell_no_number(e);
    if (right.is_known() && !left.is_known()) tell_no_size(e);
    if (!left.is_known() || !right.is_known()) continue;
    if (left.value() == right.value() && left.value()) continue;
    const auto value = right.value();
    diagnostics_.error(
        e.scope.file->source, e.right->span, "ucl.size_conflict",
        cat("`", sizes_[e.left].name, "` is ", left.value().value_or(0), " (from ", sizes_[e.left].from,
            "), but this is ", value ? cat(*value) : std::string("not a whole number")));
  }
  for (const auto& [name, part] : parts_) {
    const auto whole = sizes_[*find_key(cat("mesh:", part.whole))].value,
               own = sizes_[*find_key(cat("mesh:", name))].value,
               other = sizes_[*find_key(cat("mesh:", part.sibling))].value;
    if (!part.outer || !whole || !own || !other || *own * *other == *whole) continue;
    diagnostics_.error(spec_.root().source, {0, 0}, "ucl.size_conflict",
                       cat("the mesh axis `", part.whole, "` has size ", *whole, ", its parts `", name,
                           "` and `", part.sibling, "` have ", *own, " and ", *other));
  }
}

std::vector<std::string> Facts::trusted() const {
  std::vector<std::string> out;
  for (const Size& s : sizes_) {
    const bool outside =
        s.from.starts_with("--set") || s.from.starts_with("the argument") || s.from == "its default";
    if (s.value && outside) out.push_back(cat(s.name, " = ", *s.value, ", from ", s.from));
  }
  return out;
}

std::map<std::string, Settings::Solved, std::less<>> Facts::solved_givens() const {
  std::map<std::string, Settings::Solved, std::less<>> out;
  for (const auto& [key, unknown] : keys_) {
    const Size& s = sizes_[unknown];
    if (s.value && key.starts_with("given:")) out.emplace(s.name, Settings::Solved{*s.value, s.from});
  }
  return out;
}

std::optional<int64_t> Facts::mesh_size(const Scope&, std::string_view axis) const {
  const auto u = find_key(cat("mesh:", axis));
  return u ? sizes_[*u].value : std::nullopt;
}

std::optional<int64_t> Facts::place(const Scope& scope, const Coordinate& at, std::string_view axis) const {
  const auto size = mesh_size(scope, axis);
  if (!size) return std::nullopt;
  if (*size == 1) return 0;
  const auto part = parts_.find(axis);
  if (part == parts_.end()) {
    const auto found = at.find(axis);
    return found == at.end() ? std::nullopt : std::optional(found->second);
  }
  const auto whole = place(scope, at, part->second.whole);
  const auto inner = part->second.outer ? mesh_size(scope, part->second.sibling) : size;
  if (!whole || !inner || *inner == 0) return std::nullopt;
  return part->second.outer ? *whole / *inner : *whole % *inner;
}

std::string_view Facts::whole_of(std::string_view axis) const {
  const auto part = parts_.find(axis);
  return part == parts_.end() ? axis : std::string_view(part->second.whole);
}

Coordinate Facts::moved(const Scope& scope, Coordinate at, std::string_view axis, int64_t to) const {
  const auto part = parts_.find(axis);
  if (part == parts_.end()) {
    if (const auto found = at.find(axis); found != at.end()) found->second = to;
    return at;
  }
  const auto found = at.find(part->second.whole);
  const auto own = place(scope, at, axis);
  if (found == at.end() || !own) return at;
  const int64_t step = part->second.outer ? mesh_size(scope, part->second.sibling).value_or(1) : 1;
  found->second += (to - *own) * step;
  return at;
}

}  // namespace uckpt::layout
