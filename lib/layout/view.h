// What one rank holds of a tensor, as integer maths: which elements, and in which order.
//
// A *view* has two row-major index ranges: the elements of the whole (logical) tensor, and those that the
// rank holds (local). It is a list of *strands*: loop nests that walk both at once. Products, concatenations
// and shares of views are views; so a shape expression is evaluated from the inside out, dims being the
// outermost product. Sizes and strides count elements.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace uckpt::layout {

struct Step {
  int64_t count;
  int64_t logical, local;  // strides
  bool operator==(const Step&) const = default;
};

// One loop nest. Local strides fall from step to step and what lies inside one step of a loop is shorter than
// its stride, so that local positions never meet. No steps: one element.
struct Strand {
  int64_t logical = 0, local = 0;  // of the first element
  std::vector<Step> steps;

  int64_t volume() const;
  bool same_elements(const Strand& other) const;  // in the same order
};

struct View {
  int64_t logical = 1;          // elements of the whole
  int64_t local = 1;            // elements that the rank holds, padding counted
  std::vector<Strand> strands;  // sorted by local position; what no strand covers is padding

  int64_t volume() const;  // elements that are no padding
};

// Bounds what a hostile expression may ask for; more is an Error (`layout.too_many_pieces`).
inline constexpr size_t kMaxStrands = size_t{1} << 20;

// A plain axis of `size` elements, held in `padded` places (the last ones filler).
View axis_view(int64_t size, int64_t padded);
// One element: the product of nothing.
View unit_view();
// `outer` indexes, `inner` within each.
View product(const View& outer, const View& inner);
// One after another.
View concatenation(std::span<const View> blocks);
// The part of the local range [begin, end), as a rank that holds only it sees it.
View share(const View& view, int64_t begin, int64_t end);

}  // namespace uckpt::layout
