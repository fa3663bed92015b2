// Transposes by tiles: a tile's rows are read whole into a buffer that stays in the first cache, whatever the
// strides (powers of two put all rows of a tile into one set of it), and leave it by blocks of 16 x 16 bytes
// turned in registers, as many at once as a register has room for.
#include "lib/kernels/cpu/transpose.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lib/kernels/cpu/transpose.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lib/kernels/cpu/unrolled-inl.h"

HWY_BEFORE_NAMESPACE();
namespace uckpt::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
constexpr int64_t kSide = 16 / static_cast<int64_t>(sizeof(T));  // of a block

template <class T>
HWY_INLINE T LoadItem(const uint8_t* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

#if HWY_TARGET == HWY_SCALAR
template <class T>
constexpr int64_t kDeep = kSide<T>;

template <class T>
void TurnBlock(const T* from, int64_t columns, uint8_t* to, int64_t dst_row) {
  for (int64_t i = 0; i < kSide<T>; ++i)
    for (int64_t k = 0; k < kSide<T>; ++k)
      std::memcpy(to + i * dst_row + k * static_cast<int64_t>(sizeof(T)), from + k * columns + i, sizeof(T));
}
#else
template <class T>
using Deep = hn::CappedTag<T, 64 / sizeof(T)>;
template <class T>
constexpr auto kDeep = static_cast<int64_t>(hn::MaxLanes(Deep<T>()));

// A vector whose blocks of 16 bytes are those at `from`, `from + step`, and so on.
template <class D>
HWY_INLINE hn::Vec<D> LoadBlocks(D d, const hn::TFromD<D>* HWY_RESTRICT from, int64_t step) {
  if constexpr (hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) == 16) {
    return hn::Load(d, from);
  } else {
    const hn::Half<D> half;
    constexpr auto kBlocks = static_cast<int64_t>(hn::MaxLanes(hn::Half<D>()) * sizeof(hn::TFromD<D>) / 16);
    const auto low = LoadBlocks(half, from, step);
    return hn::Combine(d, LoadBlocks(half, from + kBlocks * step, step), low);
  }
}

// The block at `from`, `kDeep` rows of `columns` items, into `kSide` rows `dst_row` bytes apart: each step of
// shuffling the upper half of the rows into the lower is one bit of the indices.
template <class T>
HWY_INLINE void TurnBlock(const T* HWY_RESTRICT from, int64_t columns, uint8_t* HWY_RESTRICT to,
                          int64_t dst_row) {
  constexpr int64_t n = kSide<T>;
  constexpr int64_t kBits = std::bit_width(static_cast<uint64_t>(n)) - 1;
  const Deep<T> d;
  const hn::Repartition<uint8_t, Deep<T>> bytes;
  hn::Vec<Deep<T>> rows[n], turned[n];
  Unrolled<n>([&](auto i) UCKPT_INLINE { rows[i] = LoadBlocks(d, from + i * columns, n * columns); });
  Unrolled<kBits>([&](auto) UCKPT_INLINE {
    Unrolled<n / 2>([&](auto i) UCKPT_INLINE {
      turned[2 * i] = hn::InterleaveLower(d, rows[i], rows[i + n / 2]);
      turned[2 * i + 1] = hn::InterleaveUpper(d, rows[i], rows[i + n / 2]);
    });
    Unrolled<n>([&](auto i) UCKPT_INLINE { rows[i] = turned[i]; });
  });
  Unrolled<n>([&](auto i) UCKPT_INLINE { hn::StoreU(hn::BitCast(bytes, rows[i]), bytes, to + i * dst_row); });
}
#endif

// One tile: at most `kTileRows<T>` rows and `kTileColumns<T>` columns of the plane's.
template <class T>
constexpr int64_t kTileRows = sizeof(T) == 1 ? 128 : 64;
template <class T>
constexpr int64_t kTileColumns = 16384 / static_cast<int64_t>(sizeof(T)) / kTileRows<T>;

template <class T>
void TransposeTile(uint8_t* HWY_RESTRICT dst, const uint8_t* HWY_RESTRICT src, const Plane p) {
  constexpr auto item = static_cast<int64_t>(sizeof(T));
  constexpr int64_t n = kSide<T>, m = kDeep<T>, kRows = kTileRows<T>, kColumns = kTileColumns<T>;
  HWY_ALIGN T tile[kRows * kColumns];
  HWY_ALIGN T edge[n * m];
  const int64_t c_full = p.columns / n * n, r_full = p.rows / m * m;
  for (int64_t r = 0; r < p.rows; ++r, src += p.src_row) {
    T* to = tile + r * kColumns;
    if (p.src_step != item)
      for (int64_t c = 0; c < p.columns; ++c) to[c] = LoadItem<T>(src + c * p.src_step);
    else if (p.columns == kColumns)
      std::memcpy(to, src, kColumns * sizeof(T));
    else
      std::memcpy(to, src, static_cast<size_t>(p.columns) * sizeof(T));
  }
  for (int64_t c = 0; c < c_full; c += n)
    for (int64_t r = 0; r < r_full; r += m)
      TurnBlock<T>(tile + r * kColumns + c, kColumns, dst + c * p.dst_row + r * item, p.dst_row);
  const auto turn_edge = [&](int64_t r, int64_t c) {
    TurnBlock<T>(tile + r * kColumns + c, kColumns, reinterpret_cast<uint8_t*>(edge), m * item);
    const auto bytes = static_cast<size_t>(std::min(m, p.rows - r)) * sizeof(T);
    for (int64_t i = 0; i < std::min(n, p.columns - c); ++i)
      std::memcpy(dst + (c + i) * p.dst_row + r * item, edge + i * m, bytes);
  };
  if (r_full < p.rows)
    for (int64_t c = 0; c < c_full; c += n) turn_edge(r_full, c);
  if (c_full < p.columns)
    for (int64_t r = 0; r < p.rows; r += m) turn_edge(r, c_full);
}

// `function` gets the first one and how many for every part of at most `size`.
template <class Function>
HWY_INLINE void ByParts(int64_t begin, int64_t end, int64_t size, const Function& function) {
  for (int64_t at = begin; at < end; at += size) function(at, std::min(size, end - at));
}

// The tiles of a block one after another: of its rows a page each is read whole before the next rows' pages
// are, which the processor's table of pages would have no room for.
template <class T>
void TransposeItems(uint8_t* HWY_RESTRICT dst, const uint8_t* HWY_RESTRICT src, const Plane& p) {
  constexpr auto item = static_cast<int64_t>(sizeof(T));
  constexpr int64_t kBlockRows = 512, kBlockColumns = 4096 / item;
  ByParts(0, p.columns, kBlockColumns, [&](int64_t block_c, int64_t block_columns) HWY_ATTR {
    ByParts(0, p.rows, kBlockRows, [&](int64_t block_r, int64_t block_rows) HWY_ATTR {
      ByParts(block_c, block_c + block_columns, kTileColumns<T>, [&](int64_t c, int64_t columns) HWY_ATTR {
        ByParts(block_r, block_r + block_rows, kTileRows<T>, [&](int64_t r, int64_t rows) HWY_ATTR {
          TransposeTile<T>(dst + c * p.dst_row + r * item, src + r * p.src_row + c * p.src_step,
                           {rows, columns, p.src_row, p.src_step, p.dst_row});
        });
      });
    });
  });
}

template <class T>
struct Wide {
  const hn::ScalableTag<T> d{};
  using V = hn::Vec<hn::ScalableTag<T>>;
  int64_t lanes() const { return static_cast<int64_t>(hn::Lanes(d)); }
};
template <class T>
HWY_INLINE const T* Items(const uint8_t* p) {
  return reinterpret_cast<const T*>(p);  // for loads without alignment only
}
template <class T>
HWY_INLINE T* Items(uint8_t* p) {
  return reinterpret_cast<T*>(p);
}

// What stands in for vectors loads and stores interleaved ones by their items, which must be aligned there.
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
constexpr bool kByVectors = false;
#else
constexpr bool kByVectors = true;
#endif

template <class T, int64_t kWays>
void TakeApart(uint8_t* HWY_RESTRICT dst, int64_t stride, const uint8_t* HWY_RESTRICT src, int64_t count) {
  constexpr auto item = static_cast<int64_t>(sizeof(T));
  const Wide<T> wide;
  typename Wide<T>::V a, b, c, e;
  int64_t i = 0;
  for (; kByVectors && i + wide.lanes() <= count; i += wide.lanes()) {
    const T* from = Items<T>(src + i * kWays * item);
    uint8_t* to = dst + i * item;
    if constexpr (kWays == 2) hn::LoadInterleaved2(wide.d, from, a, b);
    if constexpr (kWays == 3) hn::LoadInterleaved3(wide.d, from, a, b, c);
    if constexpr (kWays == 4) hn::LoadInterleaved4(wide.d, from, a, b, c, e);
    hn::StoreU(a, wide.d, Items<T>(to));
    hn::StoreU(b, wide.d, Items<T>(to + stride));
    if constexpr (kWays >= 3) hn::StoreU(c, wide.d, Items<T>(to + 2 * stride));
    if constexpr (kWays >= 4) hn::StoreU(e, wide.d, Items<T>(to + 3 * stride));
  }
  for (; i < count; ++i)
    for (int64_t w = 0; w < kWays; ++w)
      std::memcpy(dst + w * stride + i * item, src + (i * kWays + w) * item, sizeof(T));
}

template <class T, int64_t kWays>
void PutTogether(uint8_t* HWY_RESTRICT dst, const uint8_t* HWY_RESTRICT src, int64_t stride, int64_t count) {
  constexpr auto item = static_cast<int64_t>(sizeof(T));
  const Wide<T> wide;
  const auto load = [&](int64_t i, int64_t w) {
    return hn::LoadU(wide.d, Items<T>(src + w * stride + i * item));
  };
  int64_t i = 0;
  for (; kByVectors && i + wide.lanes() <= count; i += wide.lanes()) {
    T* to = Items<T>(dst + i * kWays * item);
    if constexpr (kWays == 2) hn::StoreInterleaved2(load(i, 0), load(i, 1), wide.d, to);
    if constexpr (kWays == 3) hn::StoreInterleaved3(load(i, 0), load(i, 1), load(i, 2), wide.d, to);
    if constexpr (kWays == 4)
      hn::StoreInterleaved4(load(i, 0), load(i, 1), load(i, 2), load(i, 3), wide.d, to);
  }
  for (; i < count; ++i)
    for (int64_t w = 0; w < kWays; ++w)
      std::memcpy(dst + (i * kWays + w) * item, src + w * stride + i * item, sizeof(T));
}

template <class T, int64_t kWays>
void TakeEvery(uint8_t* HWY_RESTRICT dst, const uint8_t* HWY_RESTRICT src, int64_t count) {
  constexpr auto item = static_cast<int64_t>(sizeof(T));
  const Wide<T> wide;
  typename Wide<T>::V a, b, c, e;
  int64_t i = 0;
  for (; kByVectors && i + wide.lanes() < count;
       i += wide.lanes()) {  // the items between the last ones are not all there
    const T* from = Items<T>(src + i * kWays * item);
    if constexpr (kWays == 2) hn::LoadInterleaved2(wide.d, from, a, b);
    if constexpr (kWays == 3) hn::LoadInterleaved3(wide.d, from, a, b, c);
    if constexpr (kWays == 4) hn::LoadInterleaved4(wide.d, from, a, b, c, e);
    hn::StoreU(a, wide.d, Items<T>(dst + i * item));
  }
  for (; i < count; ++i) std::memcpy(dst + i * item, src + i * kWays * item, sizeof(T));
}

// `function` gets an item's type and the ways.
template <class Function>
HWY_INLINE void WithItem(int64_t item, Function function) {
  if (item == 1) return function(uint8_t{});
  if (item == 2) return function(uint16_t{});
  if (item == 4) return function(uint32_t{});
  if (item == 8) return function(uint64_t{});
}
template <class Function>
HWY_INLINE void WithWays(int64_t ways, Function function) {
  if (ways == 2) return function(std::integral_constant<int64_t, 2>());
  if (ways == 3) return function(std::integral_constant<int64_t, 3>());
  if (ways == 4) return function(std::integral_constant<int64_t, 4>());
}

void Transpose(uint8_t* dst, const uint8_t* src, const Plane& plane, int64_t item) {
  WithItem(item, [&]<class T>(T) { TransposeItems<T>(dst, src, plane); });
}
void TakeApartAny(uint8_t* dst, int64_t stride, const uint8_t* src, int64_t ways, int64_t count,
                  int64_t item) {
  WithItem(item, [&]<class T>(T) {
    WithWays(ways, [&]<class W>(W) { TakeApart<T, W::value>(dst, stride, src, count); });
  });
}
void PutTogetherAny(uint8_t* dst, const uint8_t* src, int64_t stride, int64_t ways, int64_t count,
                    int64_t item) {
  WithItem(item, [&]<class T>(T) {
    WithWays(ways, [&]<class W>(W) { PutTogether<T, W::value>(dst, src, stride, count); });
  });
}
void TakeEveryAny(uint8_t* dst, const uint8_t* src, int64_t ways, int64_t count, int64_t item) {
  WithItem(item,
           [&]<class T>(T) { WithWays(ways, [&]<class W>(W) { TakeEvery<T, W::value>(dst, src, count); }); });
}

}  // namespace HWY_NAMESPACE
}  // namespace uckpt::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace uckpt::kernels {

HWY_EXPORT(Transpose);
HWY_EXPORT(TakeApartAny);
HWY_EXPORT(PutTogetherAny);
HWY_EXPORT(TakeEveryAny);

void transpose(uint8_t* dst, const uint8_t* src, const Plane& plane, int64_t item) {
  HWY_DYNAMIC_DISPATCH(Transpose)(dst, src, plane, item);
}
void take_apart(uint8_t* dst, int64_t stride, const uint8_t* src, int64_t ways, int64_t count, int64_t item) {
  HWY_DYNAMIC_DISPATCH(TakeApartAny)(dst, stride, src, ways, count, item);
}
void put_together(uint8_t* dst, const uint8_t* src, int64_t stride, int64_t ways, int64_t count,
                  int64_t item) {
  HWY_DYNAMIC_DISPATCH(PutTogetherAny)(dst, src, stride, ways, count, item);
}
void take_every(uint8_t* dst, const uint8_t* src, int64_t ways, int64_t count, int64_t item) {
  HWY_DYNAMIC_DISPATCH(TakeEveryAny)(dst, src, ways, count, item);
}

}  // namespace uckpt::kernels
#endif
