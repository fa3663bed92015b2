#include "lib/kernels/statistics.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "lib/kernels/numbers.h"
#include "tests/unit/kernels/naive_numbers.h"

using namespace uckpt;
using namespace uckpt::kernels;
using namespace uckpt::kernels::testing;

namespace {

struct Naive {
  int64_t zeros = 0, nans = 0, infinities = 0, denormals = 0;
  std::vector<long double> finite;
};

Naive naive(const Bytes& bytes, DType dtype) {
  Naive out;
  const auto item = static_cast<size_t>(item_size(dtype));
  const bool complex = info(dtype).kind == DTypeClass::kComplex;
  for (size_t at = 0; at < bytes.size(); at += item) {
    const DType part = part_of(dtype);
    const NaiveNumber re = naive_number(bytes.data() + at, part),
                      im = complex ? naive_number(bytes.data() + at + item / 2, part) : NaiveNumber{0};
    out.denormals += re.denormal || im.denormal;
    out.zeros += re.value == 0 && im.value == 0;
    if (std::isnan(re.value) || std::isnan(im.value)) {
      ++out.nans;
    } else if (std::isinf(re.value) || std::isinf(im.value)) {
      ++out.infinities;
    } else {
      out.finite.push_back(complex ? std::hypot(re.value, im.value) : re.value);
    }
  }
  return out;
}

// By blocks, the order of which is given.
Statistics by_blocks(const Bytes& bytes, DType dtype, std::vector<int64_t> order) {
  const int64_t item = item_size(dtype), count = static_cast<int64_t>(bytes.size()) / item;
  BlockStatistics blocks;
  for (const int64_t b : order)
    blocks.add(b, statistics_of(bytes.data() + b * kStatisticsBlock * item, dtype,
                                std::min(kStatisticsBlock, count - b * kStatisticsBlock)));
  return blocks.total();
}

std::vector<int64_t> blocks_of(const Bytes& bytes, DType dtype) {
  const int64_t count = static_cast<int64_t>(bytes.size()) / item_size(dtype);
  std::vector<int64_t> out(static_cast<size_t>((count + kStatisticsBlock - 1) / kStatisticsBlock));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

bool same_bits(const Statistics& a, const Statistics& b) {
  return a.count == b.count && a.zeros == b.zeros && a.nans == b.nans && a.infinities == b.infinities &&
         a.denormals == b.denormals && a.min == b.min && a.max == b.max && a.min_key == b.min_key &&
         a.max_key == b.max_key && a.sum == b.sum && a.squares == b.squares;
}

void check_against_naive(const Bytes& bytes, DType dtype) {
  const Statistics s = by_blocks(bytes, dtype, blocks_of(bytes, dtype));
  const Naive want = naive(bytes, dtype);
  CHECK(s.count == static_cast<int64_t>(bytes.size()) / item_size(dtype));
  CHECK(s.zeros == want.zeros);
  CHECK(s.nans == want.nans);
  CHECK(s.infinities == want.infinities);
  CHECK(s.denormals == want.denormals);
  REQUIRE(s.finite() == static_cast<int64_t>(want.finite.size()));
  if (want.finite.empty()) {
    CHECK(s.mean() == 0);
    CHECK(s.deviation() == 0);
    CHECK(s.norm() == 0);
    return;
  }
  const auto [least, most] = std::minmax_element(want.finite.begin(), want.finite.end());
  CHECK(s.min == doctest::Approx(static_cast<double>(*least)).epsilon(1e-15));
  CHECK(s.max == doctest::Approx(static_cast<double>(*most)).epsilon(1e-15));
  const auto n = static_cast<long double>(want.finite.size());
  const long double mean = std::accumulate(want.finite.begin(), want.finite.end(), 0.0L) / n;
  long double squares = 0, norm = 0, size = 0;
  for (const long double x : want.finite)
    squares += (x - mean) * (x - mean), norm += x * x, size += std::fabs(x);
  CHECK(static_cast<double>(std::fabs(static_cast<long double>(s.mean()) - mean)) <=
        static_cast<double>(1e-14L * size / n));
  CHECK(near(s.deviation(), static_cast<double>(std::sqrt(squares / n))));
  CHECK(near(s.norm(), static_cast<double>(std::sqrt(norm))));
}

template <class T>
Bytes bytes_of_all(const std::vector<T>& values) {
  Bytes out(values.size() * sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

}  // namespace

TEST_CASE("every type against the slow reference, in any number of elements") {
  std::mt19937 rng(5);
  for (const DType dtype : types_with_numbers(true)) {
    CAPTURE(name_of(dtype));
    for (const int64_t count : {1, 7, 8, 9, 2047, 2048, 2049, 9001}) {
      CAPTURE(count);
      Bytes bytes = random_elements(dtype, count, rng, true);
      if (part_of(dtype) == DType::kF64)  // a reference in long double would do, were not the spread too wide
        for (size_t at = 7; at < bytes.size(); at += 8)
          if ((bytes[at] & 0x7f) != 0x7f && (bytes[at] & 0x7f) != 0)
            bytes[at] = static_cast<uint8_t>((bytes[at] & 0x80) | 0x3f);
      check_against_naive(bytes, dtype);
    }
  }
}

TEST_CASE("no order of blocks, and no grouping, changes a bit") {
  std::mt19937 rng(6);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kC64, DType::kI64}) {
    const Bytes bytes = random_elements(dtype, 13 * kStatisticsBlock + 77, rng, false);
    std::vector<int64_t> order = blocks_of(bytes, dtype);
    REQUIRE(order.size() == 14);
    const Statistics first = by_blocks(bytes, dtype, order);
    for (int i = 0; i < 50; ++i) {
      std::shuffle(order.begin(), order.end(), rng);
      CHECK(same_bits(by_blocks(bytes, dtype, order), first));
      BlockStatistics sum;  // parts of some blocks each, put together
      for (size_t at = 0; at < order.size();) {
        BlockStatistics part;
        for (size_t n = 1 + rng() % 5; n > 0 && at < order.size(); --n, ++at) {
          const int64_t begin = order[at] * kStatisticsBlock, item = item_size(dtype);
          part.add(order[at], statistics_of(bytes.data() + begin * item, dtype,
                                            std::min(kStatisticsBlock,
                                                     static_cast<int64_t>(bytes.size()) / item - begin)));
        }
        sum.add(part);
      }
      CHECK(same_bits(sum.total(), first));
    }
  }
}

TEST_CASE("numbers whose squares are no doubles") {
  for (const double unit : {1e300, 1e-300, 5e-324}) {
    const Bytes bytes = bytes_of_all<double>({3 * unit, -4 * unit, 0, 0});
    const Statistics s = statistics_of(bytes.data(), DType::kF64, 4);
    CHECK(s.norm() == doctest::Approx(5 * unit).epsilon(1e-12));
    CHECK(s.min == -4 * unit);
    CHECK(s.max == 3 * unit);
    if (unit > 1e-320) CHECK(s.mean() == doctest::Approx(-unit / 4).epsilon(1e-12));
  }
  const Bytes most = bytes_of_all<double>(std::vector<double>(4, 1.7e308));
  CHECK(statistics_of(most.data(), DType::kF64, 4).mean() == doctest::Approx(1.7e308));
  CHECK(statistics_of(most.data(), DType::kF64, 4).deviation() == 0);
}

TEST_CASE("a small spread about a large mean is not lost") {
  std::vector<double> values(5000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = 1e9 + static_cast<double>(i % 2);
  const Bytes bytes = bytes_of_all(values);
  const Statistics s = by_blocks(bytes, DType::kF64, blocks_of(bytes, DType::kF64));
  CHECK(s.deviation() == doctest::Approx(0.5).epsilon(1e-12));
  CHECK(s.mean() == 1e9 + 0.5);
}

TEST_CASE("what is all the same has no deviation, though its mean is rounded") {
  for (const double value : {0.1, 0.3, 1.0 / 3, 1e9 / 7}) {
    for (const size_t count : {3u, 7u, 100u, 2047u}) {
      const Bytes bytes = bytes_of_all(std::vector<double>(count, value));
      CHECK(statistics_of(bytes.data(), DType::kF64, static_cast<int64_t>(count)).deviation() <
            1e-20 * value);
    }
  }
}

TEST_CASE("adding is the same either way") {
  std::mt19937 rng(7);
  for (int i = 0; i < 200; ++i) {
    const Bytes a = random_elements(DType::kF32, 300, rng, false),
                b = random_elements(DType::kF32, 50, rng, false);
    const Statistics left = statistics_of(a.data(), DType::kF32, 300),
                     right = statistics_of(b.data(), DType::kF32, 50);
    Statistics one = left, other = right;
    one.add(right);
    other.add(left);
    CHECK(same_bits(one, other));
  }
}

TEST_CASE("integers of 64 bits keep their exact range") {
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min(), kMost = std::numeric_limits<int64_t>::max();
  const Bytes bytes = bytes_of_all<int64_t>({kMost - 1, -3, kLeast + 1});
  const Statistics s = statistics_of(bytes.data(), DType::kI64, 3);
  CHECK(Statistics::signed_of(s.min_key) == kLeast + 1);
  CHECK(Statistics::signed_of(s.max_key) == kMost - 1);
  const Bytes positive = bytes_of_all<uint64_t>({5, ~uint64_t{0} - 1});
  const Statistics u = statistics_of(positive.data(), DType::kU64, 2);
  CHECK(u.min_key == 5);
  CHECK(u.max_key == ~uint64_t{0} - 1);
}

TEST_CASE("nothing finite, and nothing at all") {
  const Bytes bytes = bytes_of_all<float>({NAN, INFINITY, -INFINITY, -NAN});
  const Statistics s = statistics_of(bytes.data(), DType::kF32, 4);
  CHECK(s.nans == 2);
  CHECK(s.infinities == 2);
  CHECK(s.finite() == 0);
  CHECK(s.norm() == 0);
  const Statistics none = BlockStatistics().total();
  CHECK(none.count == 0);
  CHECK(none.mean() == 0);
  CHECK(statistics_of(bytes.data(), DType::kF4, 4).count == 0);
}
