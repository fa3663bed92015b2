#include "lib/convert/infer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

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

// The weight of one name: which tensor of each rank's catalog it is.
using Where = std::vector<std::optional<size_t>>;
using Axes = std::vector<std::string>;

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
  // In order of appearance.
  std::vector<std::pair<std::string, Where>> weights() const {
    std::vector<std::pair<std::string, Where>> out;
    std::map<std::string_view, size_t> known;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      for (size_t i = 0; i < ranks_[r].tensors.size(); ++i) {
        const Tensor& t = ranks_[r].tensors[i];
        if (t.alias || (t.state != state::kMaster && t.state != state::kParam && t.state != state::kBuffer))
          continue;
        const auto [entry, fresh] = known.emplace(t.name, out.size());
        if (fresh) out.push_back({t.name, Where(ranks_.size())});
        auto& place = out[entry->second].second[r];
        if (!place) place = i;
      }
    }
    return out;
  }

  const Tensor& tensor(size_t rank, size_t i) const { return ranks_[rank].tensors[i]; }

  const Coordinate& at(size_t rank) const { return catalog_.ranks[rank].at; }
  int64_t place(size_t rank, const std::string& axis) const { return at(rank).find(axis)->second; }

  Guess guess(const Where& where, WholeShapes::const_iterator like) const {
    std::vector<size_t> holders;
    for (size_t r = 0; r < where.size(); ++r)
      if (where[r]) holders.push_back(r);
    const bool is_known = like != like_.end();
    if (holders.size() == 1 && where.size() > 1) {
      const Shape& own = tensor(holders[0], *where[holders[0]]).shape;
      if (is_known && own != like->second) return not_adding_up(like->second);
      return {"unique", "on one rank alone"};
    }
    const auto on = places_of(holders);
    if (!on) return {"?", "on some ranks only, which no axis alone tells"};
    Guess out = guess_among(where, holders, is_known ? &like->second : nullptr);
    out.body += *on;
    return out;
  }

  // ` on pp first` for a tensor that some of an axis's ranks lack; nothing where that does not tell the
  // ranks.
  std::optional<std::string> places_of(const std::vector<size_t>& holders) const {
    std::string out;
    size_t told = 0;
    std::map<std::string, std::set<int64_t>> held;
    for (const auto& [axis, unused] : at(0)) {
      std::set<int64_t> all;
      for (size_t r = 0; r < ranks_.size(); ++r) all.insert(place(r, axis));
      std::set<int64_t>& own = held[axis];
      for (const size_t r : holders) own.insert(place(r, axis));
      if (own == all) continue;
      std::string places;
      for (const int64_t p : own)
        places += cat(places.empty() ? " " : ", ", p == 0               ? "first"
                                                   : p == *all.rbegin() ? std::string("last")
                                                                        : cat(p));
      out += cat(" on ", axis, places);
    }
    for (size_t r = 0; r < ranks_.size(); ++r)
      told += std::ranges::all_of(held, [&](const auto& h) { return h.second.contains(place(r, h.first)); });
    return told == holders.size() ? std::optional(out) : std::nullopt;
  }

  Guess guess_among(const Where& where, const std::vector<size_t>& holders, const Shape* whole) const {
    const Axes axes = axes_of_change(where, holders, whole);
    if (axes.size() > 1 || (axes.size() == 1 && is_counted(axes[0]))) return several_tensors(axes);
    // One fragment for each place along the axis: the others are copies.
    std::map<int64_t, size_t> first;
    for (const size_t r : holders) first.try_emplace(axes.empty() ? 0 : place(r, axes[0]), r);
    std::vector<Shape> shapes;
    for (const auto& [unused, r] : first) shapes.push_back(tensor(r, *where[r]).shape);
    const std::string axis = axes.empty() ? std::string() : axes[0];
    return whole ? by_reference(axis, shapes, *whole) : by_shapes(axis, shapes);
  }

  static Guess by_shapes(const std::string& axis, const std::vector<Shape>& shapes) {
    if (axis.empty()) return {"replicate", "equal on all ranks"};
    if (std::ranges::all_of(shapes, [&](const Shape& s) { return s == shapes[0]; }))
      return {"?", cat("each rank has ", shape_text(shapes[0]),
                       ", and they differ: no shape tells which dim is cut")};
    const auto dim = dim_that_differs(shapes);
    if (!dim) return {"?", "the ranks' shapes differ in more than one dim"};
    return {cut_along(*dim, shapes[0].size(), cat("d", *dim, "@", axis)),
            cat("the ranks' shapes differ along dim ", *dim)};
  }

  Guess not_adding_up(const Shape& whole) const {
    return {"?", cat("the fragments do not add up to ", shape_text(whole), " of ", like_name_)};
  }

  Guess by_reference(const std::string& axis, const std::vector<Shape>& shapes, const Shape& whole) const {
    if (std::ranges::all_of(shapes, [&](const Shape& s) { return s == whole; })) {
      if (axis.empty()) return {"replicate", cat("as large as in ", like_name_, ", and equal on all ranks")};
      return {"?", cat("as large as in ", like_name_, ", but the ranks of ", axis,
                       " differ: `partial mean`, or several tensors, whose `index` is `local`")};
    }
    if (std::ranges::any_of(shapes, [&](const Shape& s) { return s.size() != whole.size(); }))
      return {"?", cat("it has other dims in ", like_name_, ": ", shape_text(whole))};
    std::optional<size_t> cut;
    int64_t sum = 0;
    for (size_t d = 0; d < whole.size(); ++d) {
      if (std::ranges::all_of(shapes, [&](const Shape& s) { return s[d] == whole[d]; })) continue;
      sum = 0;
      for (const Shape& s : shapes) sum += s[d];
      if (cut || sum < whole[d] || axis.empty()) return not_adding_up(whole);
      cut = d;
    }
    if (sum > whole[*cut])
      return {cut_along(*cut, whole.size(), cat(whole[*cut], " pad(", sum, ") @", axis)),
              cat("adds up to ", sum, " along dim ", *cut, ", ", whole[*cut], " in ", like_name_)};
    return {cut_along(*cut, whole.size(), cat("d", *cut, "@", axis)),
            cat("adds up to ", shape_text(whole), " of ", like_name_)};
  }

  // Pipeline stages hold different layers, not parts of one tensor.
  static bool is_counted(std::string_view axis) { return axis == "pp" || axis == "vp"; }

  static Guess several_tensors(const Axes& axes) {
    std::string names;
    for (const std::string& a : axes) names += cat(names.empty() ? "" : " and ", a);
    if (std::ranges::none_of(axes, is_counted))
      return {"?", cat("it differs along ", names, ": no rule with one cut gives it")};
    return {"?", cat("it differs along ", names,
                     ": where the files of each rank count from 0, an `index` with `local` says so")};
  }

  // The fewest axes by which one tells what a rank holds: none for copies. Of axes that tell the same, such
  // as tp and etp in most runs, the likelier cut.
  Axes axes_of_change(const Where& where, const std::vector<size_t>& holders, const Shape* whole) const {
    Axes axes;
    for (const auto& [axis, unused] : at(0)) axes.push_back(axis);
    std::ranges::stable_sort(axes, {}, [](const std::string& a) {
      return a == "tp" ? 2 : a == "pp" ? 1 : 0;
    });
    // By places alone first, which costs no reading.
    axes = fewest(axes, holders, [&](size_t r) { return cat(r); });
    const bool is_cut =
        whole && std::ranges::any_of(holders, [&](size_t r) { return tensor(r, *where[r]).shape != *whole; });
    if (axes.empty() || (axes.size() == 1 && is_cut)) return axes;
    const Contents contents = contents_of(where, holders);
    return fewest(axes, holders, [&](size_t r) { return contents.at(r); });
  }

  template <typename What>
  Axes fewest(Axes axes, const std::vector<size_t>& holders, const What& what) const {
    const auto tell = [&](const Axes& some) {
      std::map<std::vector<int64_t>, std::string> known;
      return std::ranges::all_of(holders, [&](size_t r) {
        std::vector<int64_t> places;
        for (const std::string& a : some) places.push_back(place(r, a));
        return known.try_emplace(places, what(r)).first->second == what(r);
      });
    };
    for (size_t i = 0; i < axes.size();) {
      Axes fewer = axes;
      fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(i));
      if (tell(fewer))
        axes = std::move(fewer);
      else
        ++i;
    }
    return axes;
  }

  // `[d0, CUT, ...]`
  static std::string cut_along(size_t dim, size_t rank, const std::string& cut) {
    std::string out = "[";
    for (size_t d = 0; d < dim; ++d) out += cat("d", d, ", ");
    return cat(out, cut, dim + 1 < rank ? ", ...]" : "]");
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

  // By rank: shape and checksum. What cannot be read is taken to differ.
  using Contents = std::map<size_t, std::string>;
  Contents contents_of(const Where& where, const std::vector<size_t>& holders) const {
    Contents out;
    for (const size_t r : holders) {
      const Tensor& t = tensor(r, *where[r]);
      if (!t.refusal.empty()) {
        out[r] = cat("rank ", r);
        continue;
      }
      uint64_t raw = 0;
      read_tensor(ranks_[r], t, [&](ByteSpan bytes) {
        raw = kernels::Crc64::shift(raw, bytes.size()) ^ kernels::crc64_raw(bytes);
      });
      out[r] = cat(shape_text(t.shape), " ", raw);
    }
    return out;
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
