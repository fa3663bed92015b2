// How copies become boxes: reckoned alone, so that sizes may be those that no test could hold.
#include "lib/kernels/cuda/boxes.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "lib/kernels/cuda/plan.h"

namespace uckpt::kernels::cuda {
namespace {

// At addresses that nobody reads.
constexpr uint64_t kSrc = uint64_t{1} << 40, kDst = uint64_t{1} << 44;
uint8_t* at(uint64_t address) { return reinterpret_cast<uint8_t*>(address); }

std::vector<Box> boxes_of(const std::vector<CopyLoop>& loops, int64_t item, uint64_t src = kSrc,
                          uint64_t dst = kDst) {
  std::vector<Box> out;
  BoxPlan([&](const Box& box) { out.push_back(box); }).copy(at(dst), at(src), loops, item);
  return out;
}
Way way_of(const std::vector<CopyLoop>& loops, int64_t item) {
  const std::vector<Box> boxes = boxes_of(loops, item);
  REQUIRE(boxes.size() == 1);
  return boxes[0].way;
}

int64_t bytes_of(const Box& box) {
  int64_t n = 1;
  for (int s = 0; s < box.steps; ++s) n *= box.step[s].count;
  return box.way == Way::kRuns ? n * box.run : n * box.item * box.pack;
}

TEST_CASE("boxes: division by a multiplication is exact") {
  std::mt19937 random(1);
  constexpr uint32_t kLast = (uint32_t{1} << 31) - 1;
  const auto check = [](uint32_t n, uint32_t d) { return quotient(n, divider_of(d)) == n / d; };
  int64_t wrong = 0;
  for (uint32_t d = 1; d < 300; ++d)
    for (uint32_t n = 0; n < 300; ++n) wrong += !check(n, d) + !check(kLast - n, d);
  for (int i = 0; i < 200'000; ++i) {
    const uint32_t d = 1 + static_cast<uint32_t>(random() >> (1 + random() % 31)) % kLast;
    const uint32_t whole = kLast / d * d;
    wrong += !check(static_cast<uint32_t>(random() >> 1), d) + !check(whole, d) + !check(whole - 1, d) +
             !check(kLast, d);
  }
  for (uint32_t bit = 0; bit < 31; ++bit)
    for (const uint32_t d : {1u << bit, (1u << bit) + 1, kLast >> bit})
      for (const uint32_t n : {0u, 1u, kLast, kLast - 1, d <= kLast ? d : kLast, d - 1})
        wrong += d > 0 && !check(n, d);
  CHECK(wrong == 0);
}

TEST_CASE("boxes: each shape goes its way") {
  CHECK(way_of({}, 1000) == Way::kRuns);
  CHECK(way_of({{100, 300, 256}}, 256) == Way::kRuns);
  CHECK(way_of({{100, 16, 32}}, 16) == Way::kRuns);
  CHECK(way_of({{100, 33, 40}}, 33) == Way::kRuns);
  CHECK(way_of({{100, 12, 16}}, 12) == Way::kItems);
  CHECK(way_of({{100, 8, 4}}, 4) == Way::kItems);
  for (const int64_t item : {1, 2, 4, 8, 16})
    CHECK(way_of({{100, 70 * item, item}, {70, item, 100 * item}}, item) == Way::kTiles);
  CHECK(way_of({{100, 140, 2}, {2, 2, 200}}, 2) == Way::kItems);  // two ways
  // The narrow one of two turned loops runs fastest, on either side.
  for (const Box& box :
       {boxes_of({{1000, 6, 2}, {3, 2, 2000}}, 2)[0], boxes_of({{3, 2000, 2}, {1000, 2, 6}}, 2)[0]})
    CHECK(box.step[box.steps - 1].count == 3);
  // Two bytes at a time, four in a store.
  CHECK(boxes_of({{100, 10, 2}}, 2)[0].pack == 2);
  CHECK(boxes_of({{101, 10, 2}}, 2)[0].pack == 1);
  CHECK(boxes_of({{100, 10, 2}}, 2, kSrc, kDst + 2)[0].pack == 1);
  CHECK(boxes_of({{100, 10, 1}}, 1)[0].pack == 4);
  // By words, where rows begin at them.
  const auto wide = [](int64_t rows, int64_t columns, uint64_t src, uint64_t dst) {
    const Box box = boxes_of({{rows, columns * 2, 2}, {columns, 2, rows * 2}}, 2, src, dst)[0];
    return 2 * box.wide_src + box.wide_dst;
  };
  CHECK(wide(64, 64, kSrc, kDst) == 3);
  CHECK(wide(64, 65, kSrc, kDst) == 1);
  CHECK(wide(65, 64, kSrc, kDst) == 2);
  CHECK(wide(64, 64, kSrc + 2, kDst) == 1);
  CHECK(wide(64, 64, kSrc, kDst + 2) == 2);
}

TEST_CASE("boxes: the width is what all places have") {
  CHECK(boxes_of({{9, 16, 48}}, 16, kSrc + 8)[0].item == 8);
  CHECK(boxes_of({{9, 20, 48}}, 16)[0].item == 4);
  CHECK(boxes_of({{9, 24, 50}}, 24)[0].item == 2);
  CHECK(boxes_of({{9, 17, 24}}, 8)[0].item == 1);
}

TEST_CASE("boxes: what is too large for 32 bits is cut, what is too deep is taken apart") {
  const auto check = [](const std::vector<CopyLoop>& loops, int64_t item) {
    int64_t want = item, found = 0;
    for (const CopyLoop& l : loops) want *= l.count;
    bool small = true;
    for (const Box& box : boxes_of(loops, item)) {
      found += bytes_of(box);
      small &= box.total > 0 && box.total <= kMostParts && box.steps <= kBoxSteps;
    }
    CHECK(found == want);
    CHECK(small);
  };
  check({}, int64_t{1} << 36);
  check({}, (int64_t{1} << 35) + 12'345);
  check({{3, int64_t{1} << 36, int64_t{1} << 37}}, (int64_t{1} << 35) + 5);
  check({{int64_t{1} << 33, 2, 1}}, 1);
  check({{int64_t{1} << 17, int64_t{1} << 19, 4}, {int64_t{1} << 17, 4, int64_t{1} << 19}}, 4);
  check({{1'000'003, int64_t{70'001} * 2, 2}, {70'001, 2, int64_t{1'000'003} * 2}}, 2);
  check({{int64_t{3} << 31, 48, 64}}, 40);
  check({{2, 640, 6400}, {2, 320, 1600}, {2, 160, 400}, {2, 80, 100}, {2, 40, 25}, {2, 20, 6}, {2, 10, 2}},
        1);
  check({{2, 1 << 20, 1 << 16},
         {2, 1 << 19, 1 << 18},
         {2, 1 << 18, 1 << 20},
         {2, 1 << 17, 1 << 17},
         {40, 4, 400},
         {50, 800, 4}},
        4);
}

TEST_CASE("boxes: no two cells that a warp's threads take from a tile at once meet in a bank") {
  const auto check = [](auto shape) {
    using Shape = decltype(shape);
    constexpr int kAtOnce = 128 / Shape::kCell;  // threads that are served together
    const auto banks = [](auto place_of) {
      uint64_t seen = 0;
      for (int t = 0; t < kAtOnce; ++t) seen |= uint64_t{1} << place_of(t) % kAtOnce;
      return seen == (kAtOnce == 64 ? ~uint64_t{0} : (uint64_t{1} << kAtOnce) - 1);
    };
    bool free = true;
    for (int first = 0; first < Shape::kCells; first += kAtOnce)
      free &= banks([&](int t) { return Shape::place(5, first + t); });
    for (int first = 0; first < Shape::kSide / Shape::kPack; first += kAtOnce)
      free &= banks([&](int t) { return Shape::place((first + t) * Shape::kPack, 3); });
    CHECK(free);
  };
  check(TileShape<1>());
  check(TileShape<2>());
  check(TileShape<4>());
  check(TileShape<8>());
  check(TileShape<16>());
}

}  // namespace
}  // namespace uckpt::kernels::cuda
