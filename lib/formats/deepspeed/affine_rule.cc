#include "lib/formats/deepspeed/affine_rule.h"

#include <algorithm>
#include <cmath>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

// A part of one dim: [whole, whole + size) of the tensor is [shard, shard + size) of the fragment.
struct Interval {
  int64_t shard, whole, size;
  bool operator==(const Interval&) const = default;
};

int64_t stride_of(const Shape& shape, size_t dim) {
  int64_t stride = 1;
  for (size_t d = dim + 1; d < shape.size(); ++d) stride *= shape[d];
  return stride;
}

// The intervals of a rank along `dim`, if its pieces are whole in all other dims and row-major on both sides.
std::optional<std::vector<Interval>> intervals_of(const std::vector<AffinePiece>& pieces, const Shape& whole,
                                                  size_t dim) {
  Shape shard = whole;
  shard[dim] = 0;
  for (const AffinePiece& p : pieces) {
    if (p.shape.size() != whole.size()) return std::nullopt;
    shard[dim] += p.shape[dim];
  }
  std::vector<Interval> out;
  for (const AffinePiece& p : pieces) {
    for (size_t d = 0; d < whole.size(); ++d) {
      if (d != dim && p.shape[d] != whole[d]) return std::nullopt;
      if (p.shape[d] > 1 &&
          (p.whole_strides[d] != stride_of(whole, d) || p.shard_strides[d] != stride_of(shard, d)))
        return std::nullopt;
    }
    const int64_t whole_step = stride_of(whole, dim), shard_step = stride_of(shard, dim);
    if (whole_step == 0 || shard_step == 0 || p.whole_offset % whole_step != 0 ||
        p.shard_offset % shard_step != 0)
      return std::nullopt;
    if (p.shape[dim] > 0)
      out.push_back({p.shard_offset / shard_step, p.whole_offset / whole_step, p.shape[dim]});
  }
  std::sort(out.begin(), out.end(), [](const Interval& a, const Interval& b) { return a.shard < b.shard; });
  int64_t at = 0;
  for (const Interval& i : out) {
    if (i.shard != at) return std::nullopt;
    at += i.size;
  }
  return out;
}

// One block of a concatenation, by rank.
struct Block {
  int64_t size = 0;
  bool cut = false;
  std::vector<int64_t> widths;
};

// Block by block: each is held whole by every rank, or shared out in the order of the ranks.
std::optional<std::vector<Block>> blocks_of(const std::vector<std::vector<Interval>>& ranks, int64_t length) {
  const size_t count = ranks.front().size();
  for (const auto& r : ranks)
    if (r.size() != count) return std::nullopt;
  std::vector<Block> out;
  int64_t base = 0;
  for (size_t b = 0; b < count; ++b) {
    Block block;
    const Interval& first = ranks.front()[b];
    const bool copied = std::all_of(ranks.begin(), ranks.end(), [&](const auto& r) {
      return r[b].whole == first.whole && r[b].size == first.size;
    });
    block.cut = !copied;
    int64_t at = base;
    for (const auto& r : ranks) {
      if (r[b].whole != (copied ? base : at)) return std::nullopt;
      block.widths.push_back(r[b].size);
      if (!copied) at += r[b].size;
    }
    block.size = copied ? first.size : at - base;
    base += block.size;
    out.push_back(std::move(block));
  }
  return base == length ? std::optional(out) : std::nullopt;
}

std::string widths_text(const std::vector<int64_t>& widths) {
  const bool even = std::all_of(widths.begin(), widths.end(), [&](int64_t w) { return w == widths.front(); });
  if (even) return "@tp[even]";
  std::string out;
  for (const int64_t w : widths) out += cat(out.empty() ? "@tp[" : ",", w);
  return out + "]";
}

std::string dim_text(const std::vector<Block>& blocks, size_t dim) {
  if (blocks.size() == 1)
    return cat(dim == 0 ? "rows" : "columns", blocks[0].cut ? widths_text(blocks[0].widths) : std::string());
  std::string out = "(";
  for (size_t b = 0; b < blocks.size(); ++b)
    out += cat(b ? " | " : "", "s", b, ": ", blocks[b].size,
               blocks[b].cut ? widths_text(blocks[b].widths) : std::string());
  return out + ")";
}

// One scale for all pieces, as a UCL value; "" for 1.
std::optional<std::string> value_of(const AffineMap& map) {
  std::optional<double> scale;
  for (const auto& [rank, pieces] : map.ranks) {
    for (const AffinePiece& p : pieces) {
      if (scale && *scale != p.scale) return std::nullopt;
      scale = p.scale;
    }
  }
  if (!scale || *scale == 1) return "";
  const double inverse = 1 / *scale;
  if (*scale > 0 && *scale < 1e9 && std::floor(*scale) == *scale)
    return cat(" * ", static_cast<int64_t>(*scale));
  if (inverse > 0 && inverse < 1e9 && std::floor(inverse) == inverse && 1 / inverse == *scale)
    return cat(" * 1/", static_cast<int64_t>(inverse));
  return std::nullopt;
}

}  // namespace

std::optional<std::string> body_of(const AffineMap& map, int64_t tp) {
  const auto value = value_of(map);
  if (!value || static_cast<int64_t>(map.ranks.size()) != tp) return std::nullopt;
  if (map.whole.empty()) return cat("[]", *value);
  for (size_t dim = 0; dim < map.whole.size(); ++dim) {
    std::vector<std::vector<Interval>> ranks;
    bool fits = true;
    for (int64_t r = 0; r < tp && fits; ++r) {
      const auto own = map.ranks.find(r);
      const auto intervals =
          own == map.ranks.end() ? std::nullopt : intervals_of(own->second, map.whole, dim);
      fits = intervals.has_value();
      if (fits) ranks.push_back(*intervals);
    }
    const auto blocks = fits ? blocks_of(ranks, map.whole[dim]) : std::nullopt;
    if (!blocks || blocks->empty()) continue;
    if (blocks->size() == 1 && !blocks->front().cut) return cat("replicate", *value);
    std::string out = "[";
    for (size_t d = 0; d < dim; ++d) out += cat("d", d, ", ");
    out += dim_text(*blocks, dim);
    return cat(out, dim + 1 < map.whole.size() ? ", ...]" : "]", *value);
  }
  return std::nullopt;
}

Scattered scattered_by(const AffineMap& map, int64_t tp) {
  const auto fail = [&](std::string why) {
    return refused("deepspeed.affine_map", cat("its affine map ", why));
  };
  const auto numel = checked_product(map.whole);
  if (!numel) throw fail("speaks of more than 2^63 elements");
  Scattered out{map.whole, std::vector<std::vector<ScatteredBox>>(static_cast<size_t>(tp)), 1};
  std::optional<double> scale;
  for (const auto& [rank, pieces] : map.ranks) {
    if (rank < 0 || rank >= tp) throw fail(cat("speaks of rank ", rank, ", expected 0 to ", tp - 1));
    for (const AffinePiece& p : pieces) {
      if (scale && *scale != p.scale) throw fail("scales its parts differently, which is not read");
      scale = p.scale;
      std::optional<int64_t> last = p.whole_offset;
      bool empty = false;
      for (size_t d = 0; d < p.shape.size(); ++d) {
        empty |= p.shape[d] == 0;
        const auto way = checked_mul(p.shape[d] - 1, p.whole_strides[d]);
        last = last && way ? checked_add(*last, *way) : std::nullopt;
      }
      if (empty) continue;
      if (!last || *last >= *numel) throw fail("leaves the tensor");
      out.ranks[static_cast<size_t>(rank)].push_back(
          {p.shape, p.whole_strides, p.shard_strides, p.whole_offset, p.shard_offset});
    }
  }
  out.scale = scale.value_or(1);
  return out;
}

}  // namespace uckpt::deepspeed
