#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "lib/kernels/elements.h"
#include "tests/unit/kernels/every_target.h"

using namespace uckpt;
using namespace uckpt::kernels;
using namespace uckpt::kernels::testing;

namespace {

using Buffer = std::vector<uint8_t>;

void naive_copy(uint8_t* dst, const uint8_t* src, std::span<const CopyLoop> loops, size_t item) {
  if (loops.empty()) {
    std::memcpy(dst, src, item);
    return;
  }
  for (int64_t i = 0; i < loops[0].count; ++i)
    naive_copy(dst + i * loops[0].dst_stride, src + i * loops[0].src_stride, loops.subspan(1), item);
}

// The first byte past what the loops reach.
int64_t end_of(const std::vector<CopyLoop>& loops, int64_t CopyLoop::*stride, int64_t item) {
  int64_t end = item;
  for (const CopyLoop& l : loops) end += std::max<int64_t>(0, l.count - 1) * (l.*stride);
  return end;
}

// Neither aligned, nor is a byte between the items touched, nor one behind the source read.
void check_copy(std::vector<CopyLoop> loops, size_t item, std::mt19937& rng) {
  Buffer src(static_cast<size_t>(end_of(loops, &CopyLoop::src_stride, static_cast<int64_t>(item))) + 1);
  Buffer dst(static_cast<size_t>(end_of(loops, &CopyLoop::dst_stride, static_cast<int64_t>(item))) + 2, 0xa5);
  for (uint8_t& b : src) b = static_cast<uint8_t>(rng());
  Buffer want = dst;
  naive_copy(want.data() + 1, src.data() + 1, loops, item);
  std::shuffle(loops.begin(), loops.end(), rng);
  copy_strided(dst.data() + 1, src.data() + 1, loops, item);
  CAPTURE(item);
  CAPTURE(loops.size());
  REQUIRE(std::memcmp(dst.data(), want.data(), dst.size()) == 0);
}

// Strides for the given order of the axes, from the innermost out, with gaps of whole items and of odd bytes.
void lay_out(std::vector<CopyLoop>& loops, const std::vector<size_t>& inner_first, int64_t CopyLoop::*stride,
             int64_t item, std::mt19937& rng, bool gaps) {
  int64_t span = item;
  for (const size_t axis : inner_first) {
    const int64_t gap = gaps && rng() % 3 == 0   ? static_cast<int64_t>(rng() % 4) * item
                        : gaps && rng() % 8 == 0 ? 1
                                                 : 0;
    loops[axis].*stride = span + gap;
    span = loops[axis].*stride * loops[axis].count;
  }
}

void check_permutation(const std::vector<int64_t>& counts, size_t item, std::mt19937& rng, bool gaps) {
  std::vector<CopyLoop> loops;
  for (const int64_t n : counts) loops.push_back({n, 0, 0});
  std::vector<size_t> order(counts.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (int64_t CopyLoop::*stride : {&CopyLoop::src_stride, &CopyLoop::dst_stride}) {
    std::shuffle(order.begin(), order.end(), rng);
    lay_out(loops, order, stride, static_cast<int64_t>(item), rng, gaps);
  }
  check_copy(std::move(loops), item, rng);
}

void check_transpose(int64_t rows, int64_t columns, size_t item, std::mt19937& rng) {
  const auto n = static_cast<int64_t>(item);
  check_copy({{rows, columns * n, n}, {columns, n, rows * n}}, item, rng);
}

}  // namespace

TEST_CASE("transposes of all odd shapes, on every instruction set") {
  std::mt19937 rng(1);
  on_every_target([&] {
    for (const size_t item : {1u, 2u, 4u, 8u}) {
      for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65})
        for (const int64_t columns : {1, 2, 3, 4, 6, 8, 9, 16, 17, 32, 37})
          check_transpose(rows, columns, item, rng);
      // More than a tile each way.
      check_transpose(131, 70, item, rng);
      check_transpose(66, 263, item, rng);
    }
  });
}

TEST_CASE("items of other sizes across each other") {
  std::mt19937 rng(2);
  for (const size_t item :
       {3u, 5u, 6u, 7u, 12u, 16u, 20u, 24u, 32u, 33u, 48u, 63u, 64u, 65u, 100u, 127u, 128u, 200u})
    for (const int64_t rows : {2, 5, 17, 70}) check_transpose(rows, 33, item, rng);
}

TEST_CASE("any permutation of any axes, with gaps on both sides, on every instruction set") {
  std::mt19937 rng(3);
  on_every_target([&] {
    for (const size_t item : {1u, 2u, 3u, 4u, 8u, 16u, 40u}) {
      for (int round = 0; round < 60; ++round) {
        std::vector<int64_t> counts(rng() % 5);
        for (int64_t& n : counts) n = static_cast<int64_t>(1 + rng() % (rng() % 3 == 0 ? 20 : 5));
        check_permutation(counts, item, rng, round % 2 == 1);
      }
    }
  });
}

TEST_CASE("interleaving by two to five, one by one too, on every instruction set") {
  std::mt19937 rng(4);
  on_every_target([&] {
    for (const size_t item : {1u, 2u, 4u, 8u}) {
      const auto n = static_cast<int64_t>(item);
      for (const int64_t ways : {2, 3, 4, 5}) {
        for (const int64_t count : kOddSizes) {
          check_copy({{ways, count * n, n}, {count, n, ways * n}}, item, rng);
          check_copy({{count, ways * n, n}, {ways, n, count * n}}, item, rng);
          check_copy({{count, ways * n, n}}, item, rng);
          check_copy({{count, n, ways * n}}, item, rng);
          check_copy({{3, count * ways * n, count * n}, {count, ways * n, n}}, item, rng);
        }
      }
    }
  });
}

TEST_CASE("one element many times, and more loops than a nest holds") {
  std::mt19937 rng(5);
  check_copy({{5, 0, 40}, {10, 0, 4}}, 4, rng);
  check_copy({{5, 4, 40}, {10, 0, 4}}, 4, rng);
  check_copy({{5, 0, 4}, {10, 4, 20}}, 4, rng);
  check_permutation(std::vector<int64_t>(11, 2), 2, rng, false);
  check_permutation(std::vector<int64_t>(10, 2), 2, rng, true);
  check_copy({{3, 8, 8}, {0, 4, 4}}, 4, rng);
  check_copy({}, 7, rng);
  copy_strided(nullptr, nullptr, std::vector<CopyLoop>{{0, 4, 4}}, 4);
}
