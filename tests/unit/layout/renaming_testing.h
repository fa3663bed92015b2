// Whole tensors in memory, renamed by the maps of a program.
#pragma once

#include <random>

#include "lib/layout/renaming.h"
#include "tests/unit/layout/assemble_testing.h"

namespace uckpt::layout::testing {

using Index = std::vector<int64_t>;

// The array with the value of `element` at each index.
template <class Element>
Array filled(const Shape& shape, const Element& element) {
  Array out{shape, {}};
  const int64_t count = numel_of(shape);
  for (int64_t flat = 0; flat < count; ++flat) {
    Index index(shape.size());
    int64_t rest = flat;
    for (size_t d = shape.size(); d-- > 0;) {
      index[d] = rest % shape[d];
      rest /= shape[d];
    }
    out.values.push_back(element(index));
  }
  return out;
}

inline float element(const Array& a, const Index& index) {
  int64_t flat = 0;
  for (size_t d = 0; d < index.size(); ++d) flat = flat * a.shape[d] + index[d];
  return a.values[static_cast<size_t>(flat)];
}

class Whole : public World {
 public:
  Tensor& add(const std::string& name, const Array& a, const std::string& state = "fp32") {
    put({}, name, a, state);
    catalog.tensors.push_back(std::move(catalog.ranks.front().tensors.back()));
    catalog.ranks.clear();
    return catalog.tensors.back();
  }

  // The tensor in flat pieces, as data parallel ranks hold them.
  Tensor& add_sharded(const std::string& name, const Array& a, std::vector<int64_t> cuts) {
    Tensor& t = add(name, a);
    const int64_t at = catalog.pieces[t.pieces.first].offset, numel = numel_of(a.shape);
    const uint32_t mark = catalog.piece_mark();
    cuts.push_back(numel);
    int64_t begin = 0;
    for (const int64_t end : cuts) {
      if (end > begin) catalog.add_flat(kLiteral, kNoRecord, at + begin * 4, numel, begin, end - begin);
      begin = std::max(begin, end);
    }
    t.pieces = catalog.pieces_since(mark);
    return t;
  }

  // The messages, or "".
  std::string rename(const std::string& text, const std::string& from, const std::string& to,
                     const Settings& settings = {}) {
    NoImports none;
    ucl::Diagnostics diagnostics;
    const ucl::Spec spec = ucl::read_spec(ucl::Source("spec.ucl", text), none, diagnostics);
    ucl::check(spec, diagnostics);
    if (!diagnostics.has_errors()) trusted = layout::rename(catalog, spec, from, to, settings, diagnostics);
    return diagnostics.text();
  }

  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const Tensor& t : catalog.tensors) out.push_back(t.path());
    return out;
  }
};

inline Settings with(const std::map<std::string, int64_t, std::less<>>& set) { return {set, {}, {}, {}}; }

}  // namespace uckpt::layout::testing
