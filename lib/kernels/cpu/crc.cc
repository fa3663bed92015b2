// CRCs by folding with carry-less multiplication.
//
// Folding: in the reflected form a carry-less product of two 64-bit words stands for A·B·x, so a block of 16
// bytes (first 8 bytes L, last 8 bytes H) is carried n bits further by L·x^(n+63) + H·x^(n-1), reduced
// constants on the right, 128 bits wide. Several blocks are kept in flight; at the end they are folded into
// one, which is reduced with tables.

#include "lib/kernels/crc.h"

#include <array>
#include <cstring>
#include <type_traits>

#include "lib/base/bytes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/crc.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#ifndef UCKPT_CRC_TABLE
#define UCKPT_CRC_TABLE
namespace uckpt::kernels {
namespace {

template <class Field>
using WordOf = std::remove_const_t<decltype(Field::kOne)>;

// The raw CRC of a byte that so many zeros follow, for eight bytes at once.
template <class Field>
constexpr auto make_tables() {
  std::array<std::array<WordOf<Field>, 256>, 8> tables{};
  for (size_t i = 0; i < 256; ++i) {
    auto w = static_cast<WordOf<Field>>(i);
    for (int k = 0; k < 8; ++k) w = Field::times_x(w);
    tables[0][i] = w;
  }
  for (size_t zeros = 1; zeros < tables.size(); ++zeros)
    for (size_t i = 0; i < 256; ++i) {
      const WordOf<Field> before = tables[zeros - 1][i];
      tables[zeros][i] = tables[0][before & 0xff] ^ (before >> 8);
    }
  return tables;
}

template <class Field>
WordOf<Field> crc_of_bytes(WordOf<Field> raw, const uint8_t* p, size_t n) {
  static constexpr auto kTables = make_tables<Field>();
  for (; n >= 8; n -= 8, p += 8) {
    const uint64_t w = load_le<uint64_t>(p) ^ raw;
    raw = 0;
    for (size_t i = 0; i < 8; ++i) raw ^= kTables[7 - i][(w >> (8 * i)) & 0xff];
  }
  for (size_t i = 0; i < n; ++i) raw = kTables[0][(raw ^ p[i]) & 0xff] ^ (raw >> 8);
  return raw;
}

// A block of 16 bytes and what follows it.
template <class Field>
WordOf<Field> crc_of_block(const void* block, const uint8_t* p, size_t n) {
  uint8_t bytes[16];
  std::memcpy(bytes, block, sizeof bytes);
  return crc_of_bytes<Field>(crc_of_bytes<Field>(0, bytes, sizeof bytes), p, n);
}

// x to the power n, reflected, in 64 bits.
template <class Field>
uint64_t wide_power(uint64_t n) {
  return static_cast<uint64_t>(Field::power(n)) << (64 - Field::kBits);
}

}  // namespace
}  // namespace uckpt::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
template <class Field>
WordOf<Field> Fold(const uint8_t* p, size_t n) {
  return crc_of_bytes<Field>(0, p, n);
}
#else
using Block = hn::FixedTag<uint64_t, 2>;

// A block of 16 bytes, carried over the whole blocks of those that follow it.
template <class Field>
hn::Vec<Block> CarryOver(hn::Vec<Block> block, const uint8_t* p, size_t n) {
  const Block d;
  HWY_ALIGN static const uint64_t kNext[2] = {wide_power<Field>(128 + 63), wide_power<Field>(128 - 1)};
  const auto k = hn::Load(d, kNext);
  for (; n >= 16; n -= 16, p += 16) {
    const auto next = hn::BitCast(d, hn::LoadU(hn::FixedTag<uint8_t, 16>(), p));
    block = hn::Xor(hn::Xor(hn::CLMulLower(block, k), hn::CLMulUpper(block, k)), next);
  }
  return block;
}

// The CRC of a block and all that follows it.
template <class Field>
WordOf<Field> FoldOne(hn::Vec<Block> block, const uint8_t* p, size_t n) {
  HWY_ALIGN uint64_t words[2];
  hn::Store(CarryOver<Field>(block, p, n), Block(), words);
  return crc_of_block<Field>(words, p + n - n % 16, n % 16);
}

// Four vectors in flight: as many bytes at least.
template <class Field, class D>
WordOf<Field> FoldFour(D d, const uint8_t* p, size_t n) {
  using V = decltype(hn::Zero(d));
  constexpr size_t kChains = 4;
  const size_t vector_bytes = hn::Lanes(d) * sizeof(uint64_t);
  const size_t stride = kChains * vector_bytes;
  HWY_ALIGN uint64_t constants[hn::MaxLanes(d)];
  static const uint64_t kFirst = wide_power<Field>(stride * 8 + 63),
                        kSecond = wide_power<Field>(stride * 8 - 1);
  for (size_t i = 0; i < hn::Lanes(d); i += 2) constants[i] = kFirst, constants[i + 1] = kSecond;
  const V k = hn::Load(d, constants);
  const auto load = [&](const uint8_t* at) {
    return hn::BitCast(d, hn::LoadU(hn::Repartition<uint8_t, decltype(d)>(), at));
  };

  V a = load(p), b = load(p + vector_bytes), c = load(p + 2 * vector_bytes), e = load(p + 3 * vector_bytes);
  size_t done = stride;
  const auto fold = [&](V x, V next) {
    return hn::Xor(hn::Xor(hn::CLMulLower(x, k), hn::CLMulUpper(x, k)), next);
  };
  for (; done + stride <= n; done += stride) {
    const uint8_t* q = p + done;
    a = fold(a, load(q));
    b = fold(b, load(q + vector_bytes));
    c = fold(c, load(q + 2 * vector_bytes));
    e = fold(e, load(q + 3 * vector_bytes));
  }
  // The chains into one block, and that over what is left.
  HWY_ALIGN uint64_t state[kChains * hn::MaxLanes(d)];
  hn::Store(a, d, state);
  hn::Store(b, d, state + hn::Lanes(d));
  hn::Store(c, d, state + 2 * hn::Lanes(d));
  hn::Store(e, d, state + 3 * hn::Lanes(d));
  const auto block =
      CarryOver<Field>(hn::Load(Block(), state), reinterpret_cast<const uint8_t*>(state + 2), stride - 16);
  return FoldOne<Field>(block, p + done, n - done);
}

// Short runs are many where a tensor is transposed: of 32 bytes on, a table of bytes is slower. Vectors of
// more than 256 bits have their products one block at a time.
template <class Field>
WordOf<Field> Fold(const uint8_t* p, size_t n) {
  const hn::CappedTag<uint64_t, 4> wide;
  const Block one;
  if (n >= 8 * hn::Lanes(wide) * sizeof(uint64_t)) return FoldFour<Field>(wide, p, n);
  if (n >= 128) return FoldFour<Field>(one, p, n);
  if (n < 32) return crc_of_bytes<Field>(0, p, n);
  return FoldOne<Field>(hn::BitCast(one, hn::LoadU(hn::FixedTag<uint8_t, 16>(), p)), p + 16, n - 16);
}
#endif

uint32_t Fold32(const uint8_t* p, size_t n) { return Fold<Crc32>(p, n); }
uint64_t Fold64(const uint8_t* p, size_t n) { return Fold<Crc64>(p, n); }
// Bits of the vectors that Highway has chosen, where its carry-less products are narrower: it has wide ones
// in AVX3_DL only.
int VectorsBeyondProducts() { return HWY_TARGET == HWY_AVX2 ? 256 : HWY_TARGET == HWY_AVX3 ? 512 : 0; }

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#if HWY_ARCH_X86_64
#include <immintrin.h>
#endif

namespace uckpt::kernels {

HWY_EXPORT(Fold32);
HWY_EXPORT(Fold64);
HWY_EXPORT(VectorsBeyondProducts);

namespace {

#if HWY_ARCH_X86_64
// Wider products than Highway has them.
constexpr size_t kChains = 8, kFewestForWide = 1024;

// Bits of the widest products that there are: 512, 256, or 0 for none of these.
int wide_products() {
  static const bool cpu_has = __builtin_cpu_supports("vpclmulqdq");
  return cpu_has ? HWY_DYNAMIC_DISPATCH(VectorsBeyondProducts)() : 0;
}

// What carries a block `bytes` further.
template <class Field>
struct Carry {
  explicit Carry(size_t bytes)
      : first(static_cast<long long>(wide_power<Field>(bytes * 8 + 63))),
        second(static_cast<long long>(wide_power<Field>(bytes * 8 - 1))) {}
  long long first, second;
};

#define UCKPT_WITH(features) __attribute__((target(features))) inline

UCKPT_WITH("sse2") __m128i load_128(const void* at) {
  return _mm_loadu_si128(static_cast<const __m128i*>(at));
}
UCKPT_WITH("avx2") __m256i load_256(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}
UCKPT_WITH("avx512f") __m512i load_512(const void* at) { return _mm512_loadu_si512(at); }

// Each block is carried as far as `by` says, and added to what is there.
UCKPT_WITH("pclmul") __m128i fold(__m128i x, __m128i by, __m128i into) {
  return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, by, 0x00), _mm_clmulepi64_si128(x, by, 0x11)),
                       into);
}
UCKPT_WITH("avx2,vpclmulqdq") __m256i fold(__m256i x, __m256i by, __m256i into) {
  return _mm256_xor_si256(
      _mm256_xor_si256(_mm256_clmulepi64_epi128(x, by, 0x00), _mm256_clmulepi64_epi128(x, by, 0x11)), into);
}
UCKPT_WITH("avx512f,vpclmulqdq") __m512i fold(__m512i x, __m512i by, __m512i into) {
  constexpr int kXorOfThree = 0x96;
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, by, 0x00),
                                   _mm512_clmulepi64_epi128(x, by, 0x11), into, kXorOfThree);
}

// The CRC of blocks in a row, and of the `n` bytes that follow them.
template <class Field>
UCKPT_WITH("pclmul")
WordOf<Field> fold_blocks(const __m128i* blocks, size_t count, const uint8_t* p, size_t n) {
  static const Carry<Field> kNext(16);
  const __m128i next = _mm_set_epi64x(kNext.second, kNext.first);
  __m128i block = blocks[0];
  for (size_t b = 1; b < count; ++b) block = fold(block, next, blocks[b]);
  for (; n >= 16; n -= 16, p += 16) block = fold(block, next, load_128(p));
  return crc_of_block<Field>(&block, p, n);
}

template <class Field>
UCKPT_WITH("avx2,vpclmulqdq")
WordOf<Field> fold_256(const uint8_t* p, size_t n) {
  constexpr size_t kVector = sizeof(__m256i), kStride = kChains * kVector;
  static const Carry<Field> kFar(kStride), kNext(kVector);
  const __m256i far = _mm256_set_epi64x(kFar.second, kFar.first, kFar.second, kFar.first);
  const __m256i next = _mm256_set_epi64x(kNext.second, kNext.first, kNext.second, kNext.first);
  __m256i chain[kChains];
  for (size_t c = 0; c < kChains; ++c) chain[c] = load_256(p + c * kVector);
  for (p += kStride, n -= kStride; n >= kStride; p += kStride, n -= kStride)
    for (size_t c = 0; c < kChains; ++c) chain[c] = fold(chain[c], far, load_256(p + c * kVector));
  __m256i last = chain[0];
  for (size_t c = 1; c < kChains; ++c) last = fold(last, next, chain[c]);
  for (; n >= kVector; p += kVector, n -= kVector) last = fold(last, next, load_256(p));
  __m128i blocks[kVector / sizeof(__m128i)];
  std::memcpy(blocks, &last, sizeof blocks);
  return fold_blocks<Field>(blocks, std::size(blocks), p, n);
}

template <class Field>
UCKPT_WITH("avx512f,vpclmulqdq")
WordOf<Field> fold_512(const uint8_t* p, size_t n) {
  constexpr size_t kVector = sizeof(__m512i), kStride = kChains * kVector;
  static const Carry<Field> kFar(kStride), kNext(kVector);
  const __m512i far = _mm512_set4_epi64(kFar.second, kFar.first, kFar.second, kFar.first);
  const __m512i next = _mm512_set4_epi64(kNext.second, kNext.first, kNext.second, kNext.first);
  __m512i chain[kChains];
  for (size_t c = 0; c < kChains; ++c) chain[c] = load_512(p + c * kVector);
  for (p += kStride, n -= kStride; n >= kStride; p += kStride, n -= kStride)
    for (size_t c = 0; c < kChains; ++c) chain[c] = fold(chain[c], far, load_512(p + c * kVector));
  __m512i last = chain[0];
  for (size_t c = 1; c < kChains; ++c) last = fold(last, next, chain[c]);
  for (; n >= kVector; p += kVector, n -= kVector) last = fold(last, next, load_512(p));
  __m128i blocks[kVector / sizeof(__m128i)];
  std::memcpy(blocks, &last, sizeof blocks);
  return fold_blocks<Field>(blocks, std::size(blocks), p, n);
}

template <class Field>
WordOf<Field> fold_wide(const uint8_t* p, size_t n, int bits) {
  return bits == 512 ? fold_512<Field>(p, n) : fold_256<Field>(p, n);
}
#undef UCKPT_WITH
#else
constexpr size_t kFewestForWide = SIZE_MAX;
int wide_products() { return 0; }
template <class Field>
WordOf<Field> fold_wide(const uint8_t*, size_t, int) {
  return 0;
}
#endif

}  // namespace

uint32_t crc32_raw(std::span<const uint8_t> bytes) {
  const int wide = bytes.size() >= kFewestForWide ? wide_products() : 0;
  if (wide > 0) return fold_wide<Crc32>(bytes.data(), bytes.size(), wide);
  return HWY_DYNAMIC_DISPATCH(Fold32)(bytes.data(), bytes.size());
}

uint64_t crc64_raw(std::span<const uint8_t> bytes) {
  const int wide = bytes.size() >= kFewestForWide ? wide_products() : 0;
  if (wide > 0) return fold_wide<Crc64>(bytes.data(), bytes.size(), wide);
  return HWY_DYNAMIC_DISPATCH(Fold64)(bytes.data(), bytes.size());
}

}  // namespace uckpt::kernels
#endif
