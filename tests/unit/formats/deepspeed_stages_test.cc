// How a pipeline's layers are dealt to stages.
#include <doctest/doctest.h>

#include <vector>

#include "lib/formats/deepspeed/write/stages.h"

using uckpt::deepspeed::balanced_parts;

// What DeepSpeed 0.19.8's own partition_balanced says of them.
TEST_CASE("layers are balanced as DeepSpeed balances them, to the last tie") {
  struct Case {
    std::vector<int64_t> weights;
    int64_t parts;
    std::vector<int64_t> begins;
  };
  const std::vector<Case> cases = {
      {{5}, 1, {0, 1}},
      {{1, 1}, 3, {0, 1, 2, 2}},
      {{10, 1, 1, 10}, 2, {0, 2, 4}},
      {{7, 7, 7, 7}, 3, {0, 2, 3, 4}},
      {{0, 0, 0, 0}, 2, {0, 3, 4}},
      {{8, 0, 100, 3, 0, 2, 1, 8, 100, 3, 13, 1}, 4, {0, 3, 8, 10, 12}},
      {{0, 3, 13, 5, 2, 13, 2, 1, 2, 100, 2, 2}, 3, {0, 4, 9, 12}},
      {{3, 3, 2}, 2, {0, 1, 3}},
      {{8, 3, 3, 2, 3}, 4, {0, 1, 2, 4, 5}},
      {{0, 8, 13, 2, 2, 5, 1, 8, 5}, 4, {0, 2, 3, 7, 9}},
      {{0, 8, 1, 5, 8, 5, 100, 8, 2, 100, 100, 2}, 6, {0, 4, 6, 7, 9, 10, 12}},
      {{0, 8, 13}, 3, {0, 1, 2, 3}},
      {{8, 13, 0}, 3, {0, 1, 2, 3}},
      {{2, 3, 1, 3, 100, 8, 8, 5, 100, 1}, 2, {0, 6, 10}},
      {{5, 0, 13, 1, 3, 8, 8, 2, 8, 5, 1, 5}, 4, {0, 3, 6, 9, 12}},
      {{5, 2, 1, 2, 5, 100, 2, 0, 1, 13, 0, 3, 8}, 4, {0, 5, 6, 11, 13}},
      {{13, 2, 0, 0, 100, 8, 3}, 5, {0, 1, 4, 5, 6, 7}},
  };
  for (const Case& c : cases) {
    CAPTURE(c.weights.size());
    CAPTURE(c.parts);
    CHECK(balanced_parts(c.weights, c.parts) == c.begins);
  }
}
