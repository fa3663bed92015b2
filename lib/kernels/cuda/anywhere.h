// What the kernels' bodies are written in: C++ that a thread of a device and a thread of the host run alike.
//
// A body is a struct with `Args`, `Shared` (what the threads of a block share), `kPhases` and
//   template <int kPhase> static void run(const Args&, Shared&, int64_t unit, int thread)
// for one of `kThreads` threads. Units are independent of each other; within a unit no thread begins a phase
// before all have ended the one before, and nothing but `Shared` is carried from phase to phase. No header of
// CUDA is needed here.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__CUDACC__)
#define UCKPT_ANYWHERE __host__ __device__ __forceinline__
#else
#define UCKPT_ANYWHERE inline
#endif
#if defined(__CUDA_ARCH__)
#define UCKPT_UNROLL _Pragma("unroll")
#define UCKPT_LOOP _Pragma("unroll 1")
#else
#define UCKPT_UNROLL
#define UCKPT_LOOP
#endif

namespace uckpt::kernels::cuda {

inline constexpr int kThreads = 256;
inline constexpr int kVector = 16;  // bytes of the widest access

UCKPT_ANYWHERE uint64_t address_of(const void* p) { return reinterpret_cast<uint64_t>(p); }

struct alignas(kVector) Vector {
  uint64_t low = 0, high = 0;
};

// At an address that suits T: a device traps where it does not, and so does the host.
template <class T>
UCKPT_ANYWHERE T load(const uint8_t* p) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const T*>(p);
#else
  if (address_of(p) % alignof(T) != 0) std::abort();
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
#endif
}
template <class T>
UCKPT_ANYWHERE void store(uint8_t* p, T x) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<T*>(p) = x;
#else
  if (address_of(p) % alignof(T) != 0) std::abort();
  std::memcpy(p, &x, sizeof x);
#endif
}

// Words by their size.
template <int kBytes>
struct WordOf;
template <>
struct WordOf<1> {
  using Type = uint8_t;
};
template <>
struct WordOf<2> {
  using Type = uint16_t;
};
template <>
struct WordOf<4> {
  using Type = uint32_t;
};
template <>
struct WordOf<8> {
  using Type = uint64_t;
};
template <>
struct WordOf<16> {
  using Type = Vector;
};
template <int kBytes>
using Word = typename WordOf<kBytes>::Type;

// A word, little-endian, at any address.
template <int kBytes>
UCKPT_ANYWHERE Word<kBytes> load_bytes(const uint8_t* p) {
  uint64_t x = 0;
  for (int i = 0; i < kBytes; ++i) x |= uint64_t{p[i]} << (8 * i);
  return static_cast<Word<kBytes>>(x);
}
template <int kBytes>
UCKPT_ANYWHERE void store_bytes(uint8_t* p, Word<kBytes> x) {
  for (int i = 0; i < kBytes; ++i) p[i] = static_cast<uint8_t>(uint64_t{x} >> (8 * i));
}

// The 16 bytes from byte `shift` of two vectors on.
UCKPT_ANYWHERE Vector joined(Vector a, Vector b, uint32_t shift) {
  const uint64_t x = shift < 8 ? a.low : a.high, y = shift < 8 ? a.high : b.low,
                 z = shift < 8 ? b.low : b.high;
  const uint32_t bits = 8 * (shift & 7);
  // Twice, since a shift by 64 is none.
  return {x >> bits | y << 1 << (63 - bits), y >> bits | z << 1 << (63 - bits)};
}

// 16 bytes at any address, by whole vectors: bytes around them are read, but none of another 16-byte line.
UCKPT_ANYWHERE Vector load_vector(const uint8_t* p) {
  const uint32_t shift = address_of(p) % kVector;
  if (shift == 0) return load<Vector>(p);
  return joined(load<Vector>(p - shift), load<Vector>(p - shift + kVector), shift);
}
// The same, of which only those in [first, last) are wanted: a vector without any of them is not read.
UCKPT_ANYWHERE Vector load_part(const uint8_t* p, const uint8_t* first, const uint8_t* last) {
  const uint32_t shift = address_of(p) % kVector;
  const uint8_t *const a = p - shift, *const b = a + kVector;
  const auto wanted = [=](const uint8_t* at) {
    return address_of(at) + kVector > address_of(first) && address_of(at) < address_of(last);
  };
  const Vector low = wanted(a) ? load<Vector>(a) : Vector{};
  return shift == 0 ? low : joined(low, wanted(b) ? load<Vector>(b) : Vector{}, shift);
}

// Up to 16 bytes as elements, the first in the lowest bits. With constant indices they stay in registers.
template <int kBytes>
struct Bits {
  uint64_t word[kBytes > 8 ? 2 : 1] = {};

  template <int kItem>
  UCKPT_ANYWHERE uint64_t get(int i) const {
    const uint64_t w = word[i * kItem / 8];
    if constexpr (kItem == 8)
      return w;
    else
      return w >> (8 * (i * kItem % 8)) & ((uint64_t{1} << (8 * kItem)) - 1);
  }
  template <int kItem>
  UCKPT_ANYWHERE void put(int i, uint64_t x) {  // where zeros are
    word[i * kItem / 8] |= x << (8 * (i * kItem % 8));
  }
};

// At any address; what a vector or word around them holds is read.
template <int kBytes>
UCKPT_ANYWHERE Bits<kBytes> load_bits(const uint8_t* p) {
  Bits<kBytes> out;
  if constexpr (kBytes == kVector) {
    const Vector v = load_vector(p);
    out.word[0] = v.low, out.word[1] = v.high;
  } else {
    using W = Word<kBytes>;
    const uint32_t shift = address_of(p) % kBytes;
    if (shift == 0) {
      out.word[0] = load<W>(p);
    } else {
      const uint64_t a = load<W>(p - shift), b = load<W>(p - shift + kBytes);
      out.word[0] = static_cast<W>(a >> (8 * shift) | b << (8 * (kBytes - shift)));
    }
  }
  return out;
}
template <int kBytes>
UCKPT_ANYWHERE void store_bits(uint8_t* p, const Bits<kBytes>& x) {  // at a multiple of kBytes
  if constexpr (kBytes == kVector)
    store(p, Vector{x.word[0], x.word[1]});
  else
    store(p, static_cast<Word<kBytes>>(x.word[0]));
}

// Division of numbers under 2^31 by a divisor from 1 to 2^31, by one multiplication.
struct Divider {
  uint32_t multiplier = uint32_t{1} << 31, shift = 0;
};
inline Divider divider_of(uint32_t divisor) {
  uint32_t shift = 0;
  while ((uint64_t{1} << shift) < divisor) ++shift;
  return {static_cast<uint32_t>(((uint64_t{1} << (31 + shift)) + divisor - 1) / divisor), shift};
}
UCKPT_ANYWHERE uint32_t quotient(uint32_t n, Divider by) {
  return static_cast<uint32_t>(uint64_t{2 * n} * by.multiplier >> 32) >> by.shift;
}

// Among the threads of a device; the host runs them one after the other.
UCKPT_ANYWHERE void atomic_add(uint32_t* to, uint32_t x) {
#if defined(__CUDA_ARCH__)
  atomicAdd(to, x);
#else
  *to += x;
#endif
}
UCKPT_ANYWHERE void atomic_add(uint64_t* to, uint64_t x) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(x));
#else
  *to += x;
#endif
}
UCKPT_ANYWHERE void atomic_max(uint32_t* to, uint32_t x) {
#if defined(__CUDA_ARCH__)
  atomicMax(to, x);
#else
  if (x > *to) *to = x;
#endif
}
UCKPT_ANYWHERE void atomic_max(uint64_t* to, uint64_t x) {
#if defined(__CUDA_ARCH__)
  atomicMax(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(x));
#else
  if (x > *to) *to = x;
#endif
}
UCKPT_ANYWHERE void atomic_xor(uint64_t* to, uint64_t x) {
#if defined(__CUDA_ARCH__)
  atomicXor(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(x));
#else
  *to ^= x;
#endif
}

// What a kernel found; zeros are "nothing yet".
struct Result {
  uint64_t sum = 0;    // a CRC, or how many differ
  uint64_t first = 0;  // ~ the index of the first that differs
};

}  // namespace uckpt::kernels::cuda
