// Casts, flat or of boxes.
#pragma once

#include "lib/kernels/cuda/boxes.h"
#include "lib/kernels/cuda/numbers.h"

namespace uckpt::kernels::cuda {

// How each type is read and written, as floats but f64; bits in the lower ones of a word.
struct Double {
  static constexpr int kItem = 8;
  UCKPT_ANYWHERE static double read(uint64_t bits) { return std::bit_cast<double>(bits); }
  UCKPT_ANYWHERE static uint64_t write(double x) { return std::bit_cast<uint64_t>(x); }
  UCKPT_ANYWHERE static uint64_t write(float x) { return write(to_double(x)); }
};
struct Single {
  static constexpr int kItem = 4;
  UCKPT_ANYWHERE static float read(uint64_t bits) {
    return std::bit_cast<float>(static_cast<uint32_t>(bits));
  }
  UCKPT_ANYWHERE static uint64_t write(float x) { return std::bit_cast<uint32_t>(x); }
  UCKPT_ANYWHERE static uint64_t write(double x) { return write(to_float(x)); }
};
template <class Format>
struct Coded {
  using Stored = typename Format::Stored;
  static constexpr int kItem = sizeof(Stored);
  UCKPT_ANYWHERE static float read(uint64_t bits) { return widened<Format>(static_cast<Stored>(bits)); }
  UCKPT_ANYWHERE static uint64_t write(float x) { return narrowed<Format>(x); }
  UCKPT_ANYWHERE static uint64_t write(double x) { return narrow<Format>(x); }
};

// Between two types, one value at a time.
template <class From, class To>
struct Recode {
  static constexpr int kIn = From::kItem, kOut = To::kItem;
  UCKPT_ANYWHERE static uint64_t of(uint64_t bits, const uint32_t*) { return To::write(From::read(bits)); }
};
// From a type of 8 bits, by a table of what each code becomes: the lower halves, then the upper ones.
template <int kOut_>
struct LookUp {
  static constexpr int kIn = 1, kOut = kOut_;
  UCKPT_ANYWHERE static uint64_t of(uint64_t bits, const uint32_t* table) {
    return kOut == 8 ? table[bits] | uint64_t{table[bits + 256]} << 32 : table[bits];
  }
};

// At any address.
template <class Change>
UCKPT_ANYWHERE void cast_one(uint8_t* to, const uint8_t* from, const uint32_t* table) {
  constexpr int kIn = Change::kIn, kOut = Change::kOut;
  const uint64_t bits = address_of(from) % kIn == 0 ? load<Word<kIn>>(from) : load_bytes<kIn>(from);
  const auto out = static_cast<Word<kOut>>(Change::of(bits, table));
  if (address_of(to) % kOut == 0)
    store(to, out);
  else
    store_bytes<kOut>(to, out);
}

template <class Change>
UCKPT_ANYWHERE void cast_groups(const Box& box, uint32_t unit, int thread, const uint32_t* table) {
  constexpr int kIn = Change::kIn, kOut = Change::kOut, kEach = kVector / (kIn > kOut ? kIn : kOut),
                kGroups = kPartsEach;
  Bits<kEach * kIn> value[kGroups];
  uint8_t* to[kGroups];
  UCKPT_UNROLL
  for (int j = 0; j < kGroups; ++j) {
    const uint32_t k = (unit * kGroups + static_cast<uint32_t>(j)) * kThreads + static_cast<uint32_t>(thread);
    to[j] = nullptr;
    if (k >= box.total) continue;
    const uint32_t run = quotient(k, box.by_parts), part = k - run * box.parts;
    const Places at = places_of(box, box.steps, run);
    uint8_t* const dst = box.dst + at.dst;
    const uint8_t* const src = box.src + at.src;
    // Of a vector in the destination; where elements do not lie at multiples of their size, no group is. A
    // run of one element has one part, whichever vector it lies in.
    const auto lead = static_cast<int64_t>(box.run == 1 ? kEach * kOut : address_of(dst) % (kEach * kOut));
    const int64_t low = box.run == 1 ? 0 : int64_t{part} * kEach - lead / kOut, high = low + kEach;
    if (lead % kOut == 0 && low >= 0 && high <= box.run) {
      to[j] = dst + low * kOut;
      value[j] = load_bits<kEach * kIn>(src + low * kIn);
      continue;
    }
    UCKPT_LOOP
    for (int64_t e = low < 0 ? 0 : low; e < high && e < box.run; ++e)
      cast_one<Change>(dst + e * kOut, src + e * kIn, table);
  }
  UCKPT_UNROLL
  for (int j = 0; j < kGroups; ++j) {
    if (to[j] == nullptr) continue;
    Bits<kEach * kOut> out;
    UCKPT_UNROLL
    for (int e = 0; e < kEach; ++e)
      out.template put<kOut>(e, Change::of(value[j].template get<kIn>(e), table));
    store_bits(to[j], out);
  }
}

struct CastBody {
  using Args = Boxes;
  static constexpr int kPhases = 2, kBlocksEach = 4;
  struct Shared {
    uint32_t table[512];
  };
  static_assert(kThreads == 256);

  template <int kPhase>
  UCKPT_ANYWHERE static void run(const Args& args, Shared& shared, int64_t unit, int thread) {
    const int b = box_of_unit(args, static_cast<uint32_t>(unit));
    const Box& box = args.box[b];
    if constexpr (kPhase == 0) {
      const auto code = static_cast<uint64_t>(thread);
      const auto enter = [&](uint64_t bits) {
        shared.table[thread] = static_cast<uint32_t>(bits);
        shared.table[thread + 256] = static_cast<uint32_t>(bits >> 32);
      };
      if (box.src_dtype == DType::kF8E4M3)
        to_any(box.dst_dtype, [&](auto to) { enter(Recode<Coded<E4M3>, decltype(to)>::of(code, nullptr)); });
      else if (box.src_dtype == DType::kF8E5M2)
        to_any(box.dst_dtype, [&](auto to) { enter(Recode<Coded<E5M2>, decltype(to)>::of(code, nullptr)); });
    } else {
      const uint32_t u = static_cast<uint32_t>(unit) - args.first_unit[b];
      switch (box.src_dtype) {
        case DType::kF64:
          return from<Double>(box, u, thread);
        case DType::kF32:
          return from<Single>(box, u, thread);
        case DType::kF16:
          return from<Coded<Half>>(box, u, thread);
        case DType::kBF16:
          return from<Coded<BFloat>>(box, u, thread);
        default:
          return look_up(box, u, thread, shared.table);
      }
    }
  }

 private:
  template <class Function>
  UCKPT_ANYWHERE static void to_any(DType dtype, const Function& function) {
    switch (dtype) {
      case DType::kF64:
        return function(Double());
      case DType::kF32:
        return function(Single());
      case DType::kF16:
        return function(Coded<Half>());
      case DType::kBF16:
        return function(Coded<BFloat>());
      case DType::kF8E4M3:
        return function(Coded<E4M3>());
      default:
        return function(Coded<E5M2>());
    }
  }
  template <class From>
  UCKPT_ANYWHERE static void from(const Box& box, uint32_t unit, int thread) {
    to_any(box.dst_dtype, [&](auto to) {
      if constexpr (!std::is_same_v<From, decltype(to)>)  // which would be a copy
        cast_groups<Recode<From, decltype(to)>>(box, unit, thread, nullptr);
    });
  }
  UCKPT_ANYWHERE static void look_up(const Box& box, uint32_t unit, int thread, const uint32_t* table) {
    switch (box.dst_dtype) {
      case DType::kF64:
        return cast_groups<LookUp<8>>(box, unit, thread, table);
      case DType::kF32:
        return cast_groups<LookUp<4>>(box, unit, thread, table);
      case DType::kF16:
      case DType::kBF16:
        return cast_groups<LookUp<2>>(box, unit, thread, table);
      default:
        return cast_groups<LookUp<1>>(box, unit, thread, table);
    }
  }
};

}  // namespace uckpt::kernels::cuda
