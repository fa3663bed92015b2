// Linear checksums: the CRC of a long range put together from the CRCs of its parts, in any order.
//
// A *raw* CRC (no initial value, no final inversion) is linear over GF(2): the raw CRC of a range is the xor
// of the raw CRCs of its parts, each shifted by the number of bytes that follow it. So tasks may add their
// shares whenever they finish. CRC-32 is what zip members carry (zlib's polynomial); CRC-64 (the one of xz,
// ECMA-182) is the digest of the consolidated file.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace uckpt::kernels {

// Arithmetic modulo a reflected polynomial: bit 0 of a word is the highest power.
template <class Word, Word kPolynomial>
class CrcField {
 public:
  static constexpr int kBits = sizeof(Word) * 8;
  static constexpr Word kOne = Word{1} << (kBits - 1);

  static constexpr Word times_x(Word a) {
    return static_cast<Word>((a >> 1) ^ (kPolynomial & (Word{0} - (a & 1))));
  }

  static constexpr Word multiply(Word a, Word b) {
    Word product = 0;
    for (Word bit = kOne; bit != 0; bit >>= 1) {
      product ^= b & (Word{0} - static_cast<Word>((a & bit) != 0));
      b = times_x(b);
    }
    return product;
  }

  // x to the power n, n in bits.
  static constexpr Word power(uint64_t n) {
    Word result = kOne, square = times_x(kOne);
    for (; n != 0; n >>= 1) {
      if (n & 1) result = multiply(result, square);
      square = multiply(square, square);
    }
    return result;
  }

  // A raw CRC seen from `bytes` further on.
  static Word shift(Word raw, uint64_t bytes) {
    Word result = raw;
    for (int k = 0; bytes != 0; bytes >>= 1, ++k)
      if (bytes & 1) result = multiply(kByteShifts[static_cast<size_t>(k)], result);
    return result;
  }

  // The usual CRC (all ones in, inverted out) of `bytes` bytes from its raw form.
  static Word finish(Word raw, uint64_t bytes) {
    return static_cast<Word>(raw ^ shift(static_cast<Word>(~Word{0}), bytes) ^ static_cast<Word>(~Word{0}));
  }
  static Word unfinish(Word crc, uint64_t bytes) { return finish(crc, bytes); }  // its own inverse

 private:
  static constexpr std::array<Word, 64> make_byte_shifts() {
    std::array<Word, 64> out{};
    Word square = power(8);
    for (Word& w : out) {
      w = square;
      square = multiply(square, square);
    }
    return out;
  }
  static constexpr std::array<Word, 64> kByteShifts = make_byte_shifts();
};

using Crc32 = CrcField<uint32_t, 0xEDB88320u>;
using Crc64 = CrcField<uint64_t, 0xC96C5795D7870F42u>;

// `Field::shift` by one number of bytes, for many CRCs: a look-up for each byte of one.
template <class Field, class Word>
class CrcShift {
 public:
  using Raw = Word;
  explicit CrcShift(uint64_t bytes) {
    Word of_bit = Field::shift(Field::kOne, bytes);  // of each bit, from the highest down
    for (size_t bit = Field::kBits; bit-- > 0; of_bit = Field::times_x(of_bit))
      table_[bit / 8][size_t{1} << (bit % 8)] = of_bit;
    for (auto& table : table_)
      for (size_t i = 1; i < table.size(); ++i) table[i] = table[i & (i - 1)] ^ table[i & (~i + 1)];
  }
  Word operator()(Word raw) const {
    Word out = 0;
    for (size_t byte = 0; byte < sizeof(Word); ++byte) out ^= table_[byte][(raw >> (8 * byte)) & 0xff];
    return out;
  }

 private:
  std::array<std::array<Word, 256>, sizeof(Word)> table_{};
};
using Crc32Shift = CrcShift<Crc32, uint32_t>;
using Crc64Shift = CrcShift<Crc64, uint64_t>;

uint32_t crc32_raw(std::span<const uint8_t> bytes);
uint64_t crc64_raw(std::span<const uint8_t> bytes);

// A loop over runs that lie one way in memory and another way in what a CRC is of.
template <class Shift>
struct CrcLoop {
  int64_t count;
  int64_t step;        // bytes in memory
  const Shift* shift;  // by the bytes that a step has in the other
};
// The raw CRC of all runs, as seen from the end of the last one; the innermost loop is the last.
template <class Shift>
typename Shift::Raw crc_of_runs(const uint8_t* at, std::span<const CrcLoop<Shift>> loops, size_t run) {
  typename Shift::Raw raw = 0;
  if (loops.empty()) {
    if constexpr (std::is_same_v<Shift, Crc32Shift>)
      raw = crc32_raw({at, run});
    else
      raw = crc64_raw({at, run});
  } else {
    for (int64_t i = 0; i < loops[0].count; ++i, at += loops[0].step)
      raw = (*loops[0].shift)(raw) ^ crc_of_runs(at, loops.subspan(1), run);
  }
  return raw;
}

}  // namespace uckpt::kernels
