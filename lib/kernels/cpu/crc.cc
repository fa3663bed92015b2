// CRC-32 by libdeflate; CRC-64 by folding with carry-less multiplication.
//
// Folding: in the reflected form a carry-less product of two 64-bit words stands for A·B·x, so a block of 16
// bytes (first 8 bytes L, last 8 bytes H) is carried n bits further by L·x^(n+63) + H·x^(n-1), reduced
// constants on the right, 128 bits wide. Several blocks are kept in flight; at the end they are folded into
// one, which is reduced byte by byte with a table.

#include "lib/kernels/crc.h"

#include <libdeflate.h>

#include <array>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/crc.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#ifndef UCKPT_CRC_TABLE
#define UCKPT_CRC_TABLE
namespace uckpt::kernels {
namespace {

constexpr std::array<uint64_t, 256> make_table() {
  std::array<uint64_t, 256> table{};
  for (uint64_t i = 0; i < 256; ++i) {
    uint64_t w = i;
    for (int k = 0; k < 8; ++k) w = Crc64::times_x(w);
    table[i] = w;
  }
  return table;
}

constexpr std::array<uint64_t, 256> kTable = make_table();

uint64_t crc64_bytes(uint64_t raw, const uint8_t* p, size_t n) {
  for (size_t i = 0; i < n; ++i) raw = kTable[(raw ^ p[i]) & 0xff] ^ (raw >> 8);
  return raw;
}

}  // namespace
}  // namespace uckpt::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

uint64_t Crc64Fold(const uint8_t* p, size_t n) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return crc64_bytes(0, p, n);
#else
  const hn::ScalableTag<uint64_t> d;
  using V = decltype(hn::Zero(d));
  constexpr size_t kChains = 4;
  const size_t vector_bytes = hn::Lanes(d) * sizeof(uint64_t);
  const size_t stride = kChains * vector_bytes;
  if (n < 2 * stride) return crc64_bytes(0, p, n);

  HWY_ALIGN uint64_t constants[hn::MaxLanes(d)];
  static const uint64_t kFirst = Crc64::power(stride * 8 + 63), kSecond = Crc64::power(stride * 8 - 1);
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
  HWY_ALIGN uint64_t state[kChains * hn::MaxLanes(d)];
  hn::Store(a, d, state);
  hn::Store(b, d, state + hn::Lanes(d));
  hn::Store(c, d, state + 2 * hn::Lanes(d));
  hn::Store(e, d, state + 3 * hn::Lanes(d));
  // The chains into one block, and that over the blocks that are left.
  const hn::FixedTag<uint64_t, 2> one;
  HWY_ALIGN static const uint64_t kNext[2] = {Crc64::power(128 + 63), Crc64::power(128 - 1)};
  const auto next_k = hn::Load(one, kNext);
  const auto fold_block = [&](auto x, auto next) HWY_ATTR {
    return hn::Xor(hn::Xor(hn::CLMulLower(x, next_k), hn::CLMulUpper(x, next_k)), next);
  };
  auto block = hn::Load(one, state);
  for (size_t i = 2; i < stride / 8; i += 2) block = fold_block(block, hn::Load(one, state + i));
  for (; done + 16 <= n; done += 16)
    block = fold_block(block, hn::BitCast(one, hn::LoadU(hn::FixedTag<uint8_t, 16>(), p + done)));
  HWY_ALIGN uint64_t words[2];
  hn::Store(block, one, words);
  uint8_t bytes[sizeof words];
  std::memcpy(bytes, words, sizeof words);
  return crc64_bytes(crc64_bytes(0, bytes, sizeof bytes), p + done, n - done);
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(Crc64Fold);

uint64_t crc64_raw(std::span<const uint8_t> bytes) {
  return HWY_DYNAMIC_DISPATCH(Crc64Fold)(bytes.data(), bytes.size());
}

uint32_t crc32_raw(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return 0;  // libdeflate takes a null pointer for "begin"
  // It inverts on the way in and out; undo both.
  return ~libdeflate_crc32(0xffffffffu, bytes.data(), bytes.size());
}

}  // namespace uckpt::kernels
#endif
