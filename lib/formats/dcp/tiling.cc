#include "lib/formats/dcp/tiling.h"

#include <algorithm>
#include <bit>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::dcp {

namespace {

constexpr size_t kMostCorners = 1 << 26;

// The dims that any chunk does not span whole.
std::vector<size_t> cut_dims(const Shape& shape, const Chunks& chunks) {
  std::vector<size_t> out;
  for (size_t d = 0; d < shape.size(); ++d) {
    size_t whole = 0;
    while (whole < chunks.size() && chunks.boxes().extent(whole, d) == shape[d]) ++whole;
    if (whole < chunks.size()) out.push_back(d);
  }
  return out;
}

// A corner of box `box`, the upper one along the dims whose bit is set. Box `count` is the tensor itself.
struct Corner {
  uint32_t box, upper;
};

}  // namespace

// The function that tells in how many chunks an element lies is the sum, over all corners of chunks below the
// element, of +1 for corners with an even number of upper ends and -1 for odd ones. It is 1 everywhere in the
// tensor if and only if the corners cancel against those of the tensor as a whole; and at the first corner in
// lexicographic order where they do not, what is left over is the number of chunks there, less 1.
void check_tiling(const Shape& shape, const Chunks& chunks) {
  if (std::ranges::find(shape, 0) != shape.end()) return;
  const std::vector<size_t> dims = cut_dims(shape, chunks);
  if (dims.size() >= 26 || ((chunks.size() + 1) << dims.size()) > kMostCorners)
    throw refused("limit.cut_dims", cat("expected fewer chunks in fewer dims, found ", chunks.size(),
                                        " chunks cut along ", dims.size(), " dims"));
  const auto whole = static_cast<uint32_t>(chunks.size());
  const auto at = [&](const Corner& c, size_t i) {
    const size_t d = dims[i];
    const bool upper = (c.upper >> i & 1) != 0;
    if (c.box == whole) return upper ? shape[d] : int64_t{0};
    return chunks.boxes().offset(c.box, d) + (upper ? chunks.boxes().extent(c.box, d) : 0);
  };
  const auto order = [&](const Corner& a, const Corner& b) {
    for (size_t i = 0; i < dims.size(); ++i)
      if (const int64_t x = at(a, i), y = at(b, i); x != y) return x < y ? -1 : 1;
    return 0;
  };
  std::vector<Corner> corners;
  corners.reserve((chunks.size() + 1) << dims.size());
  for (uint32_t box = 0; box <= whole; ++box)
    for (uint32_t upper = 0; upper < uint32_t{1} << dims.size(); ++upper) corners.push_back({box, upper});
  std::ranges::sort(corners, [&](const Corner& a, const Corner& b) { return order(a, b) < 0; });
  for (size_t first = 0, end = 0; first < corners.size(); first = end) {
    int64_t left_over = 0;
    for (; end < corners.size() && order(corners[first], corners[end]) == 0; ++end) {
      const int64_t sign = std::popcount(corners[end].upper) % 2 == 0 ? 1 : -1;
      left_over += corners[end].box == whole ? -sign : sign;
    }
    if (left_over == 0) continue;
    Shape element(shape.size(), 0);
    for (size_t i = 0; i < dims.size(); ++i) element[dims[i]] = at(corners[first], i);
    if (left_over < 0)
      throw refused("dcp.hole", cat("element ", shape_text(element), " of a tensor ", shape_text(shape),
                                    " is in none of its ", chunks.size(), " chunks"))
          .hint("a rank's part was not saved, or `.metadata` was changed: save it again");
    throw refused("dcp.overlap", cat("element ", shape_text(element), " of a tensor ", shape_text(shape),
                                     " is in ", left_over + 1, " chunks: expected it in one"))
        .hint("the save is contradictory: save it again with one chunk for each element");
  }
}

}  // namespace uckpt::dcp
