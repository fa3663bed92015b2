// Work on elements back to back: arithmetic and flags in place, comparison with a rounded copy.
#pragma once

#include "lib/kernels/cuda/anywhere.h"
#include "lib/kernels/cuda/casts.h"
#include "lib/tensor/dtype.h"

namespace uckpt::kernels::cuda {

inline constexpr int kGroupsEach = 4;  // of 16 bytes, by a thread in a unit
inline int64_t units_of_groups(int64_t groups) {
  return groups / (kGroupsEach * kThreads) + (groups % (kGroupsEach * kThreads) != 0);
}

// Elements of `item` bytes in groups that are vectors, but for the first and the last one. Elements that do
// not lie at multiples of their size have groups, too, without vectors.
struct Groups {
  uint8_t* data = nullptr;
  int64_t count = 0;  // elements
  int lead = 0;       // elements that the first group lacks
  bool aligned = true;

  static Groups of(uint8_t* data, int64_t count, int item) {
    Groups out{data, count, 0, address_of(data) % static_cast<uint64_t>(item) == 0};
    if (out.aligned) out.lead = static_cast<int>(address_of(data) % kVector) / item;
    return out;
  }
  int64_t groups(int item) const {
    const int64_t each = kVector / item;
    return count <= 0 ? 0 : (lead + count + each - 1) / each;
  }
};

// Calls whole(first) for each group of a thread that is a vector, and then one(element) for each element of
// those that are not.
template <int kItem, class Whole, class One>
UCKPT_ANYWHERE void for_groups(const Groups& all, int64_t unit, int thread, const Whole& whole,
                               const One& one) {
  constexpr int kEach = kVector / kItem;
  UCKPT_UNROLL
  for (int j = 0; j < kGroupsEach; ++j) {
    const int64_t low = ((unit * kGroupsEach + j) * kThreads + thread) * kEach - all.lead, high = low + kEach;
    if (low >= all.count) return;
    if (all.aligned && low >= 0 && high <= all.count) {
      whole(low);
      continue;
    }
    UCKPT_LOOP
    for (int64_t e = low < 0 ? 0 : low; e < high && e < all.count; ++e) one(e);
  }
}

enum class Sum : uint8_t { kAdd, kDivide, kScale };
struct ArithmeticArgs {
  Groups into;
  const uint8_t* other = nullptr;
  double by = 1, more = 0;
  Sum sum = Sum::kAdd;
  DType dtype = DType::kF32;
};

struct ArithmeticBody {
  using Args = ArithmeticArgs;
  static constexpr int kPhases = 1, kBlocksEach = 5;
  struct Shared {};

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared&, int64_t unit, int thread) {
    switch (args.dtype) {
      case DType::kF64:
        return of_type<Double>(args, unit, thread);
      case DType::kF32:
        return of_type<Single>(args, unit, thread);
      case DType::kF16:
        return of_type<Coded<Half>>(args, unit, thread);
      default:
        return of_type<Coded<BFloat>>(args, unit, thread);
    }
  }

 private:
  template <class Float>
  UCKPT_ANYWHERE static Float reckoned(const Args& args, Float a, Float b) {
    const auto by = static_cast<Float>(args.by), more = static_cast<Float>(args.more);
    if (args.sum == Sum::kAdd) return settled(a + b, a, b);
    if (args.sum == Sum::kDivide) return settled(a / by, a, by);
    Float x = a;
    if (args.by != 1) x = settled(x * by, x, by);
    if (args.more != 0) x = settled(x + more, x, more);
    return x;
  }
  template <class Type>
  UCKPT_ANYWHERE static uint64_t of_bits(const Args& args, uint64_t a, uint64_t b) {
    return Type::write(reckoned(args, Type::read(a), Type::read(b)));
  }
  template <class Type>
  UCKPT_ANYWHERE static void of_type(const Args& args, int64_t unit, int thread) {
    constexpr int kItem = Type::kItem;
    const auto whole = [&](int64_t first) {
      uint8_t* const p = args.into.data + first * kItem;
      const Bits<kVector> a = load_bits<kVector>(p);
      Bits<kVector> b, out;
      if (args.sum == Sum::kAdd) b = load_bits<kVector>(args.other + first * kItem);
      UCKPT_UNROLL
      for (int e = 0; e < kVector / kItem; ++e)
        out.template put<kItem>(e, of_bits<Type>(args, a.template get<kItem>(e), b.template get<kItem>(e)));
      store_bits(p, out);
    };
    const auto one = [&](int64_t e) {
      uint8_t* const p = args.into.data + e * kItem;
      const uint64_t b = args.sum == Sum::kAdd ? uint64_t{load_bytes<kItem>(args.other + e * kItem)} : 0;
      store_bytes<kItem>(p, static_cast<Word<kItem>>(of_bits<Type>(args, load_bytes<kItem>(p), b)));
    };
    for_groups<kItem>(args.into, unit, thread, whole, one);
  }
};

// Words of `item` bytes, which are the elements or the halves of complex ones.
struct FlagArgs {
  Groups words;
  int item = 1;
  bool swap = false, conjugate = false;  // conjugate: the sign of every second word
  bool negate = false, integers = false;
};
struct FlagBody {
  using Args = FlagArgs;
  static constexpr int kPhases = 1, kBlocksEach = 6;
  struct Shared {};

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared&, int64_t unit, int thread) {
    switch (args.item) {
      case 1:
        return of_item<1>(args, unit, thread);
      case 2:
        return of_item<2>(args, unit, thread);
      case 4:
        return of_item<4>(args, unit, thread);
      default:
        return of_item<8>(args, unit, thread);
    }
  }

 private:
  template <int kItem>
  UCKPT_ANYWHERE static uint64_t flagged(const Args& args, uint64_t x, bool second) {
    constexpr uint64_t kSign = uint64_t{1} << (8 * kItem - 1);
    uint64_t out = x;
    if (args.swap) {
      out = 0;
      UCKPT_UNROLL
      for (int i = 0; i < kItem; ++i) out |= (x >> (8 * i) & 0xff) << (8 * (kItem - 1 - i));
    }
    if (args.conjugate && second) out ^= kSign;
    if (args.negate) out = args.integers ? (0 - out) & (kSign | (kSign - 1)) : out ^ kSign;
    return out;
  }
  template <int kItem>
  UCKPT_ANYWHERE static void of_item(const Args& args, int64_t unit, int thread) {
    const auto whole = [&](int64_t first) {
      uint8_t* const p = args.words.data + first * kItem;
      const Bits<kVector> x = load_bits<kVector>(p);
      Bits<kVector> out;
      UCKPT_UNROLL
      for (int e = 0; e < kVector / kItem; ++e)
        out.template put<kItem>(e, flagged<kItem>(args, x.template get<kItem>(e), (first + e) & 1));
      store_bits(p, out);
    };
    const auto one = [&](int64_t e) {
      uint8_t* const p = args.words.data + e * kItem;
      store_bytes<kItem>(p, static_cast<Word<kItem>>(flagged<kItem>(args, load_bytes<kItem>(p), e & 1)));
    };
    for_groups<kItem>(args.words, unit, thread, whole, one);
  }
};

struct CompareArgs {
  const uint8_t *wide = nullptr, *narrow = nullptr;
  int64_t count = 0;  // words: of a type of 16 bytes two are an element
  Result* result = nullptr;
  uint64_t infinity = 0;       // magnitudes above are NaNs, all equal; all ones: there are none
  int item = 1;                // bytes of a word
  int words = 1;               // of an element
  DType rounded = DType::kU8;  // f16 or bf16: `wide` is f32 and rounded to it first
};
struct CompareBody {
  using Args = CompareArgs;
  static constexpr int kPhases = 3, kBlocksEach = 6;
  struct Shared {
    uint32_t count, first;  // of elements of the unit; ~ the first one's number in it
  };

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared& shared, int64_t unit, int thread) {
    if constexpr (kPhase == 0) {
      if (thread == 0) shared.count = 0, shared.first = 0;
    } else if constexpr (kPhase == 1) {
      if (args.rounded == DType::kBF16) return count<4, 2, BFloat>(args, shared, unit, thread);
      if (args.rounded == DType::kF16) return count<4, 2, Half>(args, shared, unit, thread);
      switch (args.item) {
        case 1:
          return count<1, 1, void>(args, shared, unit, thread);
        case 2:
          return count<2, 2, void>(args, shared, unit, thread);
        case 4:
          return count<4, 4, void>(args, shared, unit, thread);
        default:
          return count<8, 8, void>(args, shared, unit, thread);
      }
    } else if (thread == 0 && shared.count != 0) {
      const int64_t begin = unit * (kGroupsEach * kThreads * (kVector / args.item)) / args.words;
      atomic_add(&args.result->sum, uint64_t{shared.count});
      atomic_max(&args.result->first, ~(static_cast<uint64_t>(begin) + static_cast<uint32_t>(~shared.first)));
    }
  }

 private:
  template <class Format>
  UCKPT_ANYWHERE static bool differ(const Args& args, uint64_t wide, uint64_t narrow) {
    uint64_t x = wide, magnitudes = (uint64_t{1} << (8 * args.item - 1)) - 1;
    if constexpr (!std::is_void_v<Format>) {
      x = narrowed<Format>(std::bit_cast<float>(static_cast<uint32_t>(wide)));
      magnitudes = 0x7fff;
    }
    return x != narrow && !((x & magnitudes) > args.infinity && (narrow & magnitudes) > args.infinity);
  }

  template <int kWide, int kNarrow, class Format>
  UCKPT_ANYWHERE static void count(const Args& args, Shared& shared, int64_t unit, int thread) {
    constexpr int kEach = kVector / kWide;
    const int64_t words = args.words;
    uint32_t different = 0, first = 0;
    UCKPT_UNROLL
    for (int j = 0; j < kGroupsEach; ++j) {
      const int group = j * kThreads + thread;
      const int64_t low = (unit * (kGroupsEach * kThreads) + group) * kEach;
      if (low >= args.count) break;
      // The first differing word of each element is told by the bits of these.
      uint32_t unlike = 0;
      if (low + kEach <= args.count) {
        const Bits<kVector> a = load_bits<kVector>(args.wide + low * kWide);
        const Bits<kEach* kNarrow> b = load_bits<kEach * kNarrow>(args.narrow + low * kNarrow);
        if constexpr (kWide == kNarrow)
          if (a.word[0] == b.word[0] && a.word[1] == b.word[1]) continue;
        UCKPT_UNROLL
        for (int e = 0; e < kEach; ++e)
          unlike |= static_cast<uint32_t>(
                        differ<Format>(args, a.template get<kWide>(e), b.template get<kNarrow>(e)))
                    << e;
      } else {
        for (int e = 0; low + e < args.count; ++e)
          unlike |=
              static_cast<uint32_t>(differ<Format>(args, load_bytes<kWide>(args.wide + (low + e) * kWide),
                                                   load_bytes<kNarrow>(args.narrow + (low + e) * kNarrow)))
              << e;
      }
      if (words == 2) unlike = (unlike | unlike >> 1) & 1;
      for (int e = 0; e < kEach; ++e) {
        if ((unlike >> e & 1) == 0) continue;
        ++different;
        const auto at = static_cast<uint32_t>(group * kEach / static_cast<int>(words) + e);
        if (~at > first) first = ~at;
      }
    }
    if (different == 0) return;
    atomic_add(&shared.count, different);
    atomic_max(&shared.first, first);
  }
};

}  // namespace uckpt::kernels::cuda
