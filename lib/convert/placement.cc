#include "lib/convert/placement.h"

#include <algorithm>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/tensor/grid.h"
#include "lib/ucl/draft.h"

namespace uckpt {

namespace {

std::string list_of(const std::vector<int64_t>& numbers, std::string_view between) {
  std::string out;
  for (size_t i = 0; i < numbers.size(); ++i) out += cat(i > 0 ? between : "", numbers[i]);
  return out;
}

struct Rule {
  std::string body, reason;
};

// `[d0, d1@dp[chunk], ...]`
std::string body_of(const std::vector<std::string>& cuts) {
  size_t last = cuts.size();
  while (last > 0 && cuts[last - 1].empty()) --last;
  std::string out = "[";
  for (size_t d = 0; d < last; ++d) out += cat(d > 0 ? ", " : "", "d", d, cuts[d]);
  return out + (last < cuts.size() ? ", ...]" : "]");
}

// How one dim is cut over one axis; sizes that torch.chunk does not make are spelt out. Empty if there are
// more parts than ranks.
std::string cut_text(std::string_view axis, const std::vector<int64_t>& parts, int64_t size, int64_t ranks) {
  const auto count = static_cast<int64_t>(parts.size());
  if (count > ranks) return "";
  if (count == ranks && is_even(parts)) return cat("@", axis);
  if (is_chunked(parts, size, ranks)) return cat("@", axis, "[chunk]");
  std::vector<int64_t> all = parts;
  all.resize(static_cast<size_t>(ranks), 0);
  return cat("@", axis, "[", list_of(all, ","), "]");
}

// A dim cut over `outer` ranks and each share again over `inner`, both as torch.chunk cuts; what is there.
std::vector<int64_t> cut_twice(int64_t size, int64_t outer, int64_t inner) {
  std::vector<int64_t> out;
  const auto shares = [](int64_t whole, int64_t ranks) {
    std::vector<int64_t> parts;
    const int64_t share = ceil_div(whole, ranks);
    for (; whole > 0; whole -= parts.back()) parts.push_back(std::min(share, whole));
    return parts;
  };
  for (const int64_t share : shares(size, outer))
    for (const int64_t part : shares(share, inner)) out.push_back(part);
  return out;
}

Rule rule_of(const Tensor& t, const std::optional<Grid>& grid, const std::vector<int64_t>& mesh) {
  if (!grid) return {"?", cat(t.pieces.count, " chunks, which are no grid")};
  const std::vector<size_t> dims = cut_dims(*grid);
  if (dims.empty()) return {"replicate", "stored whole"};
  std::vector<std::string> cuts(t.shape.size());
  std::string reason = t.layout;
  const auto parts = [&](size_t i) -> const std::vector<int64_t>& { return (*grid)[dims[i]]; };
  if (dims.size() == 2 && mesh.size() == 2) {
    cuts[dims[0]] = cut_text("dp", parts(0), t.shape[dims[0]], mesh[0]);
    cuts[dims[1]] = cut_text("tp", parts(1), t.shape[dims[1]], mesh[1]);
  } else if (dims.size() == 1) {
    const int64_t size = t.shape[dims[0]];
    std::string& cut = cuts[dims[0]];
    cut = cut_text("dp", parts(0), size, mesh[0]);
    if (cut.empty() && mesh.size() == 2) cut = cut_text("tp", parts(0), size, mesh[1]);
    if (cut.empty() && mesh.size() == 2 && cut_twice(size, mesh[1], mesh[0]) == parts(0)) {
      const bool even = size % (mesh[0] * mesh[1]) == 0;
      cut = even ? "@(tp, dp)" : "@(tp[chunk], dp[chunk])";
      reason += ", if it is FSDP inside tensor parallel";
    }
  }
  const auto said = std::count_if(cuts.begin(), cuts.end(), [](const auto& c) { return !c.empty(); });
  if (static_cast<size_t>(said) != dims.size())
    return {"?", cat(reason, ": does not fit a mesh of ", list_of(mesh, " x "))};
  return {body_of(cuts), std::move(reason)};
}

}  // namespace

std::string placement_rules(const Catalog& catalog) {
  std::vector<const Tensor*> weights;
  std::vector<std::optional<Grid>> grids;
  for (const Tensor& t : catalog.tensors) {
    if (!is_weight(t.state) || t.alias || !t.refusal.empty()) continue;
    const auto pieces = catalog.pieces_of(t.pieces);
    for (const Piece& p : pieces)
      if (pieces.size() > 1 && p.rank != t.shape.size()) return "";
    weights.push_back(&t);
    grids.push_back(pieces.size() < 2 ? Grid(t.shape.size(), {0})
                                      : grid_of(t.shape, pieces.size(), [&](size_t piece, size_t d) {
                                          const Axis& axis = catalog.axes_of(pieces[piece])[d];
                                          return Interval{axis.start, axis.extent};
                                        }));
  }
  const std::vector<int64_t> mesh = guess_mesh(grids);
  if (mesh.empty()) return "";
  ucl::Draft draft;
  for (size_t i = 0; i < weights.size(); ++i) {
    Rule rule = rule_of(*weights[i], grids[i], mesh);
    draft.add(weights[i]->name, std::move(rule.body), std::move(rule.reason));
  }
  return draft.text("saved", mesh.size() == 2 ? "dp, tp" : "dp",
                    cat("how the chunks lay over a mesh of ", list_of(mesh, " x "),
                        ", as far as they tell; they are read whole: no rule is needed for that"));
}

}  // namespace uckpt
