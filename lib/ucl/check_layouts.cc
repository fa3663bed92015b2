// Layouts: mesh axes, indexes, the rules and their modifiers.
#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/check_hidden.h"
#include "lib/ucl/walk.h"

namespace uckpt::ucl {

namespace {

class LayoutChecker {
 public:
  LayoutChecker(const Context& context, const Layout& layout)
      : c_(context), layout_(layout), mesh_(context, layout) {
    scope_.mesh = &mesh_;
    scope_.where = where_places(layout.items);
  }

  void check() {
    check_mesh_axes();
    std::vector<const Layout*> layouts;
    for (const LayoutRef& l : mesh_.layouts()) layouts.push_back(l.layout);
    check_where(c_, layouts, scope_);
    check_uses();
    check_indexes();
    HidingRules rules;
    each<Rule>(layout_.items, [&](const Rule& rule) {
      check_rule(rule);
      check_hidden(rules, rule);
    });
  }

 private:
  Diagnostic& twice(Span span, std::string code, std::string message, Span first) {
    return c_.error(span, std::move(code), std::move(message)).note(c_.file.source, first, "the first one");
  }

  void check_mesh_axes() {
    std::map<std::string, Span> seen;
    const auto declare = [&](const Name& name) {
      const auto [first, is_new] = seen.try_emplace(name.text, name.span);
      if (!is_new)
        twice(name.span, "ucl.name_twice", cat("the mesh axis `", name.text, "` is declared twice"),
              first->second);
      if (!is_new) return;
      const GivenRef given = c_.spec.given(name.text);
      const auto where = c_.where.find(name.text);
      if (!given && where == c_.where.end()) return;
      c_.error(name.span, "ucl.name_twice",
               cat("the mesh axis `", name.text, "` has the name of another size"))
          .note(given ? given.file->source : c_.file.source, given ? given.var->name.span : where->second,
                "declared here");
    };
    for (const MeshAxis& m : layout_.mesh) {
      declare(m.name);
      if (!m.parts) continue;
      declare(m.parts->first);
      declare(m.parts->second);
    }
  }

  // ---- use ----

  void check_uses() {
    each<LayoutUse>(layout_.items, [&](const LayoutUse& use) {
      const LayoutRef used = c_.spec.layout(use.layout.text);
      if (used) return check_circle(use, *used.layout);
      if (c_.unsure()) return;
      c_.error(use.layout.span, "ucl.unknown_layout", cat("there is no layout `", use.layout.text, "`"))
          .suggest(use.layout.text, [&] { return c_.spec.layout_names(); });
    });
  }

  void check_circle(const LayoutUse& use, const Layout& used) {
    const Mesh mesh(c_, used);
    const auto& reached = mesh.layouts();
    if (std::none_of(reached.begin(), reached.end(),
                     [&](const LayoutRef& l) { return l.layout == &layout_; }))
      return;
    c_.error(use.span, "ucl.use_cycle",
             &used == &layout_
                 ? cat("the layout `", layout_.name.text, "` uses itself")
                 : cat("`", use.layout.text, "` uses the layout `", layout_.name.text, "` in turn"));
  }

  // ---- index ----

  struct SeenCapture {
    const File* file;
    const Capture* capture;
  };
  using Captures = std::map<std::string, SeenCapture, std::less<>>;

  void check_indexes() {
    std::map<std::string, Span> seen;
    const Captures captures = captures_of_rules();
    each<Index>(layout_.items, [&](const Index& index) {
      const auto [first, is_new] = seen.try_emplace(index.name.text, index.name.span);
      if (!is_new)
        twice(index.name.span, "ucl.name_twice", cat("`", index.name.text, "` has two indexes"),
              first->second);
      if (index.count) check_expr(c_, scope_, *index.count);
      check_cut(index.cut);
      check_cut_once(index.cut);
      check_indexed(index, captures);
    });
  }

  void check_cut_once(const Cut& cut) {
    for (size_t i = 0; i < cut.axes.size(); ++i)
      for (size_t k = 0; k < i; ++k)
        if (cut.axes[k].axis == cut.axes[i].axis) {
          twice(cut.axes[i].span, "ucl.cut_twice",
                cat("the mesh axis `", cut.axes[i].axis.text, "` stands twice in one index"),
                cut.axes[k].span);
          break;
        }
  }

  // Some rule has the index in its name, as a number.
  void check_indexed(const Index& index, const Captures& captures) {
    const auto found = captures.find(index.name.text);
    if (found == captures.end()) {
      if (c_.unsure() || !mesh_.complete()) return;
      c_.error(index.name.span, "ucl.unused_index", cat("no rule has `{", index.name.text, "}` in its name"))
          .suggest(index.name.text, [&] { return names_of(captures); });
    } else if (found->second.capture->kind != Capture::Kind::kNumber) {
      c_.error(index.name.span, "ucl.index_number",
               cat("an index is a number, but `", index.name.text, "` is text in the name of a rule"))
          .note(found->second.file->source, found->second.capture->span, "captured here");
    }
  }

  // The captures in the names of all rules, those that are no number first.
  Captures captures_of_rules() const {
    Captures out;
    for (const LayoutRef& l : mesh_.layouts())
      each<Rule>(l.layout->items, [&](const Rule& rule) {
        for (const Capture* capture : rule.name.captures()) {
          const auto [first, is_new] = out.try_emplace(capture->name.text, SeenCapture{l.file, capture});
          if (!is_new && capture->kind != Capture::Kind::kNumber) first->second = {l.file, capture};
        }
      });
    return out;
  }
  static std::vector<std::string> names_of(const Captures& captures) {
    std::vector<std::string> out;
    for (const auto& [name, seen] : captures) out.push_back(name);
    return out;
  }

  // ---- rules ----

  void check_rule(const Rule& rule) {
    check_body(rule);
    check_on(rule);
    if (rule.dtype) check_dtype(c_, *rule.dtype);
    check_when(c_, scope_, rule.when);
    for (size_t i = 0; i < rule.states.size(); ++i)
      if (std::find(rule.states.begin(), rule.states.begin() + static_cast<ptrdiff_t>(i), rule.states[i]) !=
          rule.states.begin() + static_cast<ptrdiff_t>(i))
        c_.error(rule.states[i].span, "ucl.modifier_twice",
                 cat("the state `", rule.states[i].text, "` stands twice"));
  }

  void check_body(const Rule& rule) {
    const Body& body = rule.body;
    if (body.kind == Body::Kind::kShape) check_shape(rule);
    if (body.value) check_expr(c_, scope_, body.value->expr);
    if (body.partial) check_partial(body);
    if (body.kind == Body::Kind::kTied) check_tied(rule);
    if (body.kind == Body::Kind::kUnknown)
      c_.error(body.span, "ucl.unknown_body", "how this parameter lies is not said yet")
          .hint("replace `?` by a shape, or by a word such as `replicate`");
  }

  void check_shape(const Rule& rule) {
    const Shape& shape = rule.body.shape;
    Scope in_shape = scope_;
    NameSet axes;
    each_factor(shape, [&](const Factor& f) {
      if (f.kind == Factor::Kind::kAxis) axes.insert(f.axis.text);
    });
    in_shape.axes = &axes;
    each_factor(shape, [&](const Factor& f) {
      if (f.kind == Factor::Kind::kAxis) check_axis(f.axis);
      if (f.kind == Factor::Kind::kConcat) check_labels(c_, f);
      if (f.pad) check_expr(c_, in_shape, *f.pad);
      if (f.cut) {
        check_cut(*f.cut);
        check_share_sizes(f);
      }
    });
    check_axes(c_, rule.name, shape);
    check_cuts(c_, mesh_, shape);
  }

  void check_axis(const Name& name) {
    if (const Mesh::Axis* axis = mesh_.find(name.text))
      c_.error(name.span, "ucl.axis_mesh", cat("`", name.text, "` is a mesh axis, and no axis of a tensor"))
          .note(axis->file->source, axis->span, "declared here")
          .hint(cat("an axis that is split is written as `x@", name.text, "`"));
  }

  void check_cut(const Cut& cut) {
    for (const CutAxis& a : cut.axes) check_mesh_name(c_, mesh_, layout_, a.axis);
  }

  // `12@tp[6,6]`: the shares of a number add up to it.
  void check_share_sizes(const Factor& f) {
    const CutAxis& outer = f.cut->axes.front();
    if (f.kind != Factor::Kind::kNumber || f.pad || outer.share != ShareKind::kSizes) return;
    std::optional<int64_t> sum = 0;
    for (int64_t size : outer.sizes) sum = sum ? checked_add(*sum, size) : sum;
    if (sum == f.number) return;
    c_.error(outer.span, "ucl.share_sizes",
             cat("the shares add up to ", sum ? std::to_string(*sum) : "more than 64 bits hold", ", not to ",
                 f.number))
        .note(c_.file.source, f.atom, "what is shared");
  }

  void check_partial(const Body& body) {
    if (!check_mesh_name(c_, mesh_, layout_, *body.partial)) return;
    each_factor(body.shape, [&](const Factor& f) {
      if (!f.cut) return;
      for (const CutAxis& a : f.cut->axes)
        if (a.axis == *body.partial)
          c_.error(body.partial->span, "ucl.partial_cut",
                   cat("a tensor cut over `", a.axis.text, "` is no mean over it as well"))
              .note(c_.file.source, a.span, "cut here");
    });
  }

  void check_tied(const Rule& rule) {
    const NamePattern& tied = rule.body.tied;
    if (!tied.valid || !rule.name.valid) return;
    if (tied.has_wildcard()) {
      c_.error(tied.span, "ucl.tied_wildcard", "`tied to` names one tensor: no wildcard can stand in it");
      return;
    }
    for (const Capture* capture : tied.captures())
      if (!rule.name.find(capture->name.text))
        c_.error(capture->span, "ucl.capture_unknown",
                 cat("the name of the rule has no capture `", capture->name.text, "`"))
            .note(c_.file.source, rule.name.span, "the name of the rule");
  }

  // What lies only at some places of a mesh axis is not split over all of them.
  void check_not_cut(const Body& body, const On& on) {
    each_factor(body.shape, [&](const Factor& f) {
      if (!f.cut) return;
      for (const CutAxis& a : f.cut->axes)
        if (a.axis == on.axis)
          c_.error(a.span, "ucl.on_cut",
                   cat("the tensor is split over `", on.axis.text, "`, but lies only at some of its places"))
              .note(c_.file.source, on.span, "it lies here");
    });
  }

  void check_on(const Rule& rule) {
    for (size_t i = 0; i < rule.on.size(); ++i) {
      const On& on = rule.on[i];
      check_mesh_name(c_, mesh_, layout_, on.axis);
      check_not_cut(rule.body, on);
      const auto first = std::find_if(rule.on.begin(), rule.on.begin() + static_cast<ptrdiff_t>(i),
                                      [&](const On& o) { return o.axis == on.axis; });
      if (first != rule.on.begin() + static_cast<ptrdiff_t>(i))
        twice(on.span, "ucl.modifier_twice", cat("the rule has two `on` for `", on.axis.text, "`"),
              first->span)
            .hint(cat("several places stand in one: `on ", on.axis.text, " first, last`"));
    }
  }

  void check_hidden(HidingRules& rules, const Rule& rule) {
    const auto* hiding = rules.add(HidingRules::entry(rule.name, &rule, rule.when, rule.states));
    if (!hiding) return;
    c_.error(rule.name.span, "ucl.hidden", "no name reaches this rule: an earlier one takes them all")
        .note(c_.file.source, hiding->name->span, "the earlier rule");
  }

  const Context& c_;
  const Layout& layout_;
  const Mesh mesh_;
  Scope scope_;
};

}  // namespace

void check_labels(const Context& context, const Factor& concat) {
  std::map<std::string, Span> seen;
  for (const Block& b : concat.blocks) {
    const auto [first, is_new] = seen.try_emplace(b.label.text, b.label.span);
    if (!is_new)
      context
          .error(b.label.span, "ucl.name_twice",
                 cat("two blocks of one concatenation are called `", b.label.text, "`"))
          .note(context.file.source, first->second, "the first one");
  }
}

void check_layout(const Context& context, const Layout& layout) { LayoutChecker(context, layout).check(); }

}  // namespace uckpt::ucl
