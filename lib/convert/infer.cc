#include "lib/convert/infer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "lib/base/checked.h"
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

// What fragments are compared with: a checkpoint of whole tensors, and the weight of each name.
struct Reference {
  Catalog catalog;
  std::string name;  // for people
  std::map<std::string, size_t, std::less<>> weights;

  const Tensor* find(const std::string& weight) const {
    const auto found = weights.find(weight);
    return found == weights.end() ? nullptr : &catalog.tensors[found->second];
  }
};

// One step along a dim of a tensor: a row, a column.
struct Slice {
  uint64_t crc = 0;
  bool is_zero = true;
  bool operator==(const Slice&) const = default;
};
using Slices = std::vector<Slice>;

// Those along `dim`, in order; nothing if they cannot be read.
std::optional<Slices> slices_of(const Catalog& catalog, const Tensor& t, size_t dim) {
  const Tensor& source = t.alias ? catalog.tensors[*t.alias] : t;
  const int item = item_size(source.dtype);
  if (!source.refusal.empty() || item == 0 || numel_of(t.shape) == 0) return std::nullopt;
  size_t inner = static_cast<size_t>(item);
  for (size_t d = dim + 1; d < t.shape.size(); ++d) inner *= static_cast<size_t>(t.shape[d]);
  Slices out(static_cast<size_t>(t.shape[dim]));
  size_t at = 0, left = inner;  // the slice at hand, and what is to come of this part of it
  read_tensor(catalog, t, [&](ByteSpan bytes) {
    while (!bytes.empty()) {
      const ByteSpan part = bytes.first(std::min(left, bytes.size()));
      Slice& s = out[at];
      s.crc = kernels::Crc64::shift(s.crc, part.size()) ^ kernels::crc64_raw(part);
      s.is_zero = s.is_zero && std::ranges::all_of(part, [](uint8_t b) { return b == 0; });
      bytes = bytes.subspan(part.size());
      left -= part.size();
      if (left > 0) continue;
      left = inner;
      at = at + 1 == out.size() ? 0 : at + 1;
    }
  });
  return out;
}

// How many of the first one's slices every one has.
int64_t count_in_all(const std::vector<Slices>& ranks) {
  std::map<uint64_t, size_t> least;
  for (const Slice& s : ranks.front()) ++least[s.crc];
  for (const Slices& rank : ranks) {
    std::map<uint64_t, size_t> own;
    for (const Slice& s : rank) ++own[s.crc];
    for (auto& [crc, count] : least) count = std::min(count, own[crc]);
  }
  int64_t out = 0;
  for (const auto& [crc, count] : least) out += static_cast<int64_t>(count);
  return out;
}

struct Guess {
  std::string body, reason;
};

// The weight of one name: which tensor of each rank's catalog it is.
using Where = std::vector<std::optional<size_t>>;
using Axes = std::vector<std::string>;
// Of one tensor: each with the catalog of its rank.
using Fragments = std::vector<std::pair<const Catalog*, const Tensor*>>;

class Drafter {
 public:
  Drafter(const Catalog& catalog, const Reference& like) : catalog_(catalog), like_(like) {
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

  Guess guess(const Where& where, const Tensor* whole) const {
    std::vector<size_t> holders;
    for (size_t r = 0; r < where.size(); ++r)
      if (where[r]) holders.push_back(r);
    if (holders.size() == 1 && where.size() > 1) {
      const Shape& own = tensor(holders[0], *where[holders[0]]).shape;
      if (whole && own != whole->shape) return not_adding_up(whole->shape);
      return {"unique", "on one rank alone"};
    }
    const auto on = places_of(holders);
    if (!on) return {"?", "on some ranks only, which no axis alone tells"};
    Guess out = guess_among(where, holders, whole);
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

  Guess guess_among(const Where& where, const std::vector<size_t>& holders, const Tensor* whole) const {
    const Axes axes = axes_of_change(where, holders, whole ? &whole->shape : nullptr);
    if (axes.size() > 1 || (axes.size() == 1 && is_counted(axes[0]))) return several_tensors(axes);
    // One fragment for each place along the axis: the others are copies.
    std::map<int64_t, size_t> first;
    for (const size_t r : holders) first.try_emplace(axes.empty() ? 0 : place(r, axes[0]), r);
    Fragments fragments;
    std::vector<Shape> shapes;
    for (const auto& [unused, r] : first) {
      fragments.push_back({&ranks_[r], &tensor(r, *where[r])});
      shapes.push_back(fragments.back().second->shape);
    }
    const std::string axis = axes.empty() ? std::string() : axes[0];
    return whole ? by_reference(axis, fragments, shapes, *whole) : by_shapes(axis, shapes);
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
    return {"?", cat("the fragments do not add up to ", shape_text(whole), " of ", like_.name)};
  }

  Guess by_reference(const std::string& axis, const Fragments& fragments, const std::vector<Shape>& shapes,
                     const Tensor& reference) const {
    const Shape& whole = reference.shape;
    if (std::ranges::all_of(shapes, [&](const Shape& s) { return s == whole; })) {
      if (axis.empty()) return {"replicate", cat("as large as in ", like_.name, ", and equal on all ranks")};
      return {"?", cat("as large as in ", like_.name, ", but the ranks of ", axis,
                       " differ: `partial mean`, or several tensors, whose `index` is `local`")};
    }
    if (std::ranges::any_of(shapes, [&](const Shape& s) { return s.size() != whole.size(); }))
      return {"?", cat("it has other dims in ", like_.name, ": ", shape_text(whole))};
    std::optional<size_t> cut;
    int64_t sum = 0;
    for (size_t d = 0; d < whole.size(); ++d) {
      if (std::ranges::all_of(shapes, [&](const Shape& s) { return s[d] == whole[d]; })) continue;
      sum = 0;
      for (const Shape& s : shapes) sum += s[d];
      if (cut || sum < whole[d] || axis.empty()) return not_adding_up(whole);
      cut = d;
    }
    if (sum > whole[*cut]) return larger(axis, fragments, *cut, sum, reference);
    return {cut_along(*cut, whole.size(), cat("d", *cut, "@", axis)),
            cat("adds up to ", shape_text(whole), " of ", like_.name)};
  }

  // More than the whole: padding, or blocks that every rank has. Only values tell.
  Guess larger(const std::string& axis, const Fragments& fragments, size_t dim, int64_t sum,
               const Tensor& reference) const {
    const int64_t size = reference.shape[dim];
    const std::string padded = cat(size, " pad(", sum, ") @", axis);
    const std::string adds_up = cat("adds up to ", sum, " along dim ", dim, ", ", size, " in ", like_.name);
    const std::string proof = proof_of_padding(fragments, dim, sum, reference);
    if (!proof.empty()) return {cut_along(dim, reference.shape.size(), padded), cat(adds_up, ": ", proof)};
    const auto others = static_cast<int64_t>(fragments.size()) - 1;
    const int64_t copied = others > 0 && (sum - size) % others == 0 ? (sum - size) / others : 0;
    const std::string blocks =
        copied > 0 && copied < size ? cat("`(a: ", size - copied, "@", axis, " | b: ", copied, ")`, ") : "";
    return {"?", cat(adds_up, ": padding, `", padded, "`, or blocks that every rank has, ", blocks,
                     "and no value proves which")};
  }

  // Nothing where the values might as well be copies.
  std::string proof_of_padding(const Fragments& fragments, size_t dim, int64_t sum,
                               const Tensor& reference) const {
    std::vector<Slices> ranks;
    Slices all;
    for (const auto& [catalog, fragment] : fragments) {
      const auto slices = slices_of(*catalog, *fragment, dim);
      if (!slices) return "";
      all.insert(all.end(), slices->begin(), slices->end());
      ranks.push_back(*slices);
    }
    const auto size = static_cast<size_t>(reference.shape[dim]);
    const Tensor& first = *fragments.front().second;
    const auto whole =
        first.dtype == reference.dtype ? slices_of(like_.catalog, reference, dim) : std::nullopt;
    if (whole && std::equal(whole->begin(), whole->end(), all.begin())) return "the rest is padding";
    const bool is_zero = std::all_of(all.begin() + static_cast<ptrdiff_t>(size), all.end(),
                                     [](const Slice& s) { return s.is_zero; });
    // As many as copies would have to be, over all other ranks.
    const int64_t copied = ceil_div(sum - reference.shape[dim], std::max<int64_t>(1, std::ssize(ranks) - 1));
    return is_zero && count_in_all(ranks) < copied ? "the rest is zeros" : "";
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
  const Reference& like_;
  std::vector<Catalog> ranks_;  // each with one rank's tensors
};

Reference open_reference(const std::string& path, const OpenOptions& options) {
  Reference out;
  if (path.empty()) return out;
  out.name = escape(path);
  out.catalog = open_catalog(path, options);
  const std::vector<Tensor>& tensors = out.catalog.tensors;
  if (tensors.empty())
    throw refused("infer.like", "expected a checkpoint of whole tensors to compare shapes with")
        .in_file(path);
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string& state = tensors[i].state;
    if (state == state::kMaster || state == state::kParam || state == state::kBuffer ||
        state == state::kOther)
      out.weights.emplace(tensors[i].name, i);
  }
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
  const Reference reference = open_reference(like, options);
  return canonical(Drafter(catalog, reference).run());
}

}  // namespace uckpt
