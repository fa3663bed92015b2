// One shape expression over one tensor: its sizes, and what each rank holds.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/layout/view.h"
#include "lib/tensor/catalog.h"
#include "lib/ucl/tree.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

// What one rank has of the tensor.
struct LocalShape {
  Coordinate at;
  Shape shape;
};

// Solves the sizes of one shape expression: of a source from the shapes of fragments, of a target from that
// of the whole (ucl.md, section 4).
class ShapeSolver {
 public:
  // All must outlive the solver. The fragments are of one tensor; there is at least one.
  ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape, std::vector<LocalShape> fragments);
  // For a target: a plain `@tp` cuts evenly. Of ranks that stand alike on the axes that the expression cuts,
  // one will do; there is at least one.
  ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape, const Shape& whole,
              const std::vector<Coordinate>& ranks);

  // Takes what follows from the equations, until nothing changes. True if that gave anything.
  bool advance();
  // Every axis whose size is known and whose shares are not: even shares. False if there was none.
  bool assume_even();
  bool solved() const;
  // Says what stays unknown, or does not agree, of the tensor of this name; empty: the place says enough.
  // True if all is well.
  bool check(ucl::Diagnostics& diagnostics, std::string_view name = {}) const;

  // Once solved and checked:
  Shape logical() const;
  View view(const Coordinate& at) const;
  // The shape that a rank holds; what a fragment of it must have.
  Shape local(const Coordinate& at) const;
  // The logical shape and all padding: what one rank would hold if nothing were cut.
  Shape full() const;
  std::string sizes_text() const;  // "o = 24, i = 12"

 private:
  ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape, std::vector<LocalShape> fragments,
              bool is_whole);
  static constexpr Unknown kLocalBit = 0x80000000;  // unknowns of this tensor, beside those of the program
  struct Local {
    std::string shown;  // the axis, or "" for a share
    std::optional<int64_t> value;
  };
  // A dim of the expression, or one of those that `...` stands for.
  struct DimRef {
    const ucl::Dim* dim;
    Unknown free;  // its size, where `dim` is null
  };

  Unknown own(std::string key, std::string shown) const;
  Linear get(Unknown unknown) const;
  bool set(Unknown unknown, const Fraction& value);
  Linear axis(std::string_view name) const;
  Linear size_of(const ucl::Factor& factor) const;      // logical
  Linear padded_size(const ucl::Factor& factor) const;  // of an axis or number, in the files
  Linear base_of(const ucl::Factor& factor, const Coordinate& at) const;  // what the marks cut
  Linear share_of(const ucl::Factor& factor, size_t cut, const Coordinate& at) const;
  Linear local_of(const ucl::Factor& factor, const Coordinate& at) const;
  Linear local_of(const ucl::Dim& dim, const Coordinate& at) const;
  Linear local_of(const DimRef& ref, const Coordinate& at) const;
  Linear logical_of(const ucl::Dim& dim) const;
  Linear logical_of(const DimRef& ref) const;
  Linear known_of(const DimRef& ref, const Coordinate& at) const;  // what the shapes that were given tell
  int64_t full_of(const ucl::Factor& factor) const;
  int64_t full_of(const ucl::Dim& dim) const;
  Linear rounded_up(const ucl::Factor& factor, const Linear& size) const;  // by its `pad`
  bool knows(const DimRef& ref, const Coordinate& at) const;
  bool is_even(const ucl::CutAxis& axis) const;
  View view_of(const ucl::Factor& factor, const Coordinate& at) const;
  View view_of(const ucl::Dim& dim, const Coordinate& at) const;
  std::string share_key(const ucl::Factor& factor, size_t cut, const Coordinate& at) const;
  bool equate(const Linear& a, const Linear& b);
  template <class See>
  void each_cut(const See& see) const {  // every factor with a cut
    ucl::each_factor(shape_, [&](const ucl::Factor& f) {
      if (f.cut) see(f);
    });
  }
  // Messages about one tensor.
  struct Said {
    ucl::Diagnostics& diagnostics;
    const Scope& scope;
    std::string_view name;
    ucl::Diagnostic& error(ucl::Span span, std::string code, std::string message) const;
  };
  bool check_cuts(const Said& said) const;
  bool check_sizes(const Said& said) const;
  bool check_shares(const Said& said) const;
  bool check_unknown(const Said& said) const;
  std::string fraction_of(const DimRef& ref) const;
  std::string seen_text() const;  // "fragments of shape [2, 4], [3, 4]"
  std::string found_text(const LocalShape& fragment, size_t dim) const;  // "rank tp 0 holds 3 here"

  Facts& facts_;
  const Scope scope_;
  const ucl::Shape& shape_;
  const bool is_whole_;  // then each of the fragments has the shape of the whole
  std::vector<LocalShape> fragments_;
  std::vector<DimRef> dims_;
  bool fits_rank_ = true;
  mutable std::vector<Local> locals_;
  mutable std::map<std::string, Unknown, std::less<>> keys_;
};

// Takes what follows from all equations at once: sizes that solvers share go from one to the others. Where
// shapes leave the shares of a cut open, they are even.
void solve_together(Facts& facts, std::span<ShapeSolver* const> solvers);

}  // namespace uckpt::layout
