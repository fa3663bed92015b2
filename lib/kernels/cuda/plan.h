// Loops of copies as boxes. On the host; no memory is touched.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>

#include "lib/base/checked.h"
#include "lib/kernels/cuda/boxes.h"
#include "lib/kernels/nest.h"

namespace uckpt::kernels::cuda {

inline constexpr int64_t kMostParts = int64_t{1} << 30;  // of a box

// The largest power of two up to 16 that divides all numbers or-ed together.
inline int width_of(uint64_t bits) {
  return static_cast<int>(bits == 0 ? 16 : std::min<uint64_t>(16, bits & (~bits + 1)));
}

template <class Emit>
class BoxPlan {
 public:
  explicit BoxPlan(Emit emit) : emit_(std::move(emit)) {}

  void copy(uint8_t* dst, const uint8_t* src, std::span<const CopyLoop> loops, int64_t item) {
    by_nests(dst, src, loops, item,
             [&](uint8_t* to, const uint8_t* from, const Nest& nest) { copy_nest(to, from, nest); });
  }

  // Of elements; the strides are those of the two types.
  void cast(uint8_t* dst, DType dst_dtype, const uint8_t* src, DType src_dtype,
            std::span<const CopyLoop> loops) {
    src_dtype_ = src_dtype, dst_dtype_ = dst_dtype;
    src_item_ = item_size(src_dtype), dst_item_ = item_size(dst_dtype);
    bool whole = true;  // elements apart on both sides
    for (const CopyLoop& l : loops) whole &= l.src_stride % src_item_ == 0 && l.dst_stride % dst_item_ == 0;
    std::array<CopyLoop, kNestLoops> scaled{};
    if (whole && loops.size() <= kNestLoops) {
      for (size_t l = 0; l < loops.size(); ++l)
        scaled[l] = {loops[l].count, loops[l].src_stride / src_item_, loops[l].dst_stride / dst_item_};
      Nest nest = make_nest(scaled.data(), static_cast<int>(loops.size()), 1);
      for (int l = 0; l < nest.loops; ++l)
        nest.loop[l].src_stride *= src_item_, nest.loop[l].dst_stride *= dst_item_;
      return cast_nest(dst, src, nest);
    }
    by_nests(dst, src, loops, 0, [&](uint8_t* to, const uint8_t* from, Nest nest) {
      nest.item = 1;
      cast_nest(to, from, nest);
    });
  }

 private:
  template <class Each>
  void by_nests(uint8_t* dst, const uint8_t* src, std::span<const CopyLoop> loops, int64_t item,
                const Each& each) {
    if (loops.size() <= kNestLoops)
      return each(dst, src, make_nest(loops.data(), static_cast<int>(loops.size()), item));
    for (int64_t i = 0; i < loops[0].count; ++i)
      by_nests(dst + i * loops[0].dst_stride, src + i * loops[0].src_stride, loops.subspan(1), item, each);
  }

  // Calls `again` for the parts of a nest that is too large or too deep for a box; false if it is neither.
  template <class Again>
  static bool cut(uint8_t* dst, const uint8_t* src, const Nest& nest, int most_loops, int64_t parts_of_item,
                  const Again& again) {
    if (nest.loops > most_loops) {
      const CopyLoop& outer = nest.loop[0];
      for (int64_t i = 0; i < outer.count; ++i)
        again(dst + i * outer.dst_stride, src + i * outer.src_stride, without(nest, 0));
      return true;
    }
    // No product overflows: each factor is checked before.
    int64_t parts = parts_of_item;
    int largest = 0;
    bool fits = parts <= kMostParts;
    for (int l = 0; fits && l < nest.loops; ++l) {
      fits = nest.loop[l].count <= kMostParts / parts;
      parts *= fits ? nest.loop[l].count : 1;
    }
    if (fits || nest.loops == 0) return false;
    for (int l = 1; l < nest.loops; ++l)
      if (nest.loop[l].count > nest.loop[largest].count) largest = l;
    Nest half = nest, rest = nest;
    CopyLoop& loop = half.loop[largest];
    if (loop.count < 2) return false;
    loop.count /= 2;
    rest.loop[largest].count -= loop.count;
    again(dst, src, half);
    again(dst + loop.count * loop.dst_stride, src + loop.count * loop.src_stride, rest);
    return true;
  }

  void copy_nest(uint8_t* dst, const uint8_t* src, const Nest& nest) {
    if (nest.is_empty()) return;
    uint64_t bits = address_of(dst) | address_of(src) | static_cast<uint64_t>(nest.item);
    for (int l = 0; l < nest.loops; ++l)
      bits |= static_cast<uint64_t>(nest.loop[l].src_stride) | static_cast<uint64_t>(nest.loop[l].dst_stride);
    const int width = width_of(bits), source = innermost_of_source(nest), last = nest.loops - 1;
    const bool turned = source >= 0 && source != last;
    if (turned && nest.item == width && std::min(nest.loop[source].count, nest.loop[last].count) >= kFew)
      return copy_tiles(dst, src, nest, source);
    if (nest.item >= (width == 16 ? 16 : width >= 4 ? 128 : 32) || nest.loops == 0)
      return copy_runs(dst, src, nest);
    copy_items(dst, src, nest, width);
  }

  void copy_runs(uint8_t* dst, const uint8_t* src, const Nest& nest) {
    constexpr int64_t kMostBytes = kMostParts / 2 * kVector;
    if (nest.item > kMostBytes) {
      Nest half = nest, rest = nest;
      half.item = kMostBytes;
      rest.item -= kMostBytes;
      copy_runs(dst, src, half);
      return copy_runs(dst + kMostBytes, src + kMostBytes, rest);
    }
    uint64_t strides = 0;
    for (int l = 0; l < nest.loops; ++l) strides |= static_cast<uint64_t>(nest.loop[l].dst_stride);
    const auto lead = strides % kVector == 0 ? static_cast<int64_t>(address_of(dst) % kVector) : kVector - 1;
    const int64_t parts = ceil_div(lead + nest.item, kVector);
    const auto again = [this](uint8_t* to, const uint8_t* from, const Nest& part) {
      copy_runs(to, from, part);
    };
    if (cut(dst, src, nest, kBoxSteps, parts, again)) return;
    Box box = box_of(dst, src, Way::kRuns);
    box.run = nest.item;
    set_parts(box, parts);
    add_steps(box, nest);
    emit(box, parts * items_of(nest));
  }

  // The narrow one of two turned loops runs fastest: then both sides are read and written in few streams.
  static Nest in_streams(Nest nest) {
    const int last = nest.loops - 1, source = innermost_of_source(nest);
    if (source < 0 || source == last) return nest;
    const CopyLoop across = nest.loop[source], down = nest.loop[last];
    nest = without(without(nest, last), source);
    const bool across_last = across.count < down.count && across.count < kFew;
    nest.loop[nest.loops++] = across_last ? down : across;
    nest.loop[nest.loops++] = across_last ? across : down;
    return nest;
  }

  void copy_items(uint8_t* dst, const uint8_t* src, const Nest& nest, int width) {
    const bool whole = nest.item == width;
    const auto again = [this, width](uint8_t* to, const uint8_t* from, const Nest& part) {
      copy_items(to, from, part, width);
    };
    if (cut(dst, src, nest, whole ? kBoxSteps : kBoxSteps - 1, nest.item / width, again)) return;
    Nest by_width = whole ? in_streams(nest) : nest;
    if (!whole) by_width.loop[by_width.loops++] = {nest.item / width, width, width};
    by_width.item = width;
    Box box = box_of(dst, src, Way::kItems);
    box.item = static_cast<uint8_t>(width);
    pack(box, by_width);
    add_steps(box, by_width);
    emit(box, items_of(by_width));
  }

  // Items under 4 bytes that lie together in the destination, from a multiple of 4 bytes on: by words.
  static void pack(Box& box, Nest& nest) {
    const int64_t pack = 4 / box.item;
    if (pack <= 1 || nest.loops == 0) return;
    CopyLoop& last = nest.loop[nest.loops - 1];
    uint64_t bits = address_of(box.dst);
    for (int l = 0; l + 1 < nest.loops; ++l) bits |= static_cast<uint64_t>(nest.loop[l].dst_stride);
    if (last.dst_stride != box.item || last.count % pack != 0 || bits % 4 != 0) return;
    box.pack = static_cast<uint8_t>(pack);
    last = {last.count / pack, last.src_stride * pack, last.dst_stride * pack};
  }

  void copy_tiles(uint8_t* dst, const uint8_t* src, const Nest& nest, int source) {
    const auto again = [this, source](uint8_t* to, const uint8_t* from, const Nest& part) {
      copy_tiles(to, from, part, source);
    };
    Nest turned = without(without(nest, nest.loops - 1), source);
    const CopyLoop across = nest.loop[source], down = nest.loop[nest.loops - 1];
    turned.loop[turned.loops++] = across;
    turned.loop[turned.loops++] = down;
    if (turned.loops > kBoxSteps) {
      const CopyLoop& outer = turned.loop[0];
      for (int64_t i = 0; i < outer.count; ++i) {
        const Nest inner = without(turned, 0);
        copy_tiles(dst + i * outer.dst_stride, src + i * outer.src_stride, inner, inner.loops - 2);
      }
      return;
    }
    if (cut(dst, src, nest, kNestLoops, 1, again)) return;
    Box box = box_of(dst, src, Way::kTiles);
    const auto item = static_cast<int>(nest.item);
    box.item = static_cast<uint8_t>(item);
    uint64_t src_bits = address_of(src) | static_cast<uint64_t>(down.src_stride),
             dst_bits = address_of(dst) | static_cast<uint64_t>(across.dst_stride);
    for (int l = 0; l + 2 < turned.loops; ++l) {
      src_bits |= static_cast<uint64_t>(turned.loop[l].src_stride);
      dst_bits |= static_cast<uint64_t>(turned.loop[l].dst_stride);
    }
    box.wide_src = src_bits % 4 == 0 && across.src_stride == item;
    box.wide_dst = dst_bits % 4 == 0 && down.dst_stride == item;
    add_steps(box, turned);
    const int64_t side = tile_side(item), planes = items_of(turned) / across.count / down.count;
    emit(box, planes * ceil_div(across.count, side) * ceil_div(down.count, side));
  }

  void cast_nest(uint8_t* dst, const uint8_t* src, const Nest& nest) {
    if (nest.is_empty()) return;
    const int64_t each = kVector / std::max(src_item_, dst_item_);
    const bool by_elements = nest.item < 2 * each;
    constexpr int64_t kMostElements = kMostParts;
    if (nest.item > kMostElements) {
      Nest half = nest, rest = nest;
      half.item = kMostElements;
      rest.item -= kMostElements;
      cast_nest(dst, src, half);
      return cast_nest(dst + kMostElements * dst_item_, src + kMostElements * src_item_, rest);
    }
    uint64_t strides = 0;
    for (int l = 0; l < nest.loops; ++l) strides |= static_cast<uint64_t>(nest.loop[l].dst_stride);
    const int64_t vector = each * dst_item_,
                  misaligned = static_cast<int64_t>(address_of(dst) % static_cast<uint64_t>(vector));
    const int64_t lead = strides % static_cast<uint64_t>(vector) == 0 ? misaligned / dst_item_ : each - 1;
    const int64_t parts = by_elements ? nest.item : ceil_div(lead + nest.item, each);
    const auto again = [this](uint8_t* to, const uint8_t* from, const Nest& part) {
      cast_nest(to, from, part);
    };
    const bool one = nest.item == 1 || !by_elements;
    if (cut(dst, src, nest, one ? kBoxSteps : kBoxSteps - 1, parts, again)) return;
    Box box = box_of(dst, src, Way::kCasts);
    box.src_dtype = src_dtype_, box.dst_dtype = dst_dtype_;
    if (!by_elements) {
      box.run = nest.item;
      set_parts(box, parts);
      add_steps(box, nest);
      return emit(box, parts * items_of(nest));
    }
    Nest single = one ? in_streams(nest) : nest;
    if (!one) single.loop[single.loops++] = {nest.item, src_item_, dst_item_};
    single.item = 1;
    add_steps(box, single);
    emit(box, items_of(single));
  }

  static Box box_of(uint8_t* dst, const uint8_t* src, Way way) {
    Box box;
    box.src = src, box.dst = dst, box.way = way;
    return box;
  }
  static void set_parts(Box& box, int64_t parts) {
    box.parts = static_cast<uint32_t>(parts);
    box.by_parts = divider_of(box.parts);
  }
  static void add_steps(Box& box, const Nest& nest) {
    for (int l = 0; l < nest.loops; ++l) box.step[box.steps++] = step_of(nest.loop[l]);
  }
  void emit(Box& box, int64_t total) {
    box.total = static_cast<uint32_t>(total);
    emit_(box);
  }

  // Below this many of one side a tile would be mostly empty.
  static constexpr int64_t kFew = 16;

  Emit emit_;
  DType src_dtype_ = DType::kU8, dst_dtype_ = DType::kU8;
  int64_t src_item_ = 1, dst_item_ = 1;
};

}  // namespace uckpt::kernels::cuda
