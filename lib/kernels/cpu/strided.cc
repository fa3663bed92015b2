#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "lib/kernels/cpu/transpose.h"
#include "lib/kernels/elements.h"

namespace uckpt::kernels {

namespace {

// Copies an item; of sizes between two constants by two copies that overlap.
template <size_t kSize>
struct Whole {
  static void copy(uint8_t* dst, const uint8_t* src, size_t) { std::memcpy(dst, src, kSize); }
};
template <size_t kPart>  // at most the item, at least half of it
struct Twice {
  static void copy(uint8_t* dst, const uint8_t* src, size_t size) {
    uint8_t first[kPart], last[kPart];
    std::memcpy(first, src, kPart);
    std::memcpy(last, src + size - kPart, kPart);
    std::memcpy(dst, first, kPart);
    std::memcpy(dst + size - kPart, last, kPart);
  }
};
struct Large {
  static void copy(uint8_t* dst, const uint8_t* src, size_t size) { std::memcpy(dst, src, size); }
};

// `outer` and within it `inner`.
template <class Item>
void copy_rows(uint8_t* dst, const uint8_t* src, const CopyLoop& outer, const CopyLoop& inner, size_t size) {
  for (int64_t o = 0; o < outer.count; ++o, dst += outer.dst_stride, src += outer.src_stride) {
    uint8_t* to = dst;
    const uint8_t* from = src;
    for (int64_t i = 0; i < inner.count; ++i, to += inner.dst_stride, from += inner.src_stride)
      Item::copy(to, from, size);
  }
}

using CopyRows = void (*)(uint8_t*, const uint8_t*, const CopyLoop&, const CopyLoop&, size_t);

CopyRows rows_of(int64_t item) {
  switch (item) {
    case 1:
      return copy_rows<Whole<1>>;
    case 2:
      return copy_rows<Whole<2>>;
    case 4:
      return copy_rows<Whole<4>>;
    case 8:
      return copy_rows<Whole<8>>;
    case 16:
      return copy_rows<Whole<16>>;
    case 32:
      return copy_rows<Whole<32>>;
    case 64:
      return copy_rows<Whole<64>>;
    default:
      return item < 4     ? copy_rows<Twice<2>>
             : item < 8   ? copy_rows<Twice<4>>
             : item < 16  ? copy_rows<Twice<8>>
             : item < 32  ? copy_rows<Twice<16>>
             : item < 64  ? copy_rows<Twice<32>>
             : item < 128 ? copy_rows<Twice<64>>
                          : copy_rows<Large>;
  }
}

constexpr CopyLoop kOnce{1, 0, 0};

bool has_registers(int64_t item) { return item == 1 || item == 2 || item == 4 || item == 8; }
bool is_few(int64_t count) { return count >= 2 && count <= 4; }

// The two innermost loops of the destination, as they are.
void copy_in_order(uint8_t* dst, const uint8_t* src, const CopyLoop& outer, const CopyLoop& inner,
                   int64_t item) {
  const int64_t ways = inner.src_stride / item;
  if (has_registers(item) && inner.dst_stride == item && is_few(ways) && inner.src_stride == ways * item) {
    for (int64_t o = 0; o < outer.count; ++o)
      take_every(dst + o * outer.dst_stride, src + o * outer.src_stride, ways, inner.count, item);
    return;
  }
  rows_of(item)(dst, src, outer, inner, static_cast<size_t>(item));
}

// `inner` steps least through the destination, `across` through the source.
void copy_across(uint8_t* dst, const uint8_t* src, const CopyLoop& across, const CopyLoop& inner,
                 int64_t item) {
  if (has_registers(item) && inner.dst_stride == item) {
    if (across.src_stride == item && is_few(across.count) && inner.src_stride == across.count * item)
      return take_apart(dst, across.dst_stride, src, across.count, inner.count, item);
    if (across.src_stride == item && is_few(inner.count) && across.dst_stride == inner.count * item)
      return put_together(dst, src, inner.src_stride, inner.count, across.count, item);
    if (inner.count >= 4 && across.count >= 4)
      return transpose(dst, src,
                       {inner.count, across.count, inner.src_stride, across.src_stride, across.dst_stride},
                       item);
  }
  // By blocks that the first cache holds on both sides.
  constexpr int64_t kBlockBytes = 8192;
  const int64_t side = item <= 2 ? 64 : item <= 8 ? 32 : std::max<int64_t>(4, 64 / item * 8);
  const int64_t a_side = std::clamp<int64_t>(kBlockBytes / item / std::min(side, inner.count), 4, 1024),
                i_side = std::clamp<int64_t>(kBlockBytes / item / std::min(side, across.count), 4, 1024);
  const CopyRows rows = rows_of(item);
  for (int64_t a = 0; a < across.count; a += a_side)
    for (int64_t i = 0; i < inner.count; i += i_side) {
      const CopyLoop outer{std::min(a_side, across.count - a), across.src_stride, across.dst_stride},
          within{std::min(i_side, inner.count - i), inner.src_stride, inner.dst_stride};
      rows(dst + a * outer.dst_stride + i * within.dst_stride,
           src + a * outer.src_stride + i * within.src_stride, outer, within, static_cast<size_t>(item));
    }
}

constexpr int64_t kLine = 64;

void copy_nest(uint8_t* dst, const uint8_t* src, const Nest& nest) {
  if (nest.is_empty()) return;
  if (nest.loops == 0) {
    std::memcpy(dst, src, static_cast<size_t>(nest.item));
    return;
  }
  // Whole lines need no second loop to be used up.
  const int last = nest.loops - 1, source = innermost_of_source(nest);
  const CopyLoop& inner = nest.loop[last];
  const bool in_order = source < 0 || source == last || nest.item >= kLine;
  const int second = in_order ? last - 1 : source;
  const CopyLoop outer = second < 0 ? kOnce : nest.loop[second];
  const Nest rest = second < 0 ? without(nest, last) : without(without(nest, last), second);
  for (int64_t i = 0, n = items_of(rest); i < n; ++i) {
    const NestOffset at = offset_of(rest, i);
    if (in_order)
      copy_in_order(dst + at.dst, src + at.src, outer, inner, nest.item);
    else
      copy_across(dst + at.dst, src + at.src, outer, inner, nest.item);
  }
}

}  // namespace

void copy_strided(uint8_t* dst, const uint8_t* src, std::span<const CopyLoop> loops, size_t item) {
  if (loops.size() <= kNestLoops) {
    copy_nest(dst, src, make_nest(loops.data(), static_cast<int>(loops.size()), static_cast<int64_t>(item)));
    return;
  }
  for (int64_t i = 0; i < loops[0].count; ++i)
    copy_strided(dst + i * loops[0].dst_stride, src + i * loops[0].src_stride, loops.subspan(1), item);
}

}  // namespace uckpt::kernels
