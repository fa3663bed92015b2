// Raw CRCs (lib/kernels/crc.h). A block takes a range of vectors; each of its threads folds every 256th of
// them into one CRC a word: times x to the bits between two of them, plus the next. Multiplying a word by a
// constant is a look-up for each of its nibbles, in tables that lie in shared memory so often that no two
// threads of a warp meet in a bank. Zeros before the data do not change its CRC, so the data begin and end at
// vectors, and the last range is whole; zeros behind it are divided out.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lib/kernels/crc.h"
#include "lib/kernels/cuda/anywhere.h"

namespace uckpt::kernels::cuda {

template <class Field, class W>
struct CrcTables {
  static constexpr int kNibbles = 2 * static_cast<int>(sizeof(W));
  W nibble[kNibbles][16] = {};  // of a word, seen from kThreads vectors further on
  W place[kThreads] = {};       // what a thread's CRC is multiplied by

  static CrcTables make() {
    CrcTables out;
    const W far = Field::power(uint64_t{8} * kVector * kThreads);
    for (int n = 0; n < kNibbles; ++n)
      for (uint32_t x = 0; x < 16; ++x)
        out.nibble[n][x] = Field::multiply(static_cast<W>(W{x} << (4 * n)), far);
    W place = Field::kOne;
    const W step = Field::power(uint64_t{8} * kVector);
    for (int t = kThreads; t-- > 0; place = Field::multiply(place, step)) out.place[t] = place;
    return out;
  }
};
using Crc32Tables = CrcTables<Crc32, uint32_t>;
using Crc64Tables = CrcTables<Crc64, uint64_t>;

// x to the power -8n.
template <class Field, class W>
W crc_without(int zeros) {
  W out = Field::kOne;
  for (int bit = 0; bit < 8 * zeros; ++bit) {
    const W polynomial = Field::times_x(1);  // what leaves at bit 0 comes back so
    const bool left = (out & Field::kOne) != 0;
    out = static_cast<W>((left ? out ^ polynomial : out) << 1 | W{left});
  }
  return out;
}

inline constexpr int kCrcLevels = 4;  // of factors: 2^4 - 1 squares and what divides the zeros out

template <class Field, class W>
struct CrcArgs {
  uint64_t first = 0;  // the address of the first vector
  int64_t vectors = 0;
  int64_t each = 0;         // vectors of a unit, the last of which ends the data: a multiple of kThreads
  int begin = 0, end = 16;  // of the first vector's bytes, and the last one's, those that are data
  const CrcTables<Field, W>* tables = nullptr;
  Result* result = nullptr;
  W factor[1 << kCrcLevels] = {};  // x to the bits of 1, 2, 4, ... units; the last: of the zeros behind
};

// Most units of a range: as many as the factors reach.
inline constexpr int64_t kMostCrcUnits = (int64_t{1} << ((1 << kCrcLevels) - 1)) - 1;

template <class Field, class W>
CrcArgs<Field, W> crc_args(const uint8_t* data, int64_t bytes, int64_t most_units) {
  CrcArgs<Field, W> out;
  const uint64_t begin = address_of(data), end = begin + static_cast<uint64_t>(bytes);
  out.first = begin / kVector * kVector;
  const uint64_t last = (end + kVector - 1) / kVector * kVector;
  out.vectors = static_cast<int64_t>((last - out.first) / kVector);
  out.begin = static_cast<int>(begin - out.first);
  out.end = kVector - static_cast<int>(last - end);
  const int64_t rounds = (out.vectors + kThreads - 1) / kThreads;
  const int64_t units = std::min({most_units, kMostCrcUnits, rounds});
  out.each = (rounds + units - 1) / units * kThreads;
  W square = Field::power(uint64_t{8} * kVector * static_cast<uint64_t>(out.each));
  for (int k = 0; k < (1 << kCrcLevels) - 1; ++k, square = Field::multiply(square, square))
    out.factor[k] = square;
  out.factor[(1 << kCrcLevels) - 1] = crc_without<Field, W>(static_cast<int>(last - end));
  return out;
}
template <class Field, class W>
int64_t crc_units(const CrcArgs<Field, W>& args) {
  return (args.vectors + args.each - 1) / args.each;
}

template <class Field, class W>
struct CrcBody {
  using Args = CrcArgs<Field, W>;
  using Tables = CrcTables<Field, W>;
  static constexpr int kNibbles = Tables::kNibbles, kWords = kVector / static_cast<int>(sizeof(W));
  // Threads that are served at once, each from its own banks.
  static constexpr int kCopies = 128 / static_cast<int>(sizeof(W));
  static constexpr int kSums = 8;  // steps that halve 256
  static constexpr int kPhases = 2 + kSums + 1, kBlocksEach = sizeof(W) == 4 ? 5 : 4;
  struct Shared {
    W nibble[kNibbles][16][kCopies];
    W sum[kThreads];
    W factor[1 << kCrcLevels];
  };

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared& shared, int64_t unit, int thread) {
    if constexpr (kPhase == 0) {
      for (int i = thread; i < kNibbles * 16 * kCopies; i += kThreads)
        (&shared.nibble[0][0][0])[i] = (&args.tables->nibble[0][0])[i / kCopies];
      constexpr int kLast = (1 << kCrcLevels) - 1;
      if (thread <= kLast)
        shared.factor[thread] = thread == kLast || (unit >> thread & 1) ? args.factor[thread] : Field::kOne;
    } else if constexpr (kPhase == 1) {
      shared.sum[thread] = fold(args, shared, unit, thread);
    } else if constexpr (kPhase < kPhases - 1) {
      constexpr int kHalf = kThreads >> (kPhase - 1);
      if (thread < kHalf) shared.sum[thread] ^= shared.sum[thread + kHalf];
      // Beside it, by other warps where there are any, the factors are multiplied.
      constexpr int kFactors = (1 << kCrcLevels) >> (kPhase - 1);
      const int t = kThreads - 1 - thread;
      if (kFactors > 0 && t < kFactors)
        shared.factor[t] = Field::multiply(shared.factor[t], shared.factor[t + kFactors]);
    } else if (thread == 0) {
      atomic_xor(&args.result->sum, uint64_t{Field::multiply(shared.sum[0], shared.factor[0])});
    }
  }

 private:
  UCKPT_ANYWHERE static W moved(const Shared& shared, W x, int copy) {
    W out = 0;
    UCKPT_UNROLL
    for (int n = 0; n < kNibbles; ++n) out ^= shared.nibble[n][x >> (4 * n) & 15][copy];
    return out;
  }
  // The vector's bytes but those that are no data.
  UCKPT_ANYWHERE static Vector data_of(const Args& args, int64_t v) {
    if (v < 0) return {};
    Vector x = load<Vector>(reinterpret_cast<const uint8_t*>(args.first) + v * kVector);
    if (v == 0 && args.begin > 0) {
      x.low = args.begin >= 8 ? 0 : x.low >> (8 * args.begin) << (8 * args.begin);
      if (args.begin > 8) x.high = x.high >> (8 * (args.begin - 8)) << (8 * (args.begin - 8));
    }
    if (v == args.vectors - 1 && args.end < kVector) {
      if (args.end < 8) x.low = x.low << (64 - 8 * args.end) >> (64 - 8 * args.end);
      x.high = args.end <= 8 ? 0 : x.high << (128 - 8 * args.end) >> (128 - 8 * args.end);
    }
    return x;
  }
  UCKPT_ANYWHERE static W fold(const Args& args, const Shared& shared, int64_t unit, int thread) {
    const int copy = thread % kCopies;
    W sum[kWords] = {};
    const int64_t end = args.vectors - unit * args.each, begin = end - args.each;
    // Two vectors are under way while one is folded.
    int64_t v = begin + thread;
    if (begin < 0) v += (0 - begin) / kThreads * kThreads;
    Vector next = data_of(args, v), later = v + kThreads < end ? data_of(args, v + kThreads) : Vector{};
    for (; v < end; v += kThreads) {
      const Vector x = next;
      next = later;
      if (v + 2 * kThreads < end) later = data_of(args, v + 2 * kThreads);
      UCKPT_UNROLL
      for (int w = 0; w < kWords; ++w) {
        constexpr int kItem = static_cast<int>(sizeof(W));
        const uint64_t half = w * kItem < 8 ? x.low : x.high;
        sum[w] = moved(shared, sum[w], copy) ^ static_cast<W>(half >> (8 * (w * kItem % 8)));
      }
    }
    // The words of a vector one behind the other; each is a CRC after as many bits as it has.
    W out = 0;
    constexpr W kOneWord = Field::power(8 * sizeof(W));
    UCKPT_UNROLL
    for (int w = 0; w < kWords; ++w) out = Field::multiply(out ^ sum[w], kOneWord);
    return Field::multiply(out, args.tables->place[thread]);
  }
};
using Crc32Body = CrcBody<Crc32, uint32_t>;
using Crc64Body = CrcBody<Crc64, uint64_t>;

}  // namespace uckpt::kernels::cuda
