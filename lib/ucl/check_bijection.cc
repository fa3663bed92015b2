// The proof that a rule of a map is a bijection: both sides have the same terms.
#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/terms.h"

namespace uckpt::ucl {

namespace {

constexpr size_t kMaxSpent = 2'000'000;  // terms and axes of one map

using Terms = std::vector<Term>;
using Pointers = std::vector<const Term*>;

std::string key_of(const Term& t) { return cat(t.labels_text(), "|", t.axes_text()); }

std::string ticked(const Term& t) { return cat("`", t.axes_text(), "`"); }

std::string shown(const TermAxis& a) {
  if (a.capture) return cat("the capture `", a.name, "`");
  return a.name == "..." ? "`...`" : cat("the axis `", a.name, "`");
}

// The first axis in the text that the other term lacks; `...` only if there is nothing else.
const TermAxis* lacking(const Term& term, const Term& other) {
  const TermAxis* found = nullptr;
  for (const TermAxis& a : term.axes) {
    if (other.axis(a.name)) continue;
    if (!found || found->name == "..." || (a.name != "..." && a.span.begin < found->span.begin)) found = &a;
  }
  return found;
}

std::vector<std::string> all_lacking(const Term& term, const Term& other) {
  std::vector<std::string> out;
  for (const TermAxis& a : term.axes)
    if (!other.axis(a.name)) out.push_back(a.name);
  return out;
}

class BijectionChecker {
 public:
  BijectionChecker(const Context& context, const MapRule& rule, size_t& spent)
      : c_(context), rule_(rule), spent_(spent) {}

  void check() {
    if (!names_can_be_made(rule_.left) || !names_can_be_made(rule_.right)) return;
    const auto left = terms_of(rule_.left), right = terms_of(rule_.right);
    if (!left || !right || !spend(*left) || !spend(*right)) {
      c_.error(rule_.span, "ucl.limit_terms", "the rule has too many terms to compare");
    } else if (all_differ(*left) && all_differ(*right)) {
      compare(*left, *right);
    }
  }

 private:
  // A name that a wildcard matched cannot be made again.
  bool names_can_be_made(const Side& side) {
    bool good = true;
    for (const Part& p : side.parts) {
      good &= p.name.valid;
      for (const Segment& s : p.name.segments) {
        const bool rest = s.kind == Segment::Kind::kRest && !s.capture;
        if ((s.kind != Segment::Kind::kGlob && !rest) || !p.name.valid) continue;
        good = false;
        c_.error(s.span, "ucl.map_wildcard", "what a wildcard takes cannot be put into the other name")
            .hint(cat("capture it, as `{x:", rest ? "**" : "*", "}` here and `{x}` on the other side"));
      }
    }
    return good;
  }

  bool spend(const Terms& terms) {
    for (const Term& t : terms) spent_ += 1 + t.axes.size();
    return spent_ <= kMaxSpent;
  }

  bool all_differ(const Terms& terms) {
    std::map<std::string, const Term*> seen;
    bool good = true;
    for (const Term& t : terms) {
      const auto [first, is_new] = seen.try_emplace(key_of(t), &t);
      if (is_new) continue;
      good = false;
      c_.error(t.span, "ucl.term_twice", cat("two terms of one side are alike: ", ticked(t)))
          .note(c_.file.source, first->second->span, "the first one")
          .hint("give them labels, here and on the other side");
    }
    return good;
  }

  // Takes equal terms off both sides, then pairs what is left: by labels, then by axes.
  void compare(const Terms& left, const Terms& right) {
    Pointers only_left, only_right;
    take_equal_off(left, right, only_left, only_right);
    pair_off(
        only_left, only_right, [](const Term& l, const Term& r) { return l.labels == r.labels; },
        [this](const Term& l, const Term& r) { axes_differ(l, r); });
    pair_off(
        only_left, only_right, [](const Term& l, const Term& r) { return l.axes_text() == r.axes_text(); },
        [this](const Term& l, const Term& r) { labels_differ(l, r); });
    for (const Term* l : only_left) no_such_term(*l, rule_.right, right);
    for (const Term* r : only_right) no_such_term(*r, rule_.left, left);
  }

  void take_equal_off(const Terms& left, const Terms& right, Pointers& only_left, Pointers& only_right) {
    std::map<std::string, const Term*> by_key;
    for (const Term& r : right) by_key.emplace(key_of(r), &r);
    for (const Term& l : left) {
      const auto r = by_key.find(key_of(l));
      if (r == by_key.end()) {
        only_left.push_back(&l);
      } else {
        check_captures(l, *r->second);
        by_key.erase(r);
      }
    }
    for (const Term& r : right)
      if (by_key.contains(key_of(r))) only_right.push_back(&r);
  }

  template <class Alike, class Report>
  static void pair_off(Pointers& left, Pointers& right, const Alike& alike, const Report& report) {
    std::erase_if(left, [&](const Term* l) {
      const auto r = std::find_if(right.begin(), right.end(), [&](const Term* t) { return alike(*l, *t); });
      if (r == right.end()) return false;
      report(*l, **r);
      right.erase(r);
      return true;
    });
  }

  // A capture on one side that is an axis on the other runs over numbers.
  void check_captures(const Term& l, const Term& r) {
    for (const TermAxis& a : l.axes) {
      const TermAxis* b = r.axis(a.name);
      if ((a.capture != nullptr) == (b->capture != nullptr)) continue;
      const TermAxis& name = a.capture ? a : *b;
      const TermAxis& shape = a.capture ? *b : a;
      if (name.capture->kind == Capture::Kind::kNumber) continue;
      c_.error(name.span, "ucl.capture_axis",
               cat("only a number can be an axis, and `", name.name, "` is text"))
          .note(c_.file.source, shape.span, "the axis on the other side");
    }
  }

  // The same labels, other axes: at the right side's axis if it has one that the left side lacks.
  void axes_differ(const Term& l, const Term& r) {
    const TermAxis* only_left = lacking(l, r);
    const TermAxis* only_right = lacking(r, l);
    const bool at_right = only_right && (!only_left || !only_right->capture || only_left->capture);
    const TermAxis& axis = at_right ? *only_right : *only_left;
    const TermAxis* other = at_right ? only_left : only_right;
    const Term& here = at_right ? r : l;
    const Term& there = at_right ? l : r;

    if (axis.capture && !(other && other->capture)) {
      c_.error(
            axis.span, "ucl.capture_unknown",
            cat("`", axis.name, "` is captured here, but is neither a capture nor an axis on the other side"))
          .note(c_.file.source, there.span, cat("the other side: ", ticked(there)));
      return;
    }
    Diagnostic& d =
        c_.error(axis.span, "ucl.terms",
                 cat(l.labels.empty() ? "the sides do not correspond: "
                                      : cat("the term `", l.labels_text(), "` does not correspond: "),
                     shown(axis), " is here, but not on the other side"));
    d.note(c_.file.source, there.span, cat("here ", ticked(here), ", there ", ticked(there)));
    if (axis.name == "..." || (other && other->name == "...")) {
      d.hint("write the dims on both sides or on neither");
    } else {
      d.suggest(axis.name, [&] { return all_lacking(there, here); });
    }
  }

  static std::string called(const Term& t) {
    return t.labels.empty() ? std::string("has no label") : cat("is called `", t.labels_text(), "`");
  }

  void labels_differ(const Term& l, const Term& r) {
    c_.error(r.span, "ucl.terms",
             cat("the term ", ticked(r), " ", called(r), " here, but not on the other side"))
        .note(c_.file.source, l.span, cat("there it ", called(l)));
  }

  void no_such_term(const Term& term, const Side& other, const Terms& terms) {
    std::string labels;
    for (const Term& t : terms)
      if (!t.labels.empty()) labels += cat(labels.empty() ? "`" : ", `", t.labels_text(), "`");
    c_.error(term.span, "ucl.terms",
             term.labels.empty()
                 ? cat("the other side has no such term as ", ticked(term))
                 : cat("the other side has no term `", term.labels_text(), "`, ", ticked(term)))
        .note(c_.file.source, other.span, labels.empty() ? "it has no labels" : cat("it has ", labels));
  }

  const Context& c_;
  const MapRule& rule_;
  size_t& spent_;
};

}  // namespace

void check_bijection(const Context& context, const MapRule& rule, size_t& spent) {
  BijectionChecker(context, rule, spent).check();
}

}  // namespace uckpt::ucl
