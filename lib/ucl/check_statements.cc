// The statements of a file against each other, and `convert`.
#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/walk.h"
#include "lib/ucl/words.h"

namespace uckpt::ucl {

namespace {

constexpr int64_t kVersion = 1;

void check_version(const Context& c) {
  const auto& statements = c.file.program.statements;
  const auto* first = statements.empty() ? nullptr : std::get_if<Version>(&statements.front());
  if (!first && c.file.program.complete) {
    const Span place = statements.empty() ? Span{0, 0} : span_of(statements.front());
    c.error({place.begin, place.begin}, "ucl.version", "the program does not begin with its version")
        .hint("the first statement is `ucl 1`");
  }
  each<Version>(statements, [&](const Version& v) {
    if (v.number != kVersion) {
      c.error(v.span, "ucl.version", cat("version ", v.number, " of the language is not known"))
          .hint(cat("this tool reads `ucl ", kVersion, "`"));
    } else if (first && &v != first) {
      c.error(v.span, "ucl.version", "the version is given twice")
          .note(c.file.source, first->span, "the first one");
    }
  });
}

void declared_twice(const Context& c, Span span, std::string message, const File& file, Span first) {
  c.error(span, "ucl.name_twice", std::move(message)).note(file.source, first, "the first one");
}

void check_layout_names(const Context& c) {
  each<Layout>(c.file.program.statements, [&](const Layout& l) {
    const LayoutRef first = c.spec.layout(l.name.text);
    if (first && first.layout != &l)
      declared_twice(c, l.name.span, cat("the layout `", l.name.text, "` is declared twice"), *first.file,
                     first.layout->name.span);
  });
}

void check_map_names(const Context& c) {
  each<Map>(c.file.program.statements, [&](const Map& m) {
    if (m.left.empty()) return;
    const Span names = join(m.left.span, m.right.span);
    if (m.left == m.right)
      c.error(names, "ucl.map_same", cat("the map leads from `", m.left.text, "` to itself"));
    const MapRef first = c.spec.map(m.left.text, m.right.text);
    if (first && first.map != &m)
      declared_twice(c, names,
                     cat("the map between `", m.left.text, "` and `", m.right.text, "` is declared twice"),
                     *first.file, join(first.map->left.span, first.map->right.span));
  });
}

// ---- convert
// -----------------------------------------------------------------------------------------------

void check_endpoints(const Context& c, const Convert& convert) {
  const Endpoint* ends[2] = {nullptr, nullptr};
  each<Endpoint>(convert.items, [&](const Endpoint& e) {
    const Endpoint*& first = ends[e.is_source ? 1 : 0];
    if (first)
      c.error(e.span, "ucl.name_twice", cat("`convert` has two ", e.is_source ? "sources" : "targets"))
          .note(c.file.source, first->span, "the first one");
    if (!first) first = &e;
    if (e.naming && !c.unsure() && !c.spec.is_naming(e.naming->text))
      c.error(e.naming->span, "ucl.unknown_naming",
              cat("no layout or map speaks of the naming `", e.naming->text, "`"))
          .suggest(e.naming->text, [&] { return c.spec.namings(); });
    for (size_t i = 0; i < e.settings.size(); ++i)
      for (size_t k = 0; k < i; ++k)
        if (e.settings[k].name == e.settings[i].name) {
          c.error(e.settings[i].span, "ucl.name_twice", cat("`", e.settings[i].name.text, "` is set twice"))
              .note(c.file.source, e.settings[k].span, "the first time");
          break;
        }
  });
}

// The first match wins: a choice for all the rest takes every name.
void check_dtype_choices(const Context& c, const Convert& convert) {
  const DTypeChoice* rest = nullptr;
  each<DTypeChoice>(convert.items, [&](const DTypeChoice& d) {
    if (!d.keep) check_dtype(c, d.dtype);
    if (rest)
      c.error(d.span, "ucl.hidden", "no name reaches this `dtype`: an earlier one takes all the rest")
          .note(c.file.source, rest->span, "the earlier one");
    if (d.names.empty() && !rest) rest = &d;
  });
}

void check_converts(const Context& c) {
  const Convert* first = nullptr;
  each<Convert>(c.file.program.statements, [&](const Convert& convert) {
    if (first)
      c.error({convert.span.begin, convert.span.begin + 7}, "ucl.name_twice",
              "the program has two `convert` blocks")
          .note(c.file.source, {first->span.begin, first->span.begin + 7}, "the first one");
    if (!first) first = &convert;
    check_endpoints(c, convert);
    check_dtype_choices(c, convert);
    const StateChoice* states = nullptr;
    each<StateChoice>(convert.items, [&](const StateChoice& s) {
      if (states)
        c.error(s.span, "ucl.name_twice", "`states` is given twice")
            .note(c.file.source, states->span, "the first one");
      states = &s;
    });
  });
}

}  // namespace

void check_statements(const Context& context) {
  check_version(context);
  check_layout_names(context);
  check_map_names(context);
  check_converts(context);
}

void check_dtype(const Context& context, const Name& dtype) {
  const auto names = dtype_names();
  if (std::find(names.begin(), names.end(), dtype.text) != names.end()) return;
  Diagnostic& d =
      context.error(dtype.span, "ucl.unknown_dtype", cat("no element type is called `", dtype.text, "`"));
  if (const std::string_view meant = dtype_meant_by(dtype.text); !meant.empty()) {
    d.hint(cat("it is called `", meant, "` here"));
  } else {
    d.suggest(dtype.text, [&] { return names; });
  }
}

}  // namespace uckpt::ucl
