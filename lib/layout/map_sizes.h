// The sizes of all axes of one match of a map's rule, from the shapes of its whole tensors.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/tensor/catalog.h"
#include "lib/ucl/tree.h"

namespace uckpt::layout {

class MapSizes {
 public:
  // One part of the source side, and the tensors that it took: all have this shape.
  struct Source {
    const ucl::Part* part;
    std::string name;  // of the first one, for messages
    Shape shape;
  };
  // `counts`: captures of the source's names that are axes on the other side, and how many values each has.
  // All must outlive this.
  MapSizes(Facts& facts, Scope scope, std::vector<Source> sources,
           const std::map<std::string, int64_t, std::less<>>& counts);

  // Takes what follows from the equations, until nothing changes. True if that gave anything.
  bool advance();
  bool solved() const;
  // Says what stays unknown, or does not agree. True if all is well.
  bool check(ucl::Diagnostics& diagnostics) const;

  // Once solved and checked: of an axis, a factor, a dim, a part's tensors. Nothing where 64 bits are too
  // few.
  std::optional<int64_t> size(std::string_view axis) const;
  std::optional<int64_t> size(const ucl::Factor& factor) const { return linear(factor).value(); }
  std::optional<int64_t> size(const ucl::Dim& dim) const { return linear(dim).value(); }
  std::optional<Shape> shape(const ucl::Part& part) const;
  // The dims that `...`, or a part without a shape, stands for.
  const Shape& unwritten() const { return unwritten_; }

 private:
  struct Local {
    std::string name;
    std::optional<int64_t> value;
  };

  Linear get(Unknown unknown) const;
  bool set(Unknown unknown, const Fraction& value, const std::string& from);
  Linear axis(std::string_view name) const;
  Linear linear(const ucl::Factor& factor) const;
  Linear linear(const ucl::Dim& dim) const;
  bool equate(const Linear& a, int64_t b, const std::string& from);
  // Calls `see(dim, size, source)` for each written dim until that returns false.
  template <class See>
  bool each_dim(const See& see) const;
  std::string sizes_text(const ucl::Dim& dim) const;
  bool check_dim(const ucl::Dim& dim, int64_t found, const Source& source,
                 ucl::Diagnostics& diagnostics) const;

  Facts& facts_;
  const Scope scope_;
  std::vector<Source> sources_;
  std::map<std::string, int64_t, std::less<>> counts_;
  Shape unwritten_;
  const Source* misfit_ = nullptr;  // its rank does not fit, or its unwritten dims are not those of another
  mutable std::vector<Local> locals_;
  mutable std::map<std::string, Unknown, std::less<>> keys_;
};

}  // namespace uckpt::layout
