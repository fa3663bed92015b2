// The terms of a side of a map: what is left of its tensors when one block of every concatenation is chosen.
//
// A side is the sum of its terms. Two sides correspond when they have the same terms, each by its set of
// labels and its set of axes; that is the whole proof that the rule is a bijection.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/ucl/tree.h"

namespace uckpt::ucl {

struct TermAxis {
  std::string name;                  // `...` for the dims that are not written
  Span span;                         // in the shape, or the capture in the name
  const Capture* capture = nullptr;  // where it stands in the name
};

struct Term {
  std::vector<std::string> labels;  // sorted
  std::vector<TermAxis> axes;       // sorted by name, each once
  size_t part = 0;                  // index into the side's parts
  Span span;                        // the innermost block chosen, or the part's name

  std::string labels_text() const;  // "q", or "q k"; empty without labels
  std::string axes_text() const;    // "{d g h i}"
  const TermAxis* axis(std::string_view name) const;
};

inline constexpr size_t kMaxTerms = 256;        // of one side
inline constexpr size_t kMaxTermAxes = 20'000;  // of all of them together

// Nothing if there are more than that. Numbers, which a map cannot move, are left out.
std::optional<std::vector<Term>> terms_of(const Side& side);

}  // namespace uckpt::ucl
