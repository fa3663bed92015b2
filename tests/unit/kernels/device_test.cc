// Every kernel of a device gives the bits of the CPU's. The same cases run on the emulated device,
// everywhere, and on a GPU, where there is one.
#include "lib/kernels/device.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/kernels/arithmetic.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/crc.h"
#include "lib/kernels/elements.h"
#include "tests/unit/kernels/emulated_device.h"
#include "tests/unit/kernels/naive_numbers.h"

namespace uckpt::kernels::testing {
namespace {

// The first GPU, looked for once; null: there is none, and it is said why.
Device* gpu() {
  static const std::unique_ptr<Device> found = []() -> std::unique_ptr<Device> {
    const Devices devices = find_devices();
    if (!devices.found.empty()) return open_device(devices.found[0].number);
    std::printf("SKIPPED: no GPU (%s)\n", devices.why_none.c_str());
    return nullptr;
  }();
  return found.get();
}

template <class Function>
void on_every_device(Function function) {
  EmulatedDevice emulated;
  for (Device* device : {static_cast<Device*>(&emulated), gpu()}) {
    if (device == nullptr) continue;
    const std::string on = device->info().name;
    CAPTURE(on);
    function(*device);
  }
}

Bytes random_bytes(int64_t count, std::mt19937& rng) {
  Bytes out(static_cast<size_t>(count));
  for (uint8_t& b : out) b = static_cast<uint8_t>(rng());
  return out;
}

// A lane whose memory is what a test says, and what it is afterwards.
class Bench {
 public:
  Bench(Device& device, int64_t input, int64_t output)
      : lane_(device.make_lane({{input, output, output, output}})), output_(output) {}
  Lane& operator*() { return *lane_; }
  Lane* operator->() { return lane_.get(); }

  void send(int64_t offset, std::span<const uint8_t> bytes) {
    std::copy(bytes.begin(), bytes.end(), lane_->input().begin() + offset);
    lane_->upload(offset, static_cast<int64_t>(bytes.size()));
  }
  std::span<const uint8_t> finish() {
    lane_->download(0, output_);
    lane_->wait();
    return lane_->output();
  }

 private:
  std::unique_ptr<Lane> lane_;
  int64_t output_;
};

bool same(std::span<const uint8_t> found, const Bytes& want, size_t offset = 0) {
  return std::memcmp(found.data() + offset, want.data(), want.size()) == 0;
}

// Copies between elements, as the loops say: `move` gets the offsets.
template <class Move>
void naive_loops(std::span<const CopyLoop> loops, int64_t dst, int64_t src, const Move& move) {
  if (loops.empty()) return move(dst, src);
  for (int64_t i = 0; i < loops[0].count; ++i)
    naive_loops(loops.subspan(1), dst + i * loops[0].dst_stride, src + i * loops[0].src_stride, move);
}

struct Reach {
  int64_t low = 0, high = 0;  // of the bytes around offset 0
};
Reach reach_of(std::span<const CopyLoop> loops, int64_t CopyLoop::*stride, int64_t item) {
  Reach out{0, item};
  for (const CopyLoop& l : loops) {
    if (l.count == 0) return {};
    (l.*stride < 0 ? out.low : out.high) += (l.count - 1) * (l.*stride);
  }
  return out;
}

// Many copies in a row between two areas: of `item` bytes, or casts.
class Copies {
 public:
  static constexpr int64_t kArea = 1 << 19;

  Copies(Device& device, std::mt19937& rng)
      : bench_(device, kArea, kArea), rng_(rng), src_(random_bytes(kArea, rng)) {
    begin();
  }
  ~Copies() { finish(); }

  // `align`: the places' offset from multiples of 16.
  void copy(std::vector<CopyLoop> loops, int64_t item, int64_t src_align, int64_t dst_align) {
    const Places at = place(loops, item, item, src_align, dst_align);
    naive_loops(loops, at.dst, at.src, [&](int64_t dst, int64_t src) {
      std::memcpy(want_.data() + dst, src_.data() + src, static_cast<size_t>(item));
    });
    std::shuffle(loops.begin(), loops.end(), rng_);
    bench_->copy_strided({Region::kOutput, at.dst}, {Region::kInput, at.src}, loops, item);
  }
  void cast(std::vector<CopyLoop> loops, DType from, DType to, int64_t src_align, int64_t dst_align) {
    const Places at = place(loops, item_size(from), item_size(to), src_align, dst_align);
    naive_loops(loops, at.dst, at.src, [&](int64_t dst, int64_t src) {
      kernels::cast(src_.data() + src, from, want_.data() + dst, to, 1);
    });
    std::shuffle(loops.begin(), loops.end(), rng_);
    bench_->cast_strided({Region::kOutput, at.dst}, to, {Region::kInput, at.src}, from, loops);
  }
  void finish() {
    if (copies_ == 0) return;
    const auto found = bench_.finish();
    CHECK(same(found, want_));
    begin();
  }

 private:
  struct Places {
    int64_t src, dst;
  };
  void begin() {
    copies_ = used_ = 0;
    bench_.send(0, src_);
    bench_->clear({Region::kOutput, 0}, kArea);
    want_.assign(static_cast<size_t>(kArea), 0);
  }
  Places place(std::span<const CopyLoop> loops, int64_t src_item, int64_t dst_item, int64_t src_align,
               int64_t dst_align) {
    const Reach src = reach_of(loops, &CopyLoop::src_stride, src_item),
                dst = reach_of(loops, &CopyLoop::dst_stride, dst_item);
    const int64_t room = round_up(dst.high - dst.low, 16) + 64;
    REQUIRE(room <= kArea);
    REQUIRE(src.high - src.low + 32 <= kArea);
    if (used_ + room > kArea) finish();
    const int64_t at = round_up(used_ - dst.low, 16) + dst_align;
    used_ += room;
    ++copies_;
    // At the source's end, as often as not: nothing may be read behind it.
    const int64_t last = (kArea - src.high - src_align) / 16 * 16 + src_align;
    return {rng_() % 2 == 0 ? last : round_up(-src.low, 16) + src_align, at};
  }

  Bench bench_;
  std::mt19937& rng_;
  Bytes src_, want_;
  int64_t used_ = 0, copies_ = 0;
};

// Loops of the given counts, whose axes lie in any order on both sides, with gaps.
std::vector<CopyLoop> any_loops(const std::vector<int64_t>& counts, int64_t src_item, int64_t dst_item,
                                bool gaps, std::mt19937& rng) {
  std::vector<CopyLoop> loops;
  for (const int64_t n : counts) loops.push_back({n, 0, 0});
  std::vector<size_t> order(counts.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (const bool source : {true, false}) {
    std::shuffle(order.begin(), order.end(), rng);
    int64_t span = source ? src_item : dst_item;
    for (const size_t axis : order) {
      const int64_t item = source ? src_item : dst_item;
      const int64_t gap = gaps && rng() % 3 == 0   ? static_cast<int64_t>(rng() % 4) * item
                          : gaps && rng() % 8 == 0 ? 1
                                                   : 0;
      (source ? loops[axis].src_stride : loops[axis].dst_stride) = span + gap;
      span = (span + gap) * counts[axis];
    }
  }
  return loops;
}

constexpr int64_t kAlignments[] = {0, 1, 2, 4, 6, 8, 13};

TEST_CASE("devices: runs of all lengths from all places to all places") {
  std::mt19937 rng(1);
  on_every_device([&](Device& device) {
    Copies copies(device, rng);
    for (int64_t bytes = 1; bytes < 70; bytes += bytes < 35 ? 1 : 7)
      for (int64_t src = 0; src < 16; src += bytes < 35 ? 3 : 1)
        for (int64_t dst = 0; dst < 16; ++dst) copies.copy({}, bytes, src, dst);
    for (const int64_t bytes : {16'384, 16'400, 40'001})
      for (const int64_t src : kAlignments)
        for (const int64_t dst : kAlignments) copies.copy({}, bytes, src, dst);
    for (const int64_t bytes : {16, 32, 33, 48, 100, 128, 200})
      for (const int64_t gap : {0, 1, 4, 16})
        for (const int64_t align : kAlignments) {
          copies.copy({{7, bytes + 16, bytes + gap}}, bytes, align, 0);
          copies.copy({{7, bytes + gap, bytes + 16}}, bytes, 0, align);
          copies.copy({{3, 5 * (bytes + 48), bytes}, {5, bytes + 16, 3 * bytes + gap}}, bytes, align, align);
        }
  });
}

TEST_CASE("devices: any axes in any order, of small counts") {
  std::mt19937 rng(2);
  on_every_device([&](Device& device) {
    Copies copies(device, rng);
    for (const int64_t item : {1, 2, 3, 4, 6, 8, 12, 16, 20, 40}) {
      for (int round = 0; round < 120; ++round) {
        std::vector<int64_t> counts(rng() % 6);
        for (int64_t& n : counts) n = static_cast<int64_t>(1 + rng() % (rng() % 4 == 0 ? 9 : 4));
        const int64_t src = round % 3 == 0 ? kAlignments[rng() % 7] : 0,
                      dst = round % 3 == 1 ? kAlignments[rng() % 7] : 0;
        copies.copy(any_loops(counts, item, item, round % 2 == 1, rng), item, src, dst);
      }
    }
    // All shapes of up to four axes of one to three.
    for (const int64_t item : {2, 4})
      for (int64_t shape = 0; shape < 81; ++shape)
        copies.copy(any_loops({1 + shape % 3, 1 + shape / 3 % 3, 1 + shape / 9 % 3, 1 + shape / 27}, item,
                              item, false, rng),
                    item, 0, 0);
    for (const int64_t item : {1, 4})
      copies.copy(any_loops(std::vector<int64_t>(10, 2), item, item, true, rng), item, 0, 0);
    copies.copy({{0, 4, 4}, {3, 4, 4}}, 4, 0, 0);
    copies.copy({{5, 0, 8}, {2, 4, 4}}, 4, 0, 0);     // one element many times
    copies.copy({{40, -8, 8}, {2, -4, 4}}, 4, 0, 0);  // backwards
    copies.copy({{40, 2, 80}, {40, 80, -2}}, 2, 0, 0);
  });
}

TEST_CASE("devices: transposes of shapes around a tile's") {
  std::mt19937 rng(3);
  on_every_device([&](Device& device) {
    Copies copies(device, rng);
    const auto transpose = [&](int64_t rows, int64_t columns, int64_t item, int64_t src, int64_t dst) {
      copies.copy({{rows, columns * item, item}, {columns, item, rows * item}}, item, src, dst);
    };
    for (const int64_t item : {1, 2, 4, 8, 16}) {
      for (const int64_t rows : {16, 31, 32, 33, 63, 64, 65})
        for (const int64_t columns : {17, 32, 40, 66}) transpose(rows, columns, item, 0, 0);
      transpose(127, 130, item, 0, 0);
      transpose(260, 20, item, 0, 0);
      transpose(64, 64, item, item, 0);
      transpose(64, 64, item, 0, item);
      transpose(68, 68, item, 1, 0);
      transpose(66, 66, item, 0, 1);
      transpose(300, 2, item, 0, 0);
      transpose(3, 300, item, 0, 0);
      for (const auto& axes :
           {std::vector<int64_t>{3, 20, 33}, {20, 3, 36}, {2, 3, 17, 20}, {2, 2, 2, 16, 18}})
        for (int round = 0; round < 6; ++round)
          copies.copy(any_loops(axes, item, item, round > 3, rng), item, 0, 0);
    }
  });
}

constexpr DType kFloats[] = {DType::kF64,  DType::kF32,    DType::kF16,
                             DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};

TEST_CASE("devices: casts of all codes and of any bits, at any place") {
  std::mt19937 rng(4);
  on_every_device([&](Device& device) {
    for (const DType from : kFloats)
      for (const DType to : kFloats) {
        CAPTURE(name_of(from));
        CAPTURE(name_of(to));
        const int64_t a = item_size(from), b = item_size(to);
        const int64_t all = a == 1 ? 256 : a == 2 ? 65'536 : 20'000;
        Bytes src = random_elements(from, all, rng, true);
        if (a <= 2)
          for (int64_t i = 0; i < all; ++i) std::memcpy(src.data() + i * a, &i, static_cast<size_t>(a));
        Bench bench(device, all * a, all * b + 16);
        Bytes want(static_cast<size_t>(all * b));
        bench.send(0, src);
        bench->cast({Region::kOutput, 0}, to, {Region::kInput, 0}, from, all);
        kernels::cast(src.data(), from, want.data(), to, all);
        CHECK(same(bench.finish(), want));
        constexpr int64_t kMost = 255;
        Bench few(device, (kMost + 1) * a, (kMost + 4) * b);
        few.send(0, std::span(src).first(static_cast<size_t>((kMost + 1) * a)));
        for (const int64_t count : {int64_t{1}, int64_t{2}, int64_t{7}, int64_t{16}, int64_t{33}, kMost})
          for (const int64_t src_at : {int64_t{0}, a, int64_t{1}})
            for (const int64_t dst_at : {int64_t{0}, b, 3 * b, int64_t{1}}) {
              few->clear({Region::kOutput, 0}, (kMost + 4) * b);
              few->cast({Region::kOutput, dst_at}, to, {Region::kInput, src_at}, from, count);
              want.assign(static_cast<size_t>((kMost + 4) * b), 0);
              kernels::cast(src.data() + src_at, from, want.data() + dst_at, to, count);
              CHECK(same(few.finish(), want));
            }
      }
  });
}

TEST_CASE("devices: strided casts of all pairs") {
  std::mt19937 rng(5);
  on_every_device([&](Device& device) {
    Copies copies(device, rng);
    for (const DType from : kFloats)
      for (const DType to : kFloats) {
        const int64_t a = item_size(from), b = item_size(to);
        for (int round = 0; round < 12; ++round) {
          std::vector<int64_t> counts(1 + rng() % 4);
          for (int64_t& n : counts) n = static_cast<int64_t>(1 + rng() % 4);
          counts[rng() % counts.size()] += static_cast<int64_t>(rng() % 60);
          const int64_t src = round % 3 == 0 ? a
                              : round == 1   ? 1
                                             : 0,
                        dst = round % 3 == 1 ? b
                              : round == 3   ? 1
                                             : 0;
          copies.cast(any_loops(counts, a, b, round % 2 == 1, rng), from, to, src, dst);
        }
        // Blocks of Q, K and V: rows that lie together are turned.
        for (const int64_t row : {1, 8, 33})
          copies.cast({{3, 4 * row * a, row * b}, {4, row * a, 3 * row * b}, {row, a, b}}, from, to, 0, 0);
        copies.cast(any_loops({2, 2, 2, 2, 2, 2, 2, 2, 2}, a, b, false, rng), from, to, 0, 0);
      }
  });
}

TEST_CASE("devices: arithmetic, each operation rounded") {
  std::mt19937 rng(6);
  on_every_device([&](Device& device) {
    for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32, DType::kF64}) {
      CAPTURE(name_of(dtype));
      const int64_t item = item_size(dtype);
      for (const int64_t count : {1, 3, 16, 100, 5000})
        for (const int64_t at : {int64_t{0}, item, int64_t{1}, int64_t{16}}) {
          CAPTURE(count);
          CAPTURE(at);
          const Bytes a = random_elements(dtype, count, rng, true),
                      b = random_elements(dtype, count, rng, true);
          Bytes want_sum = a, want_part = a, want_scaled = a;
          kernels::add(want_sum.data(), b.data(), dtype, count);
          kernels::divide(want_part.data(), 3, dtype, count);
          kernels::scale(want_scaled.data(), 1.7, -0.3, dtype, count);
          const auto bytes = static_cast<int64_t>(a.size());
          Bench bench(device, 2 * (bytes + 32), 3 * (bytes + 32));
          bench.send(at, a);
          bench.send(bytes + 32 + item, b);
          const auto fresh = [&](int64_t place) {
            bench->copy_strided({Region::kOutput, place}, {Region::kInput, at}, {}, bytes);
            return At{Region::kOutput, place};
          };
          const int64_t part = bytes + 32 + at, scaled = 2 * (bytes + 32) + at;
          bench->add(fresh(at), {Region::kInput, bytes + 32 + item}, dtype, count);
          bench->divide(fresh(part), 3, dtype, count);
          bench->scale(fresh(scaled), 1.7, -0.3, dtype, count);
          const auto found = bench.finish();
          const auto alike = [&](int64_t place, const Bytes& want) {
            // Of the sum of two NaNs the CPU leaves the order open.
            int64_t other = 0;
            for (int64_t i = 0; i < count; ++i) {
              const uint8_t *x = found.data() + place + i * item, *y = want.data() + i * item;
              const bool two =
                  std::isnan(static_cast<double>(naive_number(a.data() + i * item, dtype).value)) &&
                  std::isnan(static_cast<double>(naive_number(b.data() + i * item, dtype).value));
              other += std::memcmp(x, y, static_cast<size_t>(item)) != 0 &&
                       !(&want == &want_sum && two &&
                         std::isnan(static_cast<double>(naive_number(x, dtype).value)));
            }
            return other == 0;
          };
          CHECK(alike(at, want_sum));
          CHECK(alike(part, want_part));
          CHECK(alike(scaled, want_scaled));
        }
    }
  });
}

TEST_CASE("devices: flags of all types") {
  std::mt19937 rng(7);
  on_every_device([&](Device& device) {
    for (const DType dtype : types_with_numbers(true))
      for (uint8_t flags = 0; flags < 8; ++flags)
        for (const int64_t count : {1, 5, 33, 300})
          for (const int64_t at : {int64_t{0}, int64_t{item_size(dtype)}, int64_t{3}}) {
            CAPTURE(name_of(dtype));
            CAPTURE(flags);
            Bytes want = random_bytes(count * item_size(dtype), rng);
            const auto bytes = static_cast<int64_t>(want.size());
            Bench bench(device, bytes + 16, bytes + 16);
            bench.send(at, want);
            bench->copy_strided({Region::kOutput, at}, {Region::kInput, at}, {}, bytes);
            bench->apply_flags({Region::kOutput, at}, count, dtype, flags);
            kernels::apply_flags(want.data(), count, dtype, flags);
            CHECK(same(bench.finish(), want, static_cast<size_t>(at)));
          }
  });
}

TEST_CASE("devices: comparison with a rounded copy") {
  std::mt19937 rng(8);
  on_every_device([&](Device& device) {
    std::vector<std::pair<DType, DType>> pairs = {{DType::kF32, DType::kF16}, {DType::kF32, DType::kBF16}};
    for (int i = 0; i < kDTypeCount; ++i) pairs.emplace_back(static_cast<DType>(i), static_cast<DType>(i));
    for (const auto& pair : pairs)
      for (const int64_t count : {0, 1, 7, 64, 4099})
        for (const int wrong : {0, 1, 50}) {
          const DType wide = pair.first, narrow = pair.second;
          CAPTURE(name_of(wide));
          CAPTURE(name_of(narrow));
          CAPTURE(count);
          const int64_t b = std::max(1, item_size(narrow));
          Bytes x = item_size(wide) == 0 ? random_bytes(count, rng) : random_elements(wide, count, rng, true),
                y = x;
          if (wide != narrow) {
            y.resize(static_cast<size_t>(count * b));
            kernels::cast(x.data(), wide, y.data(), narrow, count);
          }
          for (int i = 0; i < wrong && count > 0; ++i)
            y[rng() % y.size()] ^= static_cast<uint8_t>(1 << rng() % 8);
          const Differences want = kernels::compare_rounded(x.data(), wide, y.data(), narrow, count);
          for (const int64_t at : {int64_t{0}, int64_t{1}}) {
            const auto middle = round_up(static_cast<int64_t>(x.size()) + 16, 16);
            Bench bench(device, middle + count * b + 16, 16);
            bench.send(at, x);
            bench.send(middle + at, y);
            const int first = bench->compare_rounded({Region::kInput, at}, wide,
                                                     {Region::kInput, middle + at}, narrow, count);
            const int again = bench->compare_rounded({Region::kInput, at}, wide,
                                                     {Region::kInput, middle + at}, narrow, count);
            bench->wait();
            for (const int result : {first, again}) {
              CHECK(bench->differences(result).count == want.count);
              CHECK(bench->differences(result).first == want.first);
            }
          }
        }
  });
}

TEST_CASE("devices: CRCs of all lengths, at all places") {
  std::mt19937 rng(9);
  on_every_device([&](Device& device) {
    constexpr int64_t kArea = 300'000;
    const Bytes bytes = random_bytes(kArea, rng);
    Bench bench(device, kArea, 16);
    bench.send(0, bytes);
    struct Range {
      int64_t at, size;
    };
    std::vector<Range> ranges;
    for (int64_t size = 0; size < 300; ++size) ranges.push_back({static_cast<int64_t>(rng() % 64), size});
    for (int64_t at = 0; at < 17; ++at)
      for (const int64_t size : {1, 16, 31, 4096, 5000}) ranges.push_back({at, size});
    for (const int64_t size : {65'536, 200'001, 262'144, 299'000})
      ranges.push_back({static_cast<int64_t>(rng() % 999), size});
    ranges.push_back({0, kArea});
    std::vector<int> found32, found64;
    for (const Range& r : ranges) {
      found32.push_back(bench->crc32_raw({Region::kInput, r.at}, r.size));
      found64.push_back(bench->crc64_raw({Region::kInput, r.at}, r.size));
    }
    bench->wait();
    for (size_t i = 0; i < ranges.size(); ++i) {
      const std::span range(bytes.data() + ranges[i].at, static_cast<size_t>(ranges[i].size));
      CAPTURE(ranges[i].at);
      CAPTURE(ranges[i].size);
      CHECK(bench->crc(found32[i]) == crc32_raw(range));
      CHECK(bench->crc(found64[i]) == crc64_raw(range));
    }
    // The next round begins with none.
    CHECK(bench->crc64_raw({Region::kInput, 0}, 0) == 0);
    bench->wait();
    CHECK(bench->crc(0) == 0);
  });
}

TEST_CASE("devices: work of a lane is done in its order, many boxes at once") {
  std::mt19937 rng(10);
  on_every_device([&](Device& device) {
    constexpr int64_t kRows = 200, kRow = 24;
    const Bytes rows = random_bytes(kRows * kRow, rng);
    Bench bench(device, kRows * kRow, kRows * kRow);
    for (int round = 0; round < 3; ++round) {
      bench.send(0, rows);
      Bytes want = rows;
      // There and back by one box a row, with other work between.
      for (int64_t i = 0; i < kRows; ++i)
        bench->copy_strided({Region::kOther, i * kRow}, {Region::kInput, (kRows - 1 - i) * kRow}, {}, kRow);
      bench->apply_flags({Region::kOther, 0}, kRows * kRow / 4, DType::kI32, kByteSwapped);
      bench->cast({Region::kFilled, 0}, DType::kF16, {Region::kOther, 0}, DType::kF32, 10);
      for (int64_t i = 0; i < kRows; ++i)
        bench->copy_strided({Region::kOutput, i * kRow}, {Region::kOther, (kRows - 1 - i) * kRow}, {}, kRow);
      kernels::apply_flags(want.data(), kRows * kRow / 4, DType::kI32, kByteSwapped);
      const int crc = bench->crc64_raw({Region::kOutput, 0}, kRows * kRow);
      CHECK(same(bench.finish(), want));
      CHECK(bench->crc(crc) == crc64_raw(want));
      bench->clear({Region::kOutput, 0}, kRows * kRow);
    }
  });
}

TEST_CASE(
    "emulated device: boxes that follow each other are few launches, and keep their place among other work") {
  auto machine = std::make_unique<EmulatedMachine>(LaneSizes{{6400, 6400, 0, 6400}},
                                                   std::make_shared<EmulatedFailure>());
  const EmulatedMachine* const seen = machine.get();
  cuda::LaneOn<EmulatedMachine> lane(std::move(machine));
  for (int64_t i = 0; i < 200; ++i)
    lane.copy_strided({Region::kOutput, i * 32}, {Region::kInput, i * 32}, {}, 17);
  lane.wait();
  CHECK(seen->launches == (200 + cuda::kMostBoxes - 1) / cuda::kMostBoxes);
  lane.copy_strided({Region::kFilled, 0}, {Region::kInput, 0}, {}, 64);
  lane.clear({Region::kInput, 0}, 64);
  lane.copy_strided({Region::kOutput, 0}, {Region::kFilled, 0}, {}, 64);
  std::fill_n(lane.input().begin(), 64, uint8_t{7});
  lane.upload(0, 64);
  lane.copy_strided({Region::kOutput, 64}, {Region::kInput, 0}, {}, 64);
  lane.download(0, 128);
  lane.wait();
  CHECK(seen->launches == (200 + cuda::kMostBoxes - 1) / cuda::kMostBoxes + 3);
  CHECK(lane.output()[64] == 7);
}

TEST_CASE("devices: what lies outside of a region is refused") {
  on_every_device([&](Device& device) {
    Bench bench(device, 64, 64);
    const CopyLoop back{3, -16, 16};
    CHECK_THROWS_AS(bench->upload(60, 5), Error);
    CHECK_THROWS_AS(bench->clear({Region::kFilled, -1}, 5), Error);
    CHECK_THROWS_AS(bench->copy_strided({Region::kOutput, 0}, {Region::kInput, 16}, {&back, 1}, 16), Error);
    CHECK_THROWS_AS(bench->crc32_raw({Region::kInput, 1}, 64), Error);
    CHECK_NOTHROW(bench->copy_strided({Region::kOutput, 0}, {Region::kInput, 32}, {&back, 1}, 16));
    bench->wait();
  });
}

TEST_CASE("emulated device: nothing happens before a wait, and a failure is told by it") {
  EmulatedDevice device;
  Bench bench(device, 64, 64);
  const Bytes first(64, 1), second(64, 2);
  bench.send(0, first);
  std::copy(second.begin(), second.end(), bench->input().begin());  // too early
  bench->copy_strided({Region::kOutput, 0}, {Region::kInput, 0}, {}, 64);
  bench->download(0, 64);
  CHECK_FALSE(same(bench->output(), first));
  CHECK_FALSE(same(bench->output(), second));
  bench->wait();
  CHECK(same(bench->output(), second));
  const int crc = bench->crc64_raw({Region::kInput, 0}, 64);
  CHECK(bench->crc(crc) != crc64_raw(second));
  bench->wait();
  CHECK(bench->crc(crc) == crc64_raw(second));

  device.fail_after(1);
  bench->clear({Region::kOutput, 0}, 64);
  bench->clear({Region::kFilled, 0}, 64);
  try {
    bench->wait();
    FAIL("no failure");
  } catch (const Error& e) {
    CHECK(e.code() == "device.failed");
    CHECK(e.exit_code() == 2);
  }
  CHECK_THROWS_AS(device.make_lane({{int64_t{1} << 40, 0, 0, 0}}), Error);
}

TEST_CASE("devices: one that there is not is named, with those there are or why there are none") {
  try {
    open_device(99);
    FAIL("there are a hundred");
  } catch (const Error& e) {
    CHECK(e.code() == "device.missing");
    CHECK(e.message().find("cuda:99") != std::string::npos);
    CHECK_FALSE(e.hint_text().empty());
  }
  const Devices devices = find_devices();
  CHECK((devices.found.empty() ? !devices.why_none.empty() : devices.found[0].major >= 8));
}

}  // namespace
}  // namespace uckpt::kernels::testing
