// Specs from text, solvers for one rule of them, and the naive reference: lists of elements, one by one.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "lib/layout/shape_solver.h"
#include "lib/ucl/check.h"
#include "lib/ucl/spec.h"

namespace uckpt::layout::testing {

// A place of the mesh.
inline Coordinate tp(int64_t place) { return {{"tp", place}}; }

class NoImports : public ucl::Importer {
 public:
  std::optional<std::string> shipped(std::string_view) override { return std::nullopt; }
  std::optional<std::string> beside(std::string_view) override { return std::nullopt; }
};

// A program of one layout `l`, and its facts.
class Program {
 public:
  Program(const std::string& text, Settings settings) : settings_(std::move(settings)) {
    NoImports none;
    spec_.emplace(ucl::read_spec(ucl::Source("test.ucl", text), none, diagnostics));
    INFO(text);
    INFO(diagnostics.text());
    REQUIRE(diagnostics.empty());
    layout_ = spec_->layout("l");
    REQUIRE(bool(layout_));
    facts.emplace(*spec_, std::vector{layout_}, settings_, diagnostics);
  }
  Scope scope() const { return {layout_.file, layout_.layout}; }
  const ucl::Rule& rule(size_t i = 0) const {
    for (const auto& item : layout_.layout->items)
      if (const auto* rule = std::get_if<ucl::Rule>(&item); rule && i-- == 0) return *rule;
    throw std::out_of_range("no such rule");
  }
  const ucl::Spec& spec() const { return *spec_; }

  ucl::Diagnostics diagnostics;
  std::optional<Facts> facts;

 private:
  Settings settings_;
  std::optional<ucl::Spec> spec_;
  ucl::LayoutRef layout_;
};

// Where each local place of a view comes from: an element of the whole, or -1 for padding.
inline std::vector<int64_t> expand(const View& view) {
  std::vector<int64_t> out(static_cast<size_t>(view.local), -1);
  for (const Strand& s : view.strands) {
    std::vector<std::pair<int64_t, int64_t>> at = {{s.logical, s.local}};
    for (const Step& step : s.steps) {
      std::vector<std::pair<int64_t, int64_t>> next;
      for (const auto& [logical, local] : at)
        for (int64_t i = 0; i < step.count; ++i)
          next.emplace_back(logical + i * step.logical, local + i * step.local);
      at = std::move(next);
    }
    for (const auto& [logical, local] : at) {
      REQUIRE(local >= 0);
      REQUIRE(local < view.local);
      REQUIRE(out[static_cast<size_t>(local)] == -1);
      out[static_cast<size_t>(local)] = logical;
    }
  }
  return out;
}

}  // namespace uckpt::layout::testing
