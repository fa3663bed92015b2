// What a solver of sizes says where shapes and rule do not agree.
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/layout/shape_solver.h"

namespace uckpt::layout {

namespace {

using FactorKind = ucl::Factor::Kind;

constexpr size_t kMostShown = 4;

}  // namespace

std::string ShapeSolver::seen_text() const {
  if (is_whole_) return cat("a tensor of shape ", shape_text(fragments_.front().shape));
  std::string out;
  std::set<std::string> seen;
  for (const LocalShape& f : fragments_) {
    if (!seen.insert(shape_text(f.shape)).second) continue;
    out += out.empty() ? "fragments of shape " : ", ";
    if (seen.size() > kMostShown) return out + "…";
    out += shape_text(f.shape);
  }
  return out;
}

std::string ShapeSolver::found_text(const LocalShape& f, size_t dim) const {
  return is_whole_ ? cat("the tensor has ", f.shape[dim], " here")
                   : cat("rank ", text_of(f.at), " holds ", f.shape[dim], " here");
}

ucl::Diagnostic& ShapeSolver::Said::error(ucl::Span span, std::string code, std::string message) const {
  if (!name.empty()) message = cat("`", escape(name, 100), "`: ", message);
  return diagnostics.error(scope.file->source, span, std::move(code), std::move(message));
}

// Marks that cannot be right whatever the sizes are.
bool ShapeSolver::check_cuts(const Said& said) const {
  bool fine = true;
  each_cut([&](const ucl::Factor& f) {
    for (const ucl::CutAxis& a : f.cut->axes) {
      const auto ranks = facts_.mesh_size(scope_, a.axis.text);
      if (a.share == ucl::ShareKind::kSizes && ranks && a.sizes.size() != static_cast<size_t>(*ranks)) {
        said.error(a.span, "ucl.share_count",
                   cat("expected ", *ranks, " shares, one for each rank of `", a.axis.text, "`, found ",
                       a.sizes.size()));
        fine = false;
      } else if (ranks && *ranks > 1 && !facts_.is_joined() &&
                 !facts_.place(scope_, fragments_.front().at, a.axis.text)) {
        said.error(a.span, "ucl.axis_undone",
                   cat("the ", is_whole_ ? "target" : "checkpoint", "'s files do not lie over `", a.axis.text,
                       "`: this format ", is_whole_ ? "makes" : "undoes", " that cut itself"));
        fine = false;
      }
    }
  });
  return fine;
}

bool ShapeSolver::check(ucl::Diagnostics& diagnostics, std::string_view name) const {
  const Said said{diagnostics, scope_, name};
  if (!fits_rank_) {
    said.error(shape_.span, "ucl.rank",
               cat("expected ", shape_.dims.size(), shape_.ellipsis == ucl::Ellipsis::kNone ? "" : " or more",
                   shape_.dims.size() == 1 ? " dim" : " dims", ", found ", seen_text()));
    return false;
  }
  return check_cuts(said) && check_sizes(said) && check_shares(said) && check_unknown(said);
}

// What the rule gives is what the files hold.
bool ShapeSolver::check_sizes(const Said& said) const {
  for (const LocalShape& f : fragments_) {
    for (size_t d = 0; d < dims_.size(); ++d) {
      const Linear found = known_of(dims_[d], f.at);
      if (!found.is_known() || found.value() == f.shape[d]) continue;
      const auto value = found.value();
      const std::string sizes = sizes_text();
      said.error(
              dims_[d].dim ? dims_[d].dim->span : shape_.ellipsis_span, "ucl.size_conflict",
              cat(found_text(f, d), " (", shape_text(f.shape), ")",
                  value ? cat(", but the rule gives ", *value) : std::string(", which the rule cannot give"),
                  sizes.empty() ? "" : cat(" with ", sizes)))
          .hint(seen_text());
      return false;
    }
  }
  return true;
}

// The shares of a cut add up to what is cut.
bool ShapeSolver::check_shares(const Said& said) const {
  bool fine = true;
  each_cut([&](const ucl::Factor& f) {
    const std::string what = f.kind == FactorKind::kAxis ? cat("`", f.axis.text, "`") : std::string("this");
    for (const LocalShape& fragment : fragments_) {
      for (size_t k = 0; k < f.cut->axes.size() && fine; ++k) {
        const ucl::CutAxis& cut = f.cut->axes[k];
        const std::string& axis = cut.axis.text;
        const int64_t ranks = facts_.mesh_size(scope_, axis).value_or(1);
        if (!facts_.place(scope_, fragment.at, axis)) continue;  // joined already
        const auto base = (k == 0 ? base_of(f, fragment.at) : share_of(f, k - 1, fragment.at)).value();
        if (is_whole_ && is_even(cut) && base && ranks > 0 && *base % ranks != 0) {
          fine = false;
          const std::string sizes = sizes_text();
          said.error(f.span, "ucl.uneven",
                     cat(what, " is ", *base, ", which cannot be cut evenly over the ", ranks, " ranks of `",
                         axis, "`"))
              .hint(cat(seen_text(), sizes.empty() ? "" : cat(", with ", sizes), "; `", axis, "[chunk]` or `",
                        axis, "[…]` cut unevenly, `pad(N)` fills up"));
          continue;
        }
        std::optional<int64_t> sum = 0;
        for (int64_t r = 0; r < ranks && sum; ++r) {
          const auto share = share_of(f, k, facts_.moved(scope_, fragment.at, axis, r)).value();
          sum = share ? checked_add(*sum, *share) : std::nullopt;
        }
        if (!sum || !base || sum == base) continue;
        fine = false;
        said.error(f.span, "ucl.shares",
                   cat("the ranks' shares of ", what, " over `", axis, "` add up to ", *sum, ", but ", what,
                       " is ", *base))
            .hint(seen_text());
      }
    }
  });
  return fine;
}

bool ShapeSolver::check_unknown(const Said& said) const {
  for (const DimRef& ref : dims_) {
    if (!ref.dim) continue;
    bool known = logical_of(*ref.dim).value().has_value();
    for (const LocalShape& f : fragments_) known &= knows(ref, f.at);
    if (known) continue;
    std::string unknown;
    ucl::each_factor(*ref.dim, [&](const ucl::Factor& f) {
      if (f.kind == FactorKind::kAxis && !axis(f.axis.text).is_known() &&
          unknown.find(cat("`", f.axis.text, "`")) == unknown.npos)
        unknown += cat(unknown.empty() ? "`" : ", `", f.axis.text, "`");
    });
    if (const auto fraction = fraction_of(ref); !fraction.empty()) {
      said.error(ref.dim->span, "ucl.size_conflict", fraction).hint(seen_text());
      return false;
    }
    said.error(ref.dim->span, "ucl.size_unknown",
               cat(unknown.empty() ? std::string("the shares of this cut stay unknown")
                                   : cat("the size of ", unknown, " stays unknown"),
                   ": ", seen_text()))
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
    const auto found = Linear::solve(known_of(ref, f.at), Linear::known(f.shape[index]), unknown);
    if (!found || found->is_whole()) continue;
    const std::string& shown =
        unknown & kLocalBit ? locals_[unknown & ~kLocalBit].shown : facts_.name(unknown);
    return cat(found_text(f, index), ": ", shown.empty() ? std::string("its share") : cat("`", shown, "`"),
               " would have to be ", found->over, "/", found->under);
  }
  return "";
}

std::string ShapeSolver::sizes_text() const {
  std::string out;
  std::set<std::string> seen;
  ucl::each_factor(shape_, [&](const ucl::Factor& f) {
    if (f.kind != FactorKind::kAxis || !seen.insert(f.axis.text).second) return;
    if (const auto value = axis(f.axis.text).value())
      out += cat(out.empty() ? "" : ", ", f.axis.text, " = ", *value);
  });
  return out;
}

}  // namespace uckpt::layout
