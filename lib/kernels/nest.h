// Loops of strided copies, as index maths alone: no memory is touched and nothing is allocated, so that any
// device may use it.
#pragma once

#include <cstdint>

namespace uckpt::kernels {

// One loop of a strided copy; strides in bytes.
struct CopyLoop {
  int64_t count, src_stride, dst_stride;
};

inline constexpr int kNestLoops = 8;

// Loops by falling destination stride, none of which continues the next; the innermost bytes that lie
// together on both sides are the item.
struct Nest {
  int64_t item = 0;
  int loops = 0;
  CopyLoop loop[kNestLoops] = {};

  constexpr bool is_empty() const {
    for (int l = 0; l < loops; ++l)
      if (loop[l].count <= 0) return true;
    return item <= 0;
  }
};

struct NestOffset {
  int64_t src, dst;
};

constexpr int64_t size_of_stride(int64_t stride) { return stride < 0 ? -stride : stride; }

// Does `a` belong outside of `b`?
constexpr bool is_outer(const CopyLoop& a, const CopyLoop& b) {
  const int64_t x = size_of_stride(a.dst_stride), y = size_of_stride(b.dst_stride);
  return x != y ? x > y : size_of_stride(a.src_stride) > size_of_stride(b.src_stride);
}

// Of at most `kNestLoops` loops in any order. No destination byte is written twice.
constexpr Nest make_nest(const CopyLoop* loops, int count, int64_t item) {
  CopyLoop sorted[kNestLoops] = {};
  int n = 0;
  for (int l = 0; l < count; ++l) {
    if (loops[l].count == 1) continue;
    int at = n++;
    for (; at > 0 && is_outer(loops[l], sorted[at - 1]); --at) sorted[at] = sorted[at - 1];
    sorted[at] = loops[l];
  }
  Nest out;
  out.item = item;
  CopyLoop inner[kNestLoops] = {};  // the innermost first
  for (int l = n; l-- > 0;) {
    const CopyLoop& next = sorted[l];
    if (out.loops == 0) {
      if (next.src_stride == out.item && next.dst_stride == out.item) {
        out.item *= next.count;
        continue;
      }
    } else if (CopyLoop& last = inner[out.loops - 1]; next.src_stride == last.count * last.src_stride &&
                                                      next.dst_stride == last.count * last.dst_stride) {
      last.count *= next.count;
      continue;
    }
    inner[out.loops++] = next;
  }
  for (int l = 0; l < out.loops; ++l) out.loop[l] = inner[out.loops - 1 - l];
  return out;
}

// The loop that steps least through the source, of those that step at all; -1: none does.
constexpr int innermost_of_source(const Nest& nest) {
  int least = -1;
  for (int l = 0; l < nest.loops; ++l) {
    const int64_t stride = size_of_stride(nest.loop[l].src_stride);
    if (stride != 0 && (least < 0 || stride <= size_of_stride(nest.loop[least].src_stride))) least = l;
  }
  return least;
}

// The same without that loop.
constexpr Nest without(Nest nest, int loop) {
  --nest.loops;
  for (int l = loop; l < nest.loops; ++l) nest.loop[l] = nest.loop[l + 1];
  return nest;
}

constexpr int64_t items_of(const Nest& nest) {
  int64_t n = 1;
  for (int l = 0; l < nest.loops; ++l) n *= nest.loop[l].count;
  return n;
}

// Of the item with this number, the last loop running fastest.
constexpr NestOffset offset_of(const Nest& nest, int64_t index) {
  NestOffset at{0, 0};
  for (int l = nest.loops; l-- > 0;) {
    const CopyLoop& loop = nest.loop[l];
    const int64_t step = l > 0 ? index % loop.count : index;
    index /= loop.count;
    at.src += step * loop.src_stride;
    at.dst += step * loop.dst_stride;
  }
  return at;
}

}  // namespace uckpt::kernels
