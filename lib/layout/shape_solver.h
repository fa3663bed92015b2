// One shape expression over the fragments of one tensor: its sizes, and what each rank holds.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/layout/view.h"
#include "lib/tensor/catalog.h"
#include "lib/ucl/tree.h"

namespace uckpt::layout {

// What one rank has of the tensor.
struct LocalShape {
  Coordinate at;
  Shape shape;
};

// Solves the sizes of one shape expression from the fragments' shapes (ucl.md, section 4).
class ShapeSolver {
 public:
  // All must outlive the solver. The fragments are of one tensor; there is at least one.
  ShapeSolver(Facts& facts, Scope scope, const ucl::Shape& shape, std::vector<LocalShape> fragments);

  // Takes what follows from the equations, until nothing changes. True if that gave anything.
  bool advance();
  // Every axis whose size is known and whose shares are not: even shares. False if there was none.
  bool assume_even();
  bool solved() const;
  // Says what stays unknown, or does not agree. True if all is well.
  bool check(ucl::Diagnostics& diagnostics) const;

  // Once solved and checked:
  Shape logical() const;
  View view(const Coordinate& at) const;
  // The shape that a rank holds; what a fragment of it must have.
  Shape local(const Coordinate& at) const;
  std::string sizes_text() const;  // "o = 24, i = 12"

 private:
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
  View view_of(const ucl::Factor& factor, const Coordinate& at) const;
  View view_of(const ucl::Dim& dim, const Coordinate& at) const;
  std::string share_key(const ucl::Factor& factor, size_t cut, const Coordinate& at) const;
  bool equate(const Linear& a, const Linear& b);
  template <class See>
  void each_cut(const See& see) const;  // every factor with a cut
  bool check_cuts(ucl::Diagnostics& diagnostics) const;
  bool check_shares(ucl::Diagnostics& diagnostics) const;
  bool check_unknown(ucl::Diagnostics& diagnostics) const;
  std::string fraction_of(const DimRef& ref) const;

  Facts& facts_;
  const Scope scope_;
  const ucl::Shape& shape_;
  std::vector<LocalShape> fragments_;
  std::vector<DimRef> dims_;
  bool fits_rank_ = true;
  mutable std::vector<Local> locals_;
  mutable std::map<std::string, Unknown, std::less<>> keys_;
};

}  // namespace uckpt::layout
