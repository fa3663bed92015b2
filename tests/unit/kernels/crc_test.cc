#include "lib/kernels/crc.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

using namespace uckpt::kernels;

namespace {

// Bit by bit, the slow obvious way.
template <class Word>
Word naive_crc(const std::vector<uint8_t>& bytes, Word polynomial) {
  Word w = static_cast<Word>(~Word{0});
  for (uint8_t b : bytes) {
    w ^= b;
    for (int k = 0; k < 8; ++k) w = static_cast<Word>((w & 1) != 0 ? (w >> 1) ^ polynomial : w >> 1);
  }
  return static_cast<Word>(~w);
}

std::vector<uint8_t> random_bytes(size_t n, std::mt19937& rng) {
  std::vector<uint8_t> out(n);
  for (auto& b : out) b = static_cast<uint8_t>(rng());
  return out;
}

}  // namespace

TEST_CASE("check values of the published CRCs") {
  const char* text = "123456789";
  const std::vector<uint8_t> nine(text, text + 9);
  CHECK(Crc32::finish(crc32_raw(nine), 9) == 0xCBF43926u);
  CHECK(Crc64::finish(crc64_raw(nine), 9) == 0x995DC9BBDF1939FAu);
  CHECK(Crc64::finish(crc64_raw({}), 0) == 0);
}

TEST_CASE("every length equals the naive one") {
  std::mt19937 rng(1);
  std::vector<size_t> lengths = {4096, 65537, 1 << 18};
  for (size_t n = 0; n < 2100; n += n < 300 ? 1 : n < 1020 ? 37 : 5) lengths.push_back(n);
  for (size_t n : lengths) {
    const auto bytes = random_bytes(n, rng);
    CAPTURE(n);
    REQUIRE(Crc64::finish(crc64_raw(bytes), n) == naive_crc<uint64_t>(bytes, 0xC96C5795D7870F42u));
    REQUIRE(Crc32::finish(crc32_raw(bytes), n) == naive_crc<uint32_t>(bytes, 0xEDB88320u));
  }
}

TEST_CASE("shares add up in any order") {
  std::mt19937 rng(2);
  for (int round = 0; round < 50; ++round) {
    const size_t n = 1 + rng() % 5000;
    const auto bytes = random_bytes(n, rng);
    std::vector<size_t> cuts = {0, n};
    for (int i = 0; i < 5; ++i) cuts.push_back(rng() % (n + 1));
    std::sort(cuts.begin(), cuts.end());
    uint64_t sum64 = 0;
    uint32_t sum32 = 0;
    for (size_t i = cuts.size() - 1; i-- > 0;) {
      const std::span<const uint8_t> part(bytes.data() + cuts[i], cuts[i + 1] - cuts[i]);
      sum64 ^= Crc64::shift(crc64_raw(part), n - cuts[i + 1]);
      sum32 ^= Crc32::shift(crc32_raw(part), n - cuts[i + 1]);
    }
    REQUIRE(sum64 == crc64_raw(bytes));
    REQUIRE(sum32 == crc32_raw(bytes));
  }
}

TEST_CASE("a prepared shift is the shift") {
  std::mt19937_64 rng(5);
  for (const uint64_t bytes : {0u, 1u, 2u, 8u, 1000u, 4096u, 123456789u}) {
    const Crc64Shift shift(bytes);
    for (int i = 0; i < 50; ++i) {
      const uint64_t raw = rng();
      CHECK(shift(raw) == Crc64::shift(raw, bytes));
    }
  }
}
