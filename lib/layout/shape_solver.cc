#include "lib/layout/shape_solver.h"

#include <algorithm>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

using Kind = ucl::Factor::Kind;

constexpr Unknown kLocalBit = 0x80000000;  // unknowns of this tensor, beside those of the program
constexpr size_t kMostShown = 4;

std::string shapes_text(const std::vector<LocalShape>& fragments) {
  std::string out;
  std::set<std::string> seen;
  for (const LocalShape& f : fragments) {
    if (!seen.insert(shape_text(f.shape)).second) continue;
    if (seen.size() > kMostShown) return out + ", …";
    out += cat(out.empty() ? "" : ", ", shape_text(f.shape));
  }
  return out;
}

}  // namespace

ShapeSolver::ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape,
                         std::vector<LocalShape> fragments)
    : facts_(facts), scope_(scope), shape_(shape), fragments_(std::move(fragments)) {
  const size_t rank = fragments_.front().shape.size(), written = shape.dims.size();
  for (const LocalShape& f : fragments_) fits_rank_ &= f.shape.size() == rank;
  fits_rank_ &= shape.ellipsis == ucl::Ellipsis::kNone ? rank == written : rank >= written;
  if (!fits_rank_) return;
  const auto add_free = [&] {
    for (size_t i = written; i < rank; ++i) dims_.push_back({nullptr, own(cat("...", i), "...")});
  };
  if (shape.ellipsis == ucl::Ellipsis::kFirst) add_free();
  for (const ucl::Dim& d : shape.dims) dims_.push_back({&d, kNobody});
  if (shape.ellipsis == ucl::Ellipsis::kLast) add_free();
}

Unknown ShapeSolver::own(std::string key, std::string shown) const {
  const auto [entry, fresh] = keys_.try_emplace(std::move(key), static_cast<Unknown>(locals_.size()));
  if (fresh) locals_.push_back({std::move(shown), std::nullopt});
  return entry->second | kLocalBit;
}

Linear ShapeSolver::get(Unknown unknown) const {
  if (!(unknown & kLocalBit)) return facts_.get(unknown);
  const auto& value = locals_[unknown & ~kLocalBit].value;
  return value ? Linear::known(*value) : Linear::of(unknown);
}

bool ShapeSolver::set(Unknown unknown, const Fraction& value) {
  if (!value.is_whole() || value.over < 0) return false;
  if (!(unknown & kLocalBit))
    return facts_.set(unknown, value.over, cat("fragments of shape ", shapes_text(fragments_)));
  locals_[unknown & ~kLocalBit].value = value.over;
  return true;
}

Linear ShapeSolver::axis(std::string_view name) const {
  const auto fact = facts_.find(scope_, name);
  return get(fact ? *fact : own(cat("axis:", name), std::string(name)));
}

Linear ShapeSolver::size_of(const ucl::Factor& f) const {
  switch (f.kind) {
    case Kind::kAxis:
      return axis(f.axis.text);
    case Kind::kNumber:
      return Linear::known(f.number);
    case Kind::kGroup:
    case Kind::kConcat: {
      Linear sum = Linear::known(0);
      for (const ucl::Block& b : f.blocks) sum = sum + logical_of(b.dim);
      return sum;
    }
  }
  return Linear::beyond();
}

Linear ShapeSolver::padded_size(const ucl::Factor& f) const {
  const Linear size = size_of(f);
  if (!f.pad) return size;
  const auto multiple = facts_.evaluate(*f.pad, scope_, [&](std::string_view name) { return axis(name); });
  const auto m = multiple.value(), n = size.value();
  if (!m || !n || *m <= 0 || *n > INT64_MAX - *m) return Linear::beyond();
  return Linear::known(round_up(*n, *m));
}

Linear ShapeSolver::base_of(const ucl::Factor& f, const Coordinate& at) const {
  if (f.kind == Kind::kAxis || f.kind == Kind::kNumber) return padded_size(f);
  Linear sum = Linear::known(0);
  for (const ucl::Block& b : f.blocks) sum = sum + local_of(b.dim, at);
  if (!f.pad) return sum;
  const auto multiple = facts_.evaluate(*f.pad, scope_, [&](std::string_view name) { return axis(name); });
  const auto m = multiple.value(), n = sum.value();
  if (!m || !n || *m <= 0 || *n > INT64_MAX - *m) return Linear::beyond();
  return Linear::known(round_up(*n, *m));
}

// Shares are the same wherever one axis is cut in the same way: in every block of a concatenation.
std::string ShapeSolver::share_key(const ucl::Factor& f, size_t cut, const Coordinate& at) const {
  std::string key = f.kind == Kind::kAxis ? cat("share:", f.axis.text, " ", ucl::text_of(*f.cut))
                                          : cat("share:", f.span.begin, ":", f.span.end);
  for (size_t k = 0; k <= cut; ++k)
    key += cat(":", facts_.place(scope_, at, f.cut->axes[k].axis.text).value_or(-1));
  if (f.kind == Kind::kGroup || f.kind == Kind::kConcat) {
    for (const auto& [axis, place] : at) {
      bool inside = false;
      for (const ucl::Block& b : f.blocks) {
        ucl::each_factor(b.dim, [&](const ucl::Factor& inner) {
          if (!inner.cut) return;
          for (const ucl::CutAxis& a : inner.cut->axes) inside |= a.axis.text == axis;
        });
      }
      if (inside) key += cat("/", axis, place);
    }
  }
  return cat(key, "#", cut);
}

Linear ShapeSolver::share_of(const ucl::Factor& f, size_t cut, const Coordinate& at) const {
  const ucl::CutAxis& how = f.cut->axes[cut];
  const auto ranks = facts_.mesh_size(scope_, how.axis.text);
  const auto place = facts_.place(scope_, at, how.axis.text);
  if (!ranks || !place || *ranks < 1) return Linear::beyond();
  if (how.share == ucl::ShareKind::kSizes) {
    const auto i = static_cast<size_t>(*place);
    return i < how.sizes.size() ? Linear::known(how.sizes[i]) : Linear::beyond();
  }
  const Linear base = cut == 0 ? base_of(f, at) : share_of(f, cut - 1, at);
  if (*ranks == 1) return base;
  if (how.share == ucl::ShareKind::kEven) return base / Linear::known(*ranks);
  if (const auto n = base.value(); n && how.share == ucl::ShareKind::kChunk) {
    const int64_t step = ceil_div(*n, *ranks);
    return Linear::known(step == 0 ? 0 : std::clamp<int64_t>(*n - *place * step, 0, step));
  }
  return get(own(share_key(f, cut, at), ""));
}

Linear ShapeSolver::local_of(const ucl::Factor& f, const Coordinate& at) const {
  return f.cut ? share_of(f, f.cut->axes.size() - 1, at) : base_of(f, at);
}

Linear ShapeSolver::local_of(const ucl::Dim& dim, const Coordinate& at) const {
  Linear out = Linear::known(1);
  for (const ucl::Factor& f : dim.factors) out = out * local_of(f, at);
  return out;
}

Linear ShapeSolver::local_of(const DimRef& ref, const Coordinate& at) const {
  return ref.dim ? local_of(*ref.dim, at) : get(ref.free);
}

Linear ShapeSolver::logical_of(const ucl::Dim& dim) const {
  Linear out = Linear::known(1);
  for (const ucl::Factor& f : dim.factors) out = out * size_of(f);
  return out;
}

bool ShapeSolver::equate(const Linear& a, const Linear& b) {
  Unknown unknown = kNobody;
  const auto found = Linear::solve(a, b, unknown);
  return found && set(unknown, *found);
}

template <class See>
void ShapeSolver::each_cut(const See& see) const {
  ucl::each_factor(shape_, [&](const ucl::Factor& f) {
    if (f.cut) see(f);
  });
}

bool ShapeSolver::advance() {
  if (!fits_rank_) return false;
  bool any = false;
  for (bool again = true; again;) {
    again = false;
    for (const LocalShape& f : fragments_) {
      for (size_t d = 0; d < dims_.size(); ++d)
        again |= equate(local_of(dims_[d], f.at), Linear::known(f.shape[d]));
      // The shares of a cut add up to what is cut.
      each_cut([&](const ucl::Factor& factor) {
        for (size_t k = 0; k < factor.cut->axes.size(); ++k) {
          const std::string& axis = factor.cut->axes[k].axis.text;
          const auto ranks = facts_.mesh_size(scope_, axis);
          if (!ranks || *ranks < 2 || !facts_.place(scope_, f.at, axis)) continue;
          Linear sum = Linear::known(0);
          for (int64_t r = 0; r < *ranks && !sum.is_beyond(); ++r)
            sum = sum + share_of(factor, k, facts_.moved(scope_, f.at, axis, r));
          again |= equate(sum, k == 0 ? base_of(factor, f.at) : share_of(factor, k - 1, f.at));
        }
      });
    }
    any |= again;
  }
  return any;
}

bool ShapeSolver::assume_even() {
  if (!fits_rank_) return false;
  bool any = false;
  for (const LocalShape& f : fragments_) {
    each_cut([&](const ucl::Factor& factor) {
      for (size_t k = 0; k < factor.cut->axes.size(); ++k) {
        if (factor.cut->axes[k].share != ucl::ShareKind::kPlain) continue;
        const Linear share = share_of(factor, k, f.at);
        const auto base = (k == 0 ? base_of(factor, f.at) : share_of(factor, k - 1, f.at)).value();
        const auto ranks = facts_.mesh_size(scope_, factor.cut->axes[k].axis.text);
        if (share.is_known() || share.is_beyond() || !base || !ranks || *base % *ranks != 0) continue;
        any |= set(share.unknown(), {*base / *ranks, 1});
      }
    });
  }
  return any;
}

bool ShapeSolver::solved() const {
  if (!fits_rank_) return false;
  for (const DimRef& ref : dims_)
    if (ref.dim && !logical_of(*ref.dim).is_known()) return false;
  for (const LocalShape& f : fragments_)
    for (const DimRef& ref : dims_)
      if (!local_of(ref, f.at).is_known()) return false;
  return true;
}

// Marks that cannot be right whatever the sizes are.
bool ShapeSolver::check_cuts(ucl::Diagnostics& diagnostics) const {
  bool fine = true;
  each_cut([&](const ucl::Factor& f) {
    for (const ucl::CutAxis& a : f.cut->axes) {
      const auto ranks = facts_.mesh_size(scope_, a.axis.text);
      if (a.share == ucl::ShareKind::kSizes && ranks && a.sizes.size() != static_cast<size_t>(*ranks)) {
        diagnostics.error(scope_.file->source, a.span, "ucl.share_count",
                          cat("expected ", *ranks, " shares, one for each rank of `", a.axis.text,
                              "`, found ", a.sizes.size()));
        fine = false;
      } else if (ranks && *ranks > 1 && !facts_.place(scope_, fragments_.front().at, a.axis.text)) {
        diagnostics.error(scope_.file->source, a.span, "ucl.axis_undone",
                          cat("the checkpoint's files do not lie over `", a.axis.text,
                              "`: this format undoes that cut itself"));
        fine = false;
      }
    }
  });
  return fine;
}

bool ShapeSolver::check(ucl::Diagnostics& diagnostics) const {
  const auto error = [&](ucl::Span span, std::string code, std::string message) -> ucl::Diagnostic& {
    return diagnostics.error(scope_.file->source, span, std::move(code), std::move(message));
  };
  if (!fits_rank_) {
    error(shape_.span, "ucl.rank",
          cat("expected ", shape_.dims.size(), shape_.ellipsis == ucl::Ellipsis::kNone ? "" : " or more",
              shape_.dims.size() == 1 ? " dim" : " dims", ", found fragments of shape ",
              shapes_text(fragments_)));
    return false;
  }
  if (!check_cuts(diagnostics)) return false;
  for (const LocalShape& f : fragments_) {
    for (size_t d = 0; d < dims_.size(); ++d) {
      const Linear local = local_of(dims_[d], f.at);
      if (!local.is_known() || local.value() == f.shape[d]) continue;
      const auto value = local.value();
      const std::string sizes = sizes_text();
      error(dims_[d].dim ? dims_[d].dim->span : shape_.ellipsis_span, "ucl.size_conflict",
            cat("rank ", text_of(f.at), " holds ", f.shape[d], " here (", shape_text(f.shape), ")",
                value ? cat(", but the rule gives ", *value) : std::string(", which the rule cannot give"),
                sizes.empty() ? "" : cat(" with ", sizes)))
          .hint(cat("fragments of shape ", shapes_text(fragments_)));
      return false;
    }
  }
  return check_shares(diagnostics) && check_unknown(diagnostics);
}

// The shares of a cut add up to what is cut.
bool ShapeSolver::check_shares(ucl::Diagnostics& diagnostics) const {
  bool fine = true;
  each_cut([&](const ucl::Factor& f) {
    for (const LocalShape& fragment : fragments_) {
      for (size_t k = 0; k < f.cut->axes.size() && fine; ++k) {
        const std::string& axis = f.cut->axes[k].axis.text;
        const int64_t ranks = facts_.mesh_size(scope_, axis).value_or(1);
        std::optional<int64_t> sum = 0;
        for (int64_t r = 0; r < ranks && sum; ++r) {
          const auto share = share_of(f, k, facts_.moved(scope_, fragment.at, axis, r)).value();
          sum = share ? checked_add(*sum, *share) : std::nullopt;
        }
        const auto base = (k == 0 ? base_of(f, fragment.at) : share_of(f, k - 1, fragment.at)).value();
        if (!sum || !base || sum == base) continue;
        fine = false;
        const std::string what = f.kind == Kind::kAxis ? cat("`", f.axis.text, "`") : std::string("this");
        diagnostics
            .error(scope_.file->source, f.span, "ucl.shares",
                   cat("the ranks' shares of ", what, " over `", axis, "` add up to ", *sum, ", but ", what,
                       " is ", *base))
            .hint(cat("fragments of shape ", shapes_text(fragments_)));
      }
    }
  });
  return fine;
}

bool ShapeSolver::check_unknown(ucl::Diagnostics& diagnostics) const {
  for (const DimRef& ref : dims_) {
    if (!ref.dim) continue;
    bool known = logical_of(*ref.dim).value().has_value();
    for (const LocalShape& f : fragments_) known &= local_of(ref, f.at).value().has_value();
    if (known) continue;
    std::string unknown;
    ucl::each_factor(*ref.dim, [&](const ucl::Factor& f) {
      if (f.kind == Kind::kAxis && !axis(f.axis.text).is_known() &&
          unknown.find(cat("`", f.axis.text, "`")) == unknown.npos)
        unknown += cat(unknown.empty() ? "`" : ", `", f.axis.text, "`");
    });
    if (const auto fraction = fraction_of(ref); !fraction.empty()) {
      diagnostics.error(scope_.file->source, ref.dim->span, "ucl.size_conflict", fraction)
          .hint(cat("fragments of shape ", shapes_text(fragments_)));
      return false;
    }
    diagnostics
        .error(scope_.file->source, ref.dim->span, "ucl.size_unknown",
               cat(unknown.empty() ? std::string("the shares of this cut stay unknown")
                                   : cat("the size of ", unknown, " stays unknown"),
                   ": fragments of shape ", shapes_text(fragments_)))
        .hint("say it with `where NAME = N`, with a `given` and --set NAME=N, or with shares as `@tp[6,6]`");
    return false;
  }
  return true;
}

// "`d` would have to be 1/2": where an equation has an answer, but no whole one.
std::string ShapeSolver::fraction_of(const DimRef& ref) const {
  const auto index = static_cast<size_t>(&ref - dims_.data());
  for (const LocalShape& f : fragments_) {
    Unknown unknown = kNobody;
    const auto found = Linear::solve(local_of(ref, f.at), Linear::known(f.shape[index]), unknown);
    if (!found || found->is_whole()) continue;
    const std::string& shown =
        unknown & kLocalBit ? locals_[unknown & ~kLocalBit].shown : facts_.name(unknown);
    return cat("rank ", text_of(f.at), " holds ", f.shape[index],
               " here: ", shown.empty() ? std::string("its share") : cat("`", shown, "`"),
               " would have to be ", found->over, "/", found->under);
  }
  return "";
}

Shape ShapeSolver::logical() const {
  Shape out;
  for (const DimRef& ref : dims_)
    out.push_back((ref.dim ? logical_of(*ref.dim) : get(ref.free)).value().value_or(0));
  return out;
}

Shape ShapeSolver::local(const Coordinate& at) const {
  Shape out;
  for (const DimRef& ref : dims_) out.push_back(local_of(ref, at).value().value_or(0));
  return out;
}

View ShapeSolver::view_of(const ucl::Factor& f, const Coordinate& at) const {
  View view;
  if (f.kind == Kind::kAxis || f.kind == Kind::kNumber) {
    view = axis_view(size_of(f).value().value_or(0), padded_size(f).value().value_or(0));
  } else {
    std::vector<View> blocks;
    for (const ucl::Block& b : f.blocks) blocks.push_back(view_of(b.dim, at));
    view = concatenation(blocks);
    view.local = base_of(f, at).value().value_or(view.local);  // with its padding
  }
  if (!f.cut) return view;
  for (size_t k = 0; k < f.cut->axes.size(); ++k) {
    const std::string& axis = f.cut->axes[k].axis.text;
    const int64_t place = facts_.place(scope_, at, axis).value_or(0);
    int64_t begin = 0;
    for (int64_t r = 0; r < place; ++r)
      begin += share_of(f, k, facts_.moved(scope_, at, axis, r)).value().value_or(0);
    view = share(view, begin, begin + share_of(f, k, at).value().value_or(0));
  }
  return view;
}

View ShapeSolver::view_of(const ucl::Dim& dim, const Coordinate& at) const {
  View view = unit_view();
  for (const ucl::Factor& f : dim.factors) view = product(view, view_of(f, at));
  return view;
}

View ShapeSolver::view(const Coordinate& at) const {
  View view = unit_view();
  for (const DimRef& ref : dims_) {
    const int64_t free = ref.dim ? 0 : get(ref.free).value().value_or(0);
    view = product(view, ref.dim ? view_of(*ref.dim, at) : axis_view(free, free));
  }
  return view;
}

std::string ShapeSolver::sizes_text() const {
  std::string out;
  std::set<std::string> seen;
  ucl::each_factor(shape_, [&](const ucl::Factor& f) {
    if (f.kind != Kind::kAxis || !seen.insert(f.axis.text).second) return;
    if (const auto value = axis(f.axis.text).value())
      out += cat(out.empty() ? "" : ", ", f.axis.text, " = ", *value);
  });
  return out;
}

}  // namespace uckpt::layout
