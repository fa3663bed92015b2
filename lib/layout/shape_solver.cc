#include "lib/layout/shape_solver.h"

#include <algorithm>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

using FactorKind = ucl::Factor::Kind;

std::vector<LocalShape> fragments_of(const Shape& whole, const std::vector<Coordinate>& ranks) {
  std::vector<LocalShape> out;
  for (const Coordinate& at : ranks) out.push_back({at, whole});
  return out;
}

}  // namespace

ShapeSolver::ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape,
                         std::vector<LocalShape> fragments)
    : ShapeSolver(facts, scope, shape, std::move(fragments), false) {}

ShapeSolver::ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape, const Shape& whole,
                         const std::vector<Coordinate>& ranks)
    : ShapeSolver(facts, scope, shape, fragments_of(whole, ranks), true) {}

ShapeSolver::ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape,
                         std::vector<LocalShape> fragments, bool is_whole)
    : facts_(facts), scope_(scope), shape_(shape), is_whole_(is_whole), fragments_(std::move(fragments)) {
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
  if (!(unknown & kLocalBit)) return facts_.set(unknown, value.over, seen_text());
  locals_[unknown & ~kLocalBit].value = value.over;
  return true;
}

Linear ShapeSolver::axis(std::string_view name) const {
  const auto fact = facts_.find(scope_, name);
  return get(fact ? *fact : own(cat("axis:", name), std::string(name)));
}

Linear ShapeSolver::size_of(const ucl::Factor& f) const {
  switch (f.kind) {
    case FactorKind::kAxis:
      return axis(f.axis.text);
    case FactorKind::kNumber:
      return Linear::known(f.number);
    case FactorKind::kGroup:
    case FactorKind::kConcat: {
      Linear sum = Linear::known(0);
      for (const ucl::Block& b : f.blocks) sum = sum + logical_of(b.dim);
      return sum;
    }
  }
  return Linear::beyond();
}

Linear ShapeSolver::rounded_up(const ucl::Factor& f, const Linear& size) const {
  if (!f.pad) return size;
  const auto multiple = facts_.evaluate(*f.pad, scope_, [&](std::string_view name) { return axis(name); });
  const auto m = multiple.value(), n = size.value();
  if (!m || !n || *m <= 0 || *n > INT64_MAX - *m) return Linear::beyond();
  return Linear::known(round_up(*n, *m));
}

Linear ShapeSolver::padded_size(const ucl::Factor& f) const { return rounded_up(f, size_of(f)); }

Linear ShapeSolver::base_of(const ucl::Factor& f, const Coordinate& at) const {
  if (f.kind == FactorKind::kAxis || f.kind == FactorKind::kNumber) return padded_size(f);
  Linear sum = Linear::known(0);
  for (const ucl::Block& b : f.blocks) sum = sum + local_of(b.dim, at);
  return rounded_up(f, sum);
}

bool ShapeSolver::is_even(const ucl::CutAxis& axis) const {
  return axis.share == ucl::ShareKind::kEven || (is_whole_ && axis.share == ucl::ShareKind::kPlain);
}

// Shares are the same wherever one axis is cut in the same way: in every block of a concatenation.
std::string ShapeSolver::share_key(const ucl::Factor& f, size_t cut, const Coordinate& at) const {
  std::string key = f.kind == FactorKind::kAxis ? cat("share:", f.axis.text, " ", ucl::text_of(*f.cut))
                                                : cat("share:", f.span.begin, ":", f.span.end);
  for (size_t k = 0; k <= cut; ++k)
    key += cat(":", facts_.place(scope_, at, f.cut->axes[k].axis.text).value_or(-1));
  if (f.kind == FactorKind::kGroup || f.kind == FactorKind::kConcat) {
    for (const auto& place : at) {
      bool inside = false;
      for (const ucl::Block& b : f.blocks) {
        ucl::each_factor(b.dim, [&](const ucl::Factor& inner) {
          if (!inner.cut) return;
          for (const ucl::CutAxis& a : inner.cut->axes) inside |= a.axis.text == place.first;
        });
      }
      if (inside) key += cat("/", place.first, place.second);
    }
  }
  return cat(key, "#", cut);
}

Linear ShapeSolver::share_of(const ucl::Factor& f, size_t cut, const Coordinate& at) const {
  const ucl::CutAxis& how = f.cut->axes[cut];
  const auto ranks = facts_.mesh_size(scope_, how.axis.text);
  const auto place = facts_.place(scope_, at, how.axis.text);
  if (ranks && !place && facts_.is_joined()) return cut == 0 ? base_of(f, at) : share_of(f, cut - 1, at);
  if (!ranks || !place || *ranks < 1) return Linear::beyond();
  if (how.share == ucl::ShareKind::kSizes) {
    const auto i = static_cast<size_t>(*place);
    return i < how.sizes.size() ? Linear::known(how.sizes[i]) : Linear::beyond();
  }
  const Linear base = cut == 0 ? base_of(f, at) : share_of(f, cut - 1, at);
  if (*ranks == 1) return base;
  if (is_even(how)) return base / Linear::known(*ranks);
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

Linear ShapeSolver::logical_of(const DimRef& ref) const {
  return ref.dim ? logical_of(*ref.dim) : get(ref.free);
}

Linear ShapeSolver::known_of(const DimRef& ref, const Coordinate& at) const {
  return is_whole_ ? logical_of(ref) : local_of(ref, at);
}

bool ShapeSolver::equate(const Linear& a, const Linear& b) {
  Unknown unknown = kNobody;
  const auto found = Linear::solve(a, b, unknown);
  return found && set(unknown, *found);
}

bool ShapeSolver::advance() {
  if (!fits_rank_) return false;
  bool any = false;
  for (bool again = true; again;) {
    again = false;
    for (const LocalShape& f : fragments_) {
      for (size_t d = 0; d < dims_.size(); ++d)
        again |= equate(known_of(dims_[d], f.at), Linear::known(f.shape[d]));
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
    if (ref.dim && !logical_of(ref).is_known()) return false;
  for (const LocalShape& f : fragments_)
    for (const DimRef& ref : dims_)
      if (!knows(ref, f.at)) return false;
  return true;
}

// A dim may be known while what a group in it is made of is not.
bool ShapeSolver::knows(const DimRef& ref, const Coordinate& at) const {
  bool known = local_of(ref, at).value().has_value();
  if (!ref.dim) return known;
  ucl::each_factor(*ref.dim, [&](const ucl::Factor& f) {
    for (size_t k = 0; f.cut && k < f.cut->axes.size(); ++k) known &= share_of(f, k, at).value().has_value();
  });
  return known;
}

Shape ShapeSolver::logical() const {
  Shape out;
  for (const DimRef& ref : dims_) out.push_back(logical_of(ref).value().value_or(0));
  return out;
}

int64_t ShapeSolver::full_of(const ucl::Factor& f) const {
  if (f.kind == FactorKind::kAxis || f.kind == FactorKind::kNumber) return padded_size(f).value().value_or(0);
  int64_t sum = 0;
  for (const ucl::Block& b : f.blocks) sum += full_of(b.dim);
  return rounded_up(f, Linear::known(sum)).value().value_or(0);
}

int64_t ShapeSolver::full_of(const ucl::Dim& dim) const {
  int64_t out = 1;
  for (const ucl::Factor& f : dim.factors) out *= full_of(f);
  return out;
}

Shape ShapeSolver::full() const {
  Shape out;
  for (const DimRef& ref : dims_)
    out.push_back(ref.dim ? full_of(*ref.dim) : get(ref.free).value().value_or(0));
  return out;
}

Shape ShapeSolver::local(const Coordinate& at) const {
  Shape out;
  for (const DimRef& ref : dims_) out.push_back(local_of(ref, at).value().value_or(0));
  return out;
}

View ShapeSolver::view_of(const ucl::Factor& f, const Coordinate& at) const {
  View view;
  if (f.kind == FactorKind::kAxis || f.kind == FactorKind::kNumber) {
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

void solve_together(Facts& facts, std::span<ShapeSolver* const> solvers) {
  const auto advance = [&] {
    for (size_t before = facts.known() + 1; before != facts.known();) {
      before = facts.known();
      for (ShapeSolver* s : solvers) s->advance();
      facts.propagate();
    }
  };
  advance();
  facts.take_defaults();
  advance();
  for (ShapeSolver* s : solvers)
    while (!s->solved() && s->assume_even()) s->advance();
  advance();
}

}  // namespace uckpt::layout
