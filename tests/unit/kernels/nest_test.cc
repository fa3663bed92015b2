#include "lib/kernels/nest.h"

#include <doctest/doctest.h>

#include <initializer_list>

using namespace uckpt::kernels;

namespace {

// Nothing here needs a machine: the compiler reckons it.
constexpr Nest nest_of(std::initializer_list<CopyLoop> loops, int64_t item) {
  return make_nest(loops.begin(), static_cast<int>(loops.size()), item);
}

constexpr Nest kDense = nest_of({{3, 80, 80}, {4, 20, 20}, {5, 4, 4}}, 4);
static_assert(kDense.loops == 0 && kDense.item == 240);

// The rows of a shard: runs on both sides become one item, a loop of one step is none.
constexpr Nest kRows = nest_of({{7, 400, 100}, {1, 9, 9}, {25, 4, 4}}, 4);
static_assert(kRows.loops == 1 && kRows.item == 100 && kRows.loop[0].count == 7);

// In the order of the source, as the executor gives it; it comes back in that of the destination.
constexpr Nest kTurned = nest_of({{6, 20, 4}, {5, 4, 24}}, 4);
static_assert(kTurned.loops == 2 && kTurned.loop[0].count == 5 && kTurned.loop[1].count == 6);
static_assert(innermost_of_source(kTurned) == 0);
static_assert(without(kTurned, 0).loops == 1 && without(kTurned, 0).loop[0].count == 6);

// Two loops that go on in the destination, but not in the source.
constexpr Nest kApart = nest_of({{2, 100, 24}, {3, 8, 8}}, 4);
static_assert(kApart.loops == 2 && kApart.item == 4);
constexpr Nest kOne = nest_of({{2, 24, 30}, {3, 8, 10}}, 4);
static_assert(kOne.loops == 1 && kOne.loop[0].count == 6);

static_assert(nest_of({{0, 4, 4}, {3, 8, 8}}, 4).is_empty());
static_assert(nest_of({{3, 8, 8}}, 0).is_empty());
static_assert(innermost_of_source(nest_of({{3, 0, 4}}, 4)) == -1);

}  // namespace

TEST_CASE("the offsets of a nest are those of its loops") {
  const Nest nest = nest_of({{3, 1000, 60}, {4, 7, 15}, {5, 100, 3}}, 2);
  REQUIRE(nest.loops == 3);
  REQUIRE(items_of(nest) == 60);
  int64_t index = 0;
  for (int64_t a = 0; a < 3; ++a)
    for (int64_t b = 0; b < 4; ++b)
      for (int64_t c = 0; c < 5; ++c, ++index) {
        CHECK(offset_of(nest, index).src == 1000 * a + 7 * b + 100 * c);
        CHECK(offset_of(nest, index).dst == 60 * a + 15 * b + 3 * c);
      }
  CHECK(offset_of(Nest{}, 0).src == 0);
}
