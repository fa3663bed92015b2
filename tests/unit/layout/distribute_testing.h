// Whole tensors in memory, cut for the ranks of a target; shards are read element by element.
#pragma once

#include <doctest/doctest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/layout/distribute.h"
#include "tests/unit/layout/assemble_testing.h"

namespace uckpt::layout::testing {

// Its elements are their own numbers.
inline Array numbered(const Shape& shape) {
  Array a{shape, {}};
  for (int64_t i = 0; i < numel_of(shape); ++i) a.values.push_back(static_cast<float>(i));
  return a;
}

class Target {
 public:
  void put(const std::string& name, const Array& a, const std::string& state = "fp32",
           DType dtype = DType::kF32) {
    const uint32_t mark = catalog.piece_mark();
    const auto* bytes = reinterpret_cast<const uint8_t*>(a.values.data());
    if (!a.values.empty())
      catalog.add_literal({bytes, a.values.size() * 4}, static_cast<int64_t>(a.values.size()));
    // As if read from a file: values at hand are taken for step counts.
    for (uint32_t i = mark; i < catalog.piece_mark(); ++i) catalog.pieces[i].file = 0;
    Tensor t;
    t.name = name;
    t.state = state;
    t.dtype = dtype;
    t.shape = a.shape;
    t.pieces = catalog.pieces_since(mark);
    catalog.tensors.push_back(std::move(t));
  }
  void put_numbered(const std::string& name, const Shape& shape, const std::string& state = "fp32") {
    put(name, numbered(shape), state);
  }
  void put_alias(const std::string& name, uint32_t of, const std::string& state = "fp32") {
    Tensor t = catalog.tensors[of];
    t.name = name;
    t.state = state;
    t.pieces = {};
    t.alias = of;
    catalog.tensors.push_back(std::move(t));
  }

  // Cuts all by the layout `l`; the messages, or "".
  std::string cut(const std::string& text, const Settings& settings,
                  std::optional<std::vector<Coordinate>> ranks = std::nullopt) {
    NoImports none;
    ucl::Diagnostics static_checks, diagnostics;
    const ucl::Spec spec = ucl::read_spec(ucl::Source("spec.ucl", text), none, static_checks);
    ucl::check(spec, static_checks);
    if (static_checks.has_errors()) return static_checks.text();
    std::vector<uint32_t> all;
    for (uint32_t i = 0; i < catalog.tensors.size(); ++i) all.push_back(i);
    const std::vector<Coordinate> at = ranks ? *ranks : grid_of(settings.mesh);
    Distributed made = distribute(catalog, all, spec, spec.layout("l"), settings, at, diagnostics);
    shards = std::move(made.shards);
    trusted = std::move(made.trusted);
    if (!diagnostics.has_errors()) check_primaries();
    return diagnostics.text();
  }

  const Shard* find(const Coordinate& at, const std::string& name, const std::string& state = "fp32") const {
    for (const RankShards& rank : shards.ranks) {
      if (rank.at != at) continue;
      for (const Shard& s : rank.shards)
        if (s.name == name && catalog.tensors[s.tensor].state == state) return &s;
    }
    return nullptr;
  }
  const Shard& shard(const Coordinate& at, const std::string& name, const std::string& state = "fp32") const {
    const Shard* found = find(at, name, state);
    REQUIRE_MESSAGE(found, name);
    return *found;
  }
  std::vector<std::string> names(const Coordinate& at) const {
    std::vector<std::string> out;
    for (const RankShards& rank : shards.ranks)
      if (rank.at == at)
        for (const Shard& s : rank.shards) out.push_back(s.name);
    return out;
  }

  // The element of the whole at each place of a shard, or -1 for padding.
  std::vector<int64_t> elements(const Shard& s) const {
    std::vector<int64_t> out(static_cast<size_t>(numel_of(s.shape)), -1);
    bool fits = true;
    for (const ShardBox& box : shards.boxes_of(s)) {
      each_element(box, [&](int64_t whole, int64_t place) {
        const bool inside = place >= 0 && place < static_cast<int64_t>(out.size());
        fits &= inside && out[static_cast<size_t>(place)] == -1;
        if (inside) out[static_cast<size_t>(place)] = whole;
      });
    }
    CHECK(fits);
    const bool is_padded = std::find(out.begin(), out.end(), -1) != out.end();
    CHECK(s.is_padded == is_padded);
    return out;
  }
  std::vector<int64_t> elements(const Coordinate& at, const std::string& name) const {
    return elements(shard(at, name));
  }
  // What the rank's file has.
  Array array(const Shard& s) const {
    const Piece& p = catalog.pieces_of(catalog.tensors[s.tensor].pieces)[0];
    Array out{s.shape, {}};
    for (const int64_t e : elements(s)) {
      float value = 0;
      if (e >= 0) std::memcpy(&value, catalog.literals.data() + p.offset + e * 4, 4);
      out.values.push_back(e < 0 ? 0 : static_cast<float>(static_cast<double>(value) * s.factor + s.summand));
    }
    return out;
  }

  Catalog catalog;
  Shards shards;
  std::vector<std::string> trusted;

 private:
  template <class See>
  void each_element(const ShardBox& box, const See& see) const {
    std::vector<std::pair<int64_t, int64_t>> at = {{0, box.offset}};
    for (const Axis& a : shards.axes_of(box)) {
      std::vector<std::pair<int64_t, int64_t>> next;
      for (const auto& [whole, place] : at)
        for (int64_t i = 0; i < a.extent; ++i)
          next.emplace_back(whole * a.size + a.start + i, place + i * a.stride);
      at = std::move(next);
    }
    for (const auto& [whole, place] : at) see(whole, place);
  }

  // Of each element of each tensor that lies somewhere, exactly one rank's is primary.
  void check_primaries() const {
    std::map<uint32_t, std::vector<int>> counts;
    std::map<uint32_t, int> firsts;
    for (const RankShards& rank : shards.ranks) {
      for (const Shard& s : rank.shards) {
        std::vector<int>& count = counts[s.tensor];
        count.resize(static_cast<size_t>(numel_of(catalog.tensors[s.tensor].shape)));
        bool any = false;
        for (const ShardBox& box : shards.boxes_of(s)) {
          if (!box.is_primary) continue;
          any = true;
          each_element(box, [&](int64_t whole, int64_t) { ++count[static_cast<size_t>(whole)]; });
        }
        firsts[s.tensor] += s.is_primary;
        if (s.shape == Shape{} || numel_of(s.shape) > 0) CHECK(s.is_primary == any);
      }
    }
    for (const auto& [index, count] : counts) {
      const auto tensor = index;
      CAPTURE(catalog.tensors[tensor].name);
      CHECK(std::all_of(count.begin(), count.end(), [](int n) { return n == 1; }));
      CHECK(firsts[tensor] >= 1);
    }
  }
};

}  // namespace uckpt::layout::testing
