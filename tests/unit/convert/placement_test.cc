#include "lib/convert/placement.h"

#include <doctest/doctest.h>

using namespace uckpt;

namespace {

struct Box {
  Shape start, extent;
};

void add(Catalog& catalog, const std::string& name, const Shape& shape, const std::vector<Box>& boxes) {
  Tensor& t = catalog.tensors.emplace_back();
  t.name = name;
  t.state = state::kParam;
  t.shape = shape;
  t.layout = "cut";
  const uint32_t mark = catalog.piece_mark();
  for (const Box& b : boxes) {
    std::vector<Axis> axes;
    for (size_t d = 0; d < shape.size(); ++d) axes.push_back({shape[d], b.start[d], b.extent[d], 1});
    catalog.add_piece(0, kNoRecord, 0, axes);
  }
  t.pieces = catalog.pieces_since(mark);
}

bool says(const std::string& text, std::string_view line) { return text.find(line) != std::string::npos; }

}  // namespace

TEST_CASE("placement: rows over one axis, by torch.chunk's rule or spelt out") {
  Catalog c;
  add(c, "even", {4, 2}, {{{0, 0}, {2, 2}}, {{2, 0}, {2, 2}}});
  add(c, "short", {3}, {{{0}, {2}}, {{2}, {1}}});
  add(c, "own", {8}, {{{0}, {7}}, {{7}, {1}}});
  add(c, "columns", {2, 4}, {{{0, 0}, {2, 2}}, {{0, 2}, {2, 2}}});
  add(c, "whole", {3}, {{{0}, {3}}});
  const std::string text = placement_rules(c);
  CHECK(says(text, "layout saved over dp {"));
  CHECK(says(text, "\"even\" [d0@dp, ...]"));
  CHECK(says(text, "\"short\" [d0@dp[chunk]]"));
  CHECK(says(text, "\"own\" [d0@dp[7,1]]"));
  CHECK(says(text, "\"columns\" [d0, d1@dp]"));
  CHECK(says(text, "\"whole\" replicate"));
}

TEST_CASE("placement: two axes, and what fits none") {
  Catalog c;
  add(c, "both", {2, 2}, {{{0, 0}, {1, 1}}, {{0, 1}, {1, 1}}, {{1, 0}, {1, 1}}, {{1, 1}, {1, 1}}});
  add(c, "twice", {4}, {{{0}, {1}}, {{1}, {1}}, {{2}, {1}}, {{3}, {1}}});
  add(c, "uneven", {17}, {{{0}, {5}}, {{5}, {4}}, {{9}, {4}}, {{13}, {4}}});
  add(c, "other", {17}, {{{0}, {4}}, {{4}, {5}}, {{9}, {4}}, {{13}, {4}}});
  add(c, "odd", {5}, {{{0}, {1}}, {{1}, {1}}, {{2}, {3}}});
  add(c, "none", {2, 2}, {{{0, 0}, {1, 2}}, {{1, 0}, {1, 1}}, {{1, 1}, {1, 1}}});
  const std::string text = placement_rules(c);
  CHECK(says(text, "layout saved over dp, tp {"));
  CHECK(says(text, "\"both\" [d0@dp, d1@tp]"));
  CHECK(says(text, "\"twice\" [d0@(tp, dp)]"));
  CHECK(says(text, "\"uneven\" [d0@(tp[chunk], dp[chunk])]"));
  CHECK(says(text, "\"other\" ?"));
  CHECK(says(text, "\"odd\" ?"));
  CHECK(says(text, "\"none\" ?"));
}

TEST_CASE("placement: nothing is said of flat ranges, or where nothing is cut") {
  Catalog flat;
  add(flat, "a", {4, 2}, {});
  const uint32_t mark = flat.piece_mark();
  flat.add_flat(0, kNoRecord, 0, 8, 0, 4);
  flat.add_flat(0, kNoRecord, 16, 8, 4, 4);
  flat.tensors[0].pieces = flat.pieces_since(mark);
  CHECK(placement_rules(flat).empty());
  Catalog whole;
  add(whole, "a", {4}, {{{0}, {4}}});
  CHECK(placement_rules(whole).empty());
}
