#include "lib/layout/placement.h"

#include <algorithm>
#include <numeric>

#include "lib/base/checked.h"
#include "lib/base/text.h"

namespace uckpt::layout {

namespace {

// What each rank gets of `count` numbers in these proportions: where an outer axis has cut them, each of its
// shares is cut alike. Nothing if that is not whole, or not one for each rank.
std::optional<std::vector<int64_t>> scaled_to(const std::vector<int64_t>& shares, int64_t ranks,
                                              int64_t count) {
  std::optional<int64_t> sum = 0;
  for (const int64_t s : shares) sum = sum && s >= 0 ? checked_add(*sum, s) : std::nullopt;
  if (!sum || *sum == 0 || shares.size() != static_cast<size_t>(ranks) ||
      *sum % std::max<int64_t>(count, 1) != 0)
    return std::nullopt;
  const int64_t parts = *sum / std::max<int64_t>(count, 1);
  std::vector<int64_t> out;
  for (const int64_t s : shares) {
    if (s % parts != 0) return std::nullopt;
    out.push_back(s / parts);
  }
  return out;
}

// What each of the ranks is to have of `count` numbers; nothing where any shares will do, or none can be.
std::optional<std::vector<int64_t>> said_shares(const ucl::CutAxis& axis, int64_t ranks, int64_t count) {
  if (axis.share == ucl::ShareKind::kSizes) return axis.sizes;
  if (axis.share == ucl::ShareKind::kPlain) return std::nullopt;
  std::vector<int64_t> out;
  const int64_t step = axis.share == ucl::ShareKind::kChunk ? ceil_div(count, ranks) : count / ranks;
  for (int64_t r = 0; r < ranks; ++r) out.push_back(std::clamp<int64_t>(count - r * step, 0, step));
  return out;
}

std::string list_text(const std::vector<int64_t>& numbers) {
  std::string out;
  for (const int64_t n : numbers) out += cat(out.empty() ? "" : ",", n);
  return out;
}

}  // namespace

bool lies_on(const RuleRef& rule, const Facts& facts, const Coordinate& at) {
  return std::all_of(rule.rule->on.begin(), rule.rule->on.end(), [&](const ucl::On& on) {
    const auto place = facts.place(rule.scope, at, on.axis.text);
    const auto ranks = facts.mesh_size(rule.scope, on.axis.text);
    if (!place || !ranks) return true;
    return std::any_of(on.places.begin(), on.places.end(), [&](const ucl::Place& p) {
      if (p.kind == ucl::Place::Kind::kFirst) return *place == 0;
      if (p.kind == ucl::Place::Kind::kLast) return *place == *ranks - 1;
      return *place == p.number;
    });
  });
}

std::optional<std::vector<int64_t>> place_of(const Facts& facts, const IndexRef& index,
                                             const Coordinate& at) {
  std::vector<int64_t> out;
  for (const ucl::CutAxis& a : index.index->cut.axes) {
    const auto place = facts.place(index.scope, at, a.axis.text);
    if (!place) return std::nullopt;
    out.push_back(*place);
  }
  return out;
}

// As nested cuts: on each axis, for each place on those outside of it.
void check_shares(const IndexRef& index, const CountAtPlace& found, const Facts& facts,
                  ucl::Diagnostics& diagnostics) {
  for (size_t a = 0; a < index.index->cut.axes.size(); ++a) {
    const ucl::CutAxis& axis = index.index->cut.axes[a];
    const auto ranks = facts.mesh_size(index.scope, axis.axis.text);
    if (!ranks) continue;
    std::map<std::vector<int64_t>, std::vector<int64_t>> shares;  // of each rank of the axis
    for (const auto& [place, count] : found) {
      if (place[a] < 0 || place[a] >= *ranks) return;  // a coordinate that the mesh has not
      auto& own = shares[{place.begin(), place.begin() + static_cast<std::ptrdiff_t>(a)}];
      own.resize(static_cast<size_t>(*ranks));
      own[static_cast<size_t>(place[a])] += count;
    }
    for (const auto& [outside, own] : shares) {
      const auto said = said_shares(axis, *ranks, std::accumulate(own.begin(), own.end(), int64_t{0}));
      if (!said || *said == own) continue;
      const bool even = axis.share == ucl::ShareKind::kEven;
      diagnostics
          .error(index.scope.file->source, axis.span, "ucl.shares",
                 cat("expected ", even ? std::string("as many") : list_text(*said), " numbers of `",
                     index.index->name.text, "` on ", even ? "all" : "the", " ranks of `", axis.axis.text,
                     "`, found ", list_text(own)))
          .hint(cat("`", axis.axis.text, "` without sizes takes what the files have"));
      return;
    }
  }
}

std::optional<double> amount_of(const ucl::Value& value, const Scope& scope, const Facts& facts,
                                ucl::Diagnostics& diagnostics) {
  const auto amount =
      facts.evaluate(value.expr, scope, [](std::string_view) { return Linear::beyond(); }).fraction();
  if (amount && amount->over != 0)
    return static_cast<double>(amount->over) / static_cast<double>(amount->under);
  diagnostics.error(scope.file->source, value.span, "ucl.size_unknown", "this value is 0 or stays unknown");
  return std::nullopt;
}

IndexShares::IndexShares(const RuleBook& book, const Facts& facts,
                         const std::map<std::string, int64_t, std::less<>>& counts, const Asked& asked,
                         std::span<const Coordinate> ranks, ucl::Diagnostics& diagnostics) {
  for (const auto& [capture, index] : book.indices()) {
    const auto count = counts.find(capture);
    const auto shared =
        count == counts.end() ? std::nullopt : share_out(index, count->second, facts, asked, diagnostics);
    if (!shared) continue;
    for (const Coordinate& at : ranks) {
      const auto place = place_of(facts, index, at);
      const auto range = place ? shared->find(*place) : shared->end();
      ranges_[index.index].push_back(range == shared->end() ? std::nullopt : std::optional(range->second));
    }
  }
}

std::optional<IndexShares::Range> IndexShares::at(const IndexRef& index, size_t rank) const {
  const auto ranges = ranges_.find(index.index);
  return ranges == ranges_.end() ? std::nullopt : ranges->second[rank];
}

// As nested cuts: first over the outermost axis, then each share over the next.
std::optional<IndexShares::Ranges> IndexShares::share_out(const IndexRef& index, int64_t count,
                                                          const Facts& facts, const Asked& asked,
                                                          ucl::Diagnostics& diagnostics) {
  Ranges ranges = {{{}, {0, count}}};
  for (const ucl::CutAxis& axis : index.index->cut.axes) {
    Ranges finer;
    const auto ranks = facts.mesh_size(index.scope, axis.axis.text);
    for (const auto& [place, range] : ranges) {
      const auto sizes =
          ranks ? shares(index, axis, *ranks, range.end - range.begin, asked, diagnostics) : std::nullopt;
      if (!sizes) return std::nullopt;
      int64_t begin = range.begin;
      for (size_t i = 0; i < sizes->size(); ++i) {
        std::vector<int64_t> inner = place;
        inner.push_back(static_cast<int64_t>(i));
        finer[std::move(inner)] = {begin, begin + (*sizes)[i]};
        begin += (*sizes)[i];
      }
    }
    ranges = std::move(finer);
  }
  return ranges;
}

std::optional<std::vector<int64_t>> IndexShares::shares(const IndexRef& index, const ucl::CutAxis& axis,
                                                        int64_t ranks, int64_t count, const Asked& asked,
                                                        ucl::Diagnostics& diagnostics) {
  const auto error = [&](std::string code, std::string message) -> ucl::Diagnostic& {
    return diagnostics.error(index.scope.file->source, axis.span, std::move(code), std::move(message));
  };
  const std::string numbers =
      cat(count, count == 1 ? " number" : " numbers", " of `", index.index->name.text, "`");
  std::vector<int64_t> out;
  if (axis.share == ucl::ShareKind::kSizes) {
    if (axis.sizes.size() != static_cast<size_t>(ranks)) {
      error("ucl.share_count", cat("expected ", ranks, " shares, one for each rank of `", axis.axis.text,
                                   "`, found ", axis.sizes.size()));
      return std::nullopt;
    }
    std::optional<int64_t> sum = 0;
    for (const int64_t size : axis.sizes) sum = sum ? checked_add(*sum, size) : std::nullopt;
    if (sum != count) {
      error("ucl.shares", cat("the shares add up to ", sum ? cat(*sum) : std::string("more than 64 bits"),
                              ", but there are ", numbers));
      return std::nullopt;
    }
    return axis.sizes;
  }
  if (const auto given = asked.find(axis.axis.text); given != asked.end()) {
    const auto scaled = scaled_to(given->second, ranks, count);
    if (!scaled)
      error("ucl.shares",
            cat("the shares that are asked for, ", list_text(given->second), ", do not give the ", numbers,
                " to ", ranks, " ranks of `", axis.axis.text, "`"));
    return scaled;
  }
  if (axis.share != ucl::ShareKind::kChunk && count % ranks != 0) {
    error("ucl.uneven", cat("the ", numbers, " cannot be shared out evenly over the ", ranks, " ranks of `",
                            axis.axis.text, "`"))
        .hint(cat("`", axis.axis.text, "[chunk]`, or the share of each rank as `", axis.axis.text,
                  "[7,8,8,7]`, says how"));
    return std::nullopt;
  }
  const int64_t step = ceil_div(count, ranks);
  for (int64_t r = 0; r < ranks; ++r) out.push_back(std::clamp<int64_t>(count - r * step, 0, step));
  return out;
}

}  // namespace uckpt::layout
