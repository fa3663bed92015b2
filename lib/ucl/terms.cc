#include "lib/ucl/terms.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt::ucl {

namespace {

using Terms = std::vector<Term>;

// Multiplies the terms so far by one factor after another, within the limits.
class Product {
 public:
  bool by(Terms& terms, const Dim& dim) {
    return std::all_of(dim.factors.begin(), dim.factors.end(), [&](const Factor& f) { return by(terms, f); });
  }

 private:
  bool by(Terms& terms, const Factor& factor) {
    switch (factor.kind) {
      case Factor::Kind::kNumber:
        return true;
      case Factor::Kind::kAxis:
        for (Term& t : terms) t.axes.push_back({factor.axis.text, factor.axis.span, nullptr});
        return spend(terms.size());
      case Factor::Kind::kGroup:
        return by(terms, factor.blocks[0].dim);
      case Factor::Kind::kConcat:
        return by_blocks(terms, factor.blocks);
    }
    return false;
  }

  bool by_blocks(Terms& terms, const std::vector<Block>& blocks) {
    size_t axes = terms.size();
    for (const Term& t : terms) axes += t.axes.size();
    Terms sum;
    for (const Block& block : blocks) {
      if (sum.size() + terms.size() > kMaxTerms || !spend(axes)) return false;
      Terms chosen = terms;
      for (Term& t : chosen) {
        t.labels.push_back(block.label.text);
        t.span = block.span;
      }
      if (!by(chosen, block.dim)) return false;
      std::move(chosen.begin(), chosen.end(), std::back_inserter(sum));
    }
    terms = std::move(sum);
    return terms.size() <= kMaxTerms;
  }

  bool spend(size_t axes) { return (spent_ += axes) <= kMaxTermAxes; }

  size_t spent_ = 0;
};

Terms begin_part(const Part& part, size_t index) {
  Term term;
  term.part = index;
  term.span = part.name.span;
  if (part.label) term.labels.push_back(part.label->text);
  for (const Capture* c : part.name.captures()) term.axes.push_back({c->name.text, c->span, c});
  if (!part.shape) {
    term.axes.push_back({"...", part.name.span, nullptr});
  } else if (part.shape->ellipsis != Ellipsis::kNone) {
    term.axes.push_back({"...", part.shape->ellipsis_span, nullptr});
  }
  return {term};
}

void put_in_order(Term& term) {
  std::sort(term.labels.begin(), term.labels.end());
  std::stable_sort(term.axes.begin(), term.axes.end(),
                   [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto same = [](const auto& a, const auto& b) { return a.name == b.name; };
  term.axes.erase(std::unique(term.axes.begin(), term.axes.end(), same), term.axes.end());
}

}  // namespace

std::string Term::labels_text() const {
  std::string out;
  for (const std::string& l : labels) out += (out.empty() ? "" : " ") + l;
  return out;
}

std::string Term::axes_text() const {
  std::string out;
  for (const TermAxis& a : axes) out += (out.empty() ? "" : " ") + a.name;
  return cat("{", out, "}");
}

const TermAxis* Term::axis(std::string_view name) const {
  const auto found =
      std::find_if(axes.begin(), axes.end(), [&](const TermAxis& a) { return a.name == name; });
  return found == axes.end() ? nullptr : &*found;
}

std::optional<std::vector<Term>> terms_of(const Side& side) {
  Terms all;
  Product product;
  for (size_t i = 0; i < side.parts.size(); ++i) {
    Terms terms = begin_part(side.parts[i], i);
    if (side.parts[i].shape)
      for (const Dim& d : side.parts[i].shape->dims)
        if (!product.by(terms, d)) return std::nullopt;
    std::move(terms.begin(), terms.end(), std::back_inserter(all));
    if (all.size() > kMaxTerms) return std::nullopt;
  }
  for (Term& t : all) put_in_order(t);
  return all;
}

}  // namespace uckpt::ucl
