// Small checkpoints made of fragments in memory, and what they become.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "lib/layout/assemble.h"
#include "lib/layout/fragments.h"
#include "lib/layout/rule_book.h"
#include "tests/unit/layout/layout_testing.h"

namespace uckpt::layout::testing {

using Values = std::vector<float>;

// A tensor in memory, row-major.
struct Array {
  Shape shape;
  Values values;
  float& at(int64_t row, int64_t column) { return values[static_cast<size_t>(row * shape[1] + column)]; }
};

// Different values for each name and element.
inline Array made_up(const std::string& name, Shape shape) {
  Array a{shape, Values(static_cast<size_t>(numel_of(shape)))};
  const auto base = static_cast<float>(std::hash<std::string>()(name) % 1000) * 1000;
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] = base + static_cast<float>(i);
  return a;
}

// The rows (or columns) that `keep` names, in its order; -1 gives zeros.
inline Array rows_of(const Array& a, const std::vector<int64_t>& keep) {
  const int64_t width = numel_of(a.shape) / a.shape[0];
  Array out{a.shape, {}};
  out.shape[0] = static_cast<int64_t>(keep.size());
  for (const int64_t r : keep)
    for (int64_t c = 0; c < width; ++c)
      out.values.push_back(r < 0 ? 0 : a.values[static_cast<size_t>(r * width + c)]);
  return out;
}
inline Array columns_of(const Array& a, int64_t begin, int64_t end) {
  Array out{{a.shape[0], end - begin}, {}};
  for (int64_t r = 0; r < a.shape[0]; ++r)
    for (int64_t c = begin; c < end; ++c)
      out.values.push_back(a.values[static_cast<size_t>(r * a.shape[1] + c)]);
  return out;
}
inline std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> out;
  for (int64_t i = begin; i < end; ++i) out.push_back(i);
  return out;
}

class World {
 public:
  void put(const Coordinate& at, const std::string& name, const Array& a, const std::string& state = "fp32") {
    RankSet* set = nullptr;
    for (RankSet& s : catalog.ranks)
      if (s.at == at) set = &s;
    if (!set) set = &catalog.ranks.emplace_back(RankSet{at, {}});
    const uint32_t mark = catalog.piece_mark();
    const auto* bytes = reinterpret_cast<const uint8_t*>(a.values.data());
    if (!a.values.empty())
      catalog.add_literal({bytes, a.values.size() * 4}, static_cast<int64_t>(a.values.size()));
    Tensor t;
    t.name = name;
    t.state = state;
    t.dtype = DType::kF32;
    t.shape = a.shape;
    t.pieces = catalog.pieces_since(mark);
    set->tensors.push_back(std::move(t));
  }

  // A module weight of 2 bytes an element beside the newest tensor of a rank; its bits are `bits`.
  void put_module(const Coordinate& at, const std::vector<uint16_t>& bits, DType dtype = DType::kBF16) {
    for (RankSet& s : catalog.ranks) {
      if (s.at != at) continue;
      const uint32_t mark = catalog.piece_mark();
      catalog.add_literal({reinterpret_cast<const uint8_t*>(bits.data()), bits.size() * 2},
                          static_cast<int64_t>(bits.size()));
      s.tensors.back().copies.push_back({catalog.pieces_since(mark), dtype, true, "module weight"});
    }
  }

  // Joins by the layout of that name; the messages, or "".
  std::string join(const std::string& text, const std::string& layout, Settings settings) {
    NoImports none;
    ucl::Diagnostics diagnostics;
    const ucl::Spec spec = ucl::read_spec(ucl::Source("spec.ucl", text), none, diagnostics);
    ucl::check(spec, diagnostics);
    if (!diagnostics.has_errors())
      trusted = assemble(catalog, spec, spec.layout(layout), settings, diagnostics).trusted;
    return diagnostics.text();
  }

  void leave_to_rules(const std::string& text, const std::string& layout, const Settings& settings) {
    NoImports none;
    ucl::Diagnostics said;
    const ucl::Spec spec = ucl::read_spec(ucl::Source("spec.ucl", text), none, said);
    const RuleBook book(spec, spec.layout(layout));
    layout::leave_to_rules(catalog, book, Facts(spec, book.layouts(), settings, said));
  }

  const Tensor& tensor(const std::string& name, const std::string& state = "fp32") const {
    for (const Tensor& t : catalog.tensors)
      if (t.name == name && t.state == state) return t;
    throw std::out_of_range(name);
  }

  // The elements that pieces give; those that none gives are NaN, so that they equal nothing.
  Values values(PieceRange pieces, int64_t numel) const {
    Values out(static_cast<size_t>(numel), std::numeric_limits<float>::quiet_NaN());
    for (const Piece& p : catalog.pieces_of(pieces)) {
      std::vector<std::pair<int64_t, int64_t>> at = {{0, 0}};
      for (const Axis& a : catalog.axes_of(p)) {
        std::vector<std::pair<int64_t, int64_t>> next;
        for (const auto& [to, from] : at)
          for (int64_t i = 0; i < a.extent; ++i)
            next.emplace_back(to * a.size + a.start + i, from + i * a.stride);
        at = std::move(next);
      }
      for (const auto& [to, from] : at)
        std::memcpy(&out[static_cast<size_t>(to)], catalog.literals.data() + p.offset + from * 4, 4);
    }
    return out;
  }
  bool holds(const std::string& name, const Array& a, const std::string& state = "fp32") const {
    const Tensor& t = tensor(name, state);
    return t.shape == a.shape && values(t.pieces, numel_of(t.shape)) == a.values;
  }

  Catalog catalog;
  std::vector<std::string> trusted;
};

}  // namespace uckpt::layout::testing
