// The shape expression as a tree, as written: `[g@tp (q: r | k: 1 | v: 1) d, h]`.
//
//   Shape   dims, outermost first, and where `...` stands
//   Dim     a product of factors, outermost first
//   Factor  an axis, a number, a group `( dim )` or a concatenation `( label: dim | … )`, with its marks
//
// Trees are plain values: copy, compare spans, walk by recursion (the parser limits nesting to 200).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/ucl/expr.h"
#include "lib/ucl/span.h"

namespace uckpt::ucl {

struct Factor;

struct Dim {
  std::vector<Factor> factors;  // at least one
  Span span;
};

// How big the shares of a cut are.
enum class ShareKind : uint8_t {
  kPlain,  // `@tp`: in a source as the fragments have it, in a target even
  kEven,   // `@tp[even]`: must divide
  kChunk,  // `@tp[chunk]`: ceil-sized, the last ones short or empty
  kSizes,  // `@tp[3,3,2,2]`
};

// One mesh axis of a cut, with the sizes of its shares.
struct CutAxis {
  Name axis;
  ShareKind share = ShareKind::kPlain;
  std::vector<int64_t> sizes;  // kSizes only; none is negative
  Span span;
};

// `@tp` or `@(tp, dp)`: nested, the first axis outermost.
struct Cut {
  std::vector<CutAxis> axes;  // at least one
  Span span;                  // with the `@`
};

// One part of a concatenation; the only one of a plain group, whose label is empty.
struct Block {
  Name label;
  Dim dim;
  Span span;
};

struct Factor {
  enum class Kind : uint8_t {
    kAxis,    // `axis`
    kNumber,  // `number`: an axis without a name
    kGroup,   // `blocks[0].dim`, in parentheses
    kConcat,  // `blocks`, one after another, each with its label
  };
  Kind kind = Kind::kAxis;
  Name axis;
  int64_t number = 0;
  std::vector<Block> blocks;
  std::optional<Expr> pad;  // `pad(N)`: in the files rounded up to a multiple of N
  std::optional<Cut> cut;
  Span atom;  // without the marks
  Span span;  // with them
};

// Where the dims that are not written stand.
enum class Ellipsis : uint8_t { kNone, kFirst, kLast };

struct Shape {
  std::vector<Dim> dims;  // empty and no ellipsis: a scalar
  Ellipsis ellipsis = Ellipsis::kNone;
  Span ellipsis_span;
  Span span;  // with the brackets
};

}  // namespace uckpt::ucl
