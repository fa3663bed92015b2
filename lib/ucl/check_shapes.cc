// Shapes: no axis twice, no block cut twice by one mesh axis.
#include "lib/base/text.h"
#include "lib/ucl/check_context.h"

namespace uckpt::ucl {

namespace {

// Where each name was seen, below one node of a shape.
using Seen = std::map<std::string, Span, std::less<>>;

// Walks a shape and tells of each name that stands twice where both could be in one term: in a product, but
// not in two blocks of a concatenation. Which names a factor brings is what the two checks differ in.
template <class Names, class Twice>
class TwiceFinder {
 public:
  TwiceFinder(const Names& names, const Twice& twice) : names_(names), twice_(twice) {}

  void look(const Shape& shape, Seen seen) {
    for (const Dim& d : shape.dims) merge(seen, names_in(d));
  }

 private:
  Seen names_in(const Dim& dim) {
    Seen all;
    for (const Factor& f : dim.factors) merge(all, names_in(f));
    return all;
  }

  Seen names_in(const Factor& factor) {
    Seen all;
    for (const Block& b : factor.blocks) {
      Seen block = names_in(b.dim);
      if (block.size() > all.size()) std::swap(all, block);
      all.merge(block);  // one block or the other: no conflict
    }
    names_(factor, [&](const std::string& name, Span span) { merge(all, Seen{{name, span}}); });
    return all;
  }

  // Of two that both hold.
  void merge(Seen& all, Seen more) {
    if (more.size() > all.size()) std::swap(all, more);
    for (const auto& [name, span] : more) {
      const auto [first, is_new] = all.try_emplace(name, span);
      if (is_new) continue;
      const bool in_order = first->second.begin < span.begin;
      twice_(name, in_order ? first->second : span, in_order ? span : first->second);
    }
  }

  const Names& names_;
  const Twice& twice_;
};

template <class Names, class Twice>
void find_twice(const Shape& shape, Seen seen, const Names& names, const Twice& twice) {
  TwiceFinder<Names, Twice>(names, twice).look(shape, std::move(seen));
}

}  // namespace

void check_axes(const Context& c, const NamePattern& name, const Shape& shape) {
  Seen captures;
  for (const Capture* capture : name.captures()) captures.try_emplace(capture->name.text, capture->span);
  const auto axis_of = [](const Factor& f, const auto& see) {
    if (f.kind == Factor::Kind::kAxis) see(f.axis.text, f.axis.span);
  };
  find_twice(shape, captures, axis_of, [&](const std::string& axis, Span first, Span second) {
    const bool captured = captures.contains(axis) && captures.at(axis) == first;
    c.error(second, "ucl.axis_twice",
            captured ? cat("`", axis, "` is a capture of the name, and an axis of the shape as well")
                     : cat("the axis `", axis, "` stands twice in one block"))
        .note(c.file.source, first, captured ? "captured here" : "the first time")
        .hint(captured ? "" : "a square weight takes two names, as in `[o, h]`");
  });
}

void check_cuts(const Context& c, const Mesh& mesh, const Shape& shape) {
  const auto cuts_of = [&](const Factor& f, const auto& see) {
    if (!f.cut) return;
    for (const CutAxis& a : f.cut->axes) {
      const Mesh::Axis* axis = mesh.find(a.axis.text);
      if (!axis) continue;
      for (const std::string& atom : axis->atoms) see(atom, a.axis.span);
    }
  };
  Span last;  // both parts of a mesh axis clash at one place: one message
  find_twice(shape, {}, cuts_of, [&](const std::string&, Span first, Span second) {
    if (second == last) return;
    last = second;
    const auto name = c.file.source.text(second), other = c.file.source.text(first);
    c.error(second, "ucl.cut_twice",
            name == other
                ? cat("the mesh axis `", name, "` cuts one block twice")
                : cat("the mesh axes `", name, "` and `", other, "`, one a part of the other, cut one block"))
        .note(c.file.source, first, "the first cut");
  });
}

}  // namespace uckpt::ucl
