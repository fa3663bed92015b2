#include "lib/convert/infer.h"

#include <algorithm>
#include <map>
#include <optional>

#include "lib/base/text.h"
#include "lib/convert/placement.h"
#include "lib/exec/read_tensor.h"
#include "lib/kernels/crc.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/draft.h"
#include "lib/ucl/parse.h"
#include "lib/ucl/printer.h"

namespace uckpt {

namespace {

using WholeShapes = std::map<std::string, Shape, std::less<>>;

struct Guess {
  std::string body, reason;
};

// The weight of one name on each rank: pairs of a rank's catalog and the tensor in it.
using Fragments = std::vector<const Tensor*>;

class Drafter {
 public:
  Drafter(const Catalog& catalog, WholeShapes like, std::string like_name)
      : catalog_(catalog), like_(std::move(like)), like_name_(std::move(like_name)) {
    for (const RankSet& set : catalog.ranks) {
      Catalog& one = ranks_.emplace_back(catalog);
      one.tensors = set.tensors;
      one.ranks.clear();
    }
  }

  std::string run() {
    ucl::Draft draft;
    for (const auto& [name, where] : weights()) {
      Guess g = guess(where, like_.find(name));
      draft.add(name, std::move(g.body), std::move(g.reason));
    }
    std::string mesh;
    for (const auto& [axis, place] : catalog_.ranks.front().at) mesh += cat(mesh.empty() ? "" : ", ", axis);
    return draft.text("inferred", mesh, "drafted from the fragments: read it before you use it");
  }

 private:
  // In order of appearance: the name, and which tensor of each rank's catalog it is.
  std::vector<std::pair<std::string, std::vector<std::optional<size_t>>>> weights() const {
    std::vector<std::pair<std::string, std::vector<std::optional<size_t>>>> out;
    std::map<std::string_view, size_t> known;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      for (size_t i = 0; i < ranks_[r].tensors.size(); ++i) {
        const Tensor& t = ranks_[r].tensors[i];
        if (t.alias || (t.state != state::kMaster && t.state != state::kParam && t.state != state::kBuffer))
          continue;
        const auto [entry, fresh] = known.emplace(t.name, out.size());
        if (fresh) out.push_back({t.name, std::vector<std::optional<size_t>>(ranks_.size())});
        auto& place = out[entry->second].second[r];
        if (!place) place = i;
      }
    }
    return out;
  }

  const Tensor& tensor(size_t rank, size_t i) const { return ranks_[rank].tensors[i]; }

  Guess guess(const std::vector<std::optional<size_t>>& where, WholeShapes::const_iterator like) const {
    std::vector<Shape> shapes;
    for (size_t r = 0; r < where.size(); ++r)
      if (where[r]) shapes.push_back(tensor(r, *where[r]).shape);
    if (shapes.size() < where.size()) return {"unique", "not on every rank"};
    if (like != like_.end()) return by_reference(where, shapes, like->second);
    const bool same_shape =
        std::all_of(shapes.begin(), shapes.end(), [&](const Shape& s) { return s == shapes.front(); });
    if (same_shape && all_equal(where)) return {"replicate", "equal on all ranks"};
    if (same_shape)
      return {"?", cat("each rank has ", shape_text(shapes[0]),
                       ", and they differ: no shape tells which dim is cut")};
    const auto dim = dim_that_differs(shapes);
    if (!dim) return {"?", "the ranks' shapes differ in more than one dim"};
    return {cut_along(*dim, shapes[0].size()), cat("the ranks' shapes differ along dim ", *dim)};
  }

  Guess by_reference(const std::vector<std::optional<size_t>>& where, const std::vector<Shape>& shapes,
                     const Shape& whole) const {
    if (std::all_of(shapes.begin(), shapes.end(), [&](const Shape& s) { return s == whole; })) {
      if (all_equal(where))
        return {"replicate", cat("as large as in ", like_name_, ", and equal on all ranks")};
      return {"?", cat("as large as in ", like_name_, ", but the ranks differ: `partial mean`, or `unique`")};
    }
    if (std::any_of(shapes.begin(), shapes.end(), [&](const Shape& s) { return s.size() != whole.size(); }))
      return {"?", cat("it has other dims in ", like_name_, ": ", shape_text(whole))};
    std::optional<size_t> cut;
    for (size_t d = 0; d < whole.size(); ++d) {
      int64_t sum = 0;
      for (const Shape& s : shapes) sum += s[d];
      const bool uncut =
          std::all_of(shapes.begin(), shapes.end(), [&](const Shape& s) { return s[d] == whole[d]; });
      if (uncut) continue;
      if (cut || sum < whole[d])
        return {"?", cat("the fragments do not add up to ", shape_text(whole), " of ", like_name_)};
      cut = d;
    }
    int64_t sum = 0;
    for (const Shape& s : shapes) sum += s[*cut];
    if (sum > whole[*cut])
      return {cut_along(*cut, whole.size(), cat(whole[*cut], " pad(", sum, ") @tp")),
              cat("adds up to ", sum, " along dim ", *cut, ", ", whole[*cut], " in ", like_name_)};
    return {cut_along(*cut, whole.size()), cat("adds up to ", shape_text(whole), " of ", like_name_)};
  }

  // `[d0, d1@tp, ...]`
  std::string cut_along(size_t dim, size_t rank, std::string cut = {}) const {
    std::string out = "[";
    for (size_t d = 0; d < dim; ++d) out += cat("d", d, ", ");
    const std::string axis =
        catalog_.ranks.front().at.empty() ? "tp" : catalog_.ranks.front().at.begin()->first;
    out += cut.empty() ? cat("d", dim, "@", axis) : cut;
    return out + (dim + 1 < rank ? ", ...]" : "]");
  }

  static std::optional<size_t> dim_that_differs(const std::vector<Shape>& shapes) {
    std::optional<size_t> out;
    for (const Shape& s : shapes) {
      if (s.size() != shapes.front().size()) return std::nullopt;
      for (size_t d = 0; d < s.size(); ++d) {
        if (s[d] == shapes.front()[d]) continue;
        if (out && *out != d) return std::nullopt;
        out = d;
      }
    }
    return out;
  }

  bool all_equal(const std::vector<std::optional<size_t>>& where) const {
    std::optional<uint64_t> first;
    for (size_t r = 0; r < where.size(); ++r) {
      const Tensor& t = tensor(r, *where[r]);
      if (!t.refusal.empty()) return false;
      uint64_t raw = 0;
      read_tensor(ranks_[r], t, [&](ByteSpan bytes) {
        raw = kernels::Crc64::shift(raw, bytes.size()) ^ kernels::crc64_raw(bytes);
      });
      if (first && *first != raw) return false;
      first = raw;
    }
    return true;
  }

  const Catalog& catalog_;
  const WholeShapes like_;
  const std::string like_name_;
  std::vector<Catalog> ranks_;  // each with one rank's tensors
};

WholeShapes shapes_in(const std::string& path, const OpenOptions& options) {
  WholeShapes out;
  if (path.empty()) return out;
  const Catalog catalog = open_catalog(path, options);
  if (catalog.tensors.empty())
    throw refused("infer.like", "expected a checkpoint of whole tensors to compare shapes with")
        .in_file(path);
  for (const Tensor& t : catalog.tensors)
    if (t.state == state::kMaster || t.state == state::kParam || t.state == state::kBuffer ||
        t.state == state::kOther)
      out.emplace(t.name, t.shape);
  return out;
}

std::string canonical(const std::string& text) {
  ucl::Diagnostics diagnostics;
  const ucl::Source source("inferred", text);
  const ucl::Program program = ucl::parse(source, diagnostics);
  return diagnostics.has_errors() ? text : ucl::print(program);
}

}  // namespace

std::string infer_rules(const std::string& path, const std::string& like, const OpenOptions& options) {
  const Catalog catalog = open_catalog(path, options);
  if (!catalog.rules.empty()) return canonical(catalog.rules);
  if (catalog.ranks.empty()) {
    if (catalog.refusal) throw *catalog.refusal;
    if (const std::string placement = placement_rules(catalog); !placement.empty())
      return canonical(placement);
    return canonical(
        "ucl 1\n# all tensors are whole: no rule is needed to read them\nlayout whole { \"**\" replicate "
        "}\n");
  }
  return canonical(Drafter(catalog, shapes_in(like, options), escape(like)).run());
}

}  // namespace uckpt
