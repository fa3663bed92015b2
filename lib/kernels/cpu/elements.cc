#include "lib/kernels/elements.h"

#include <algorithm>
#include <cstring>

#include "lib/base/bytes.h"

namespace uckpt::kernels {

namespace {

template <size_t kItem>
void copy_row(uint8_t* dst, const uint8_t* src, const CopyLoop& row) {
  for (int64_t i = 0; i < row.count; ++i)
    std::memcpy(dst + i * row.dst_stride, src + i * row.src_stride, kItem);
}

void copy_row_any(uint8_t* dst, const uint8_t* src, const CopyLoop& row, size_t item) {
  const auto size = static_cast<int64_t>(item);
  if (row.src_stride == size && row.dst_stride == size) {
    std::memcpy(dst, src, item * static_cast<size_t>(row.count));
    return;
  }
  switch (item) {
    case 1:
      return copy_row<1>(dst, src, row);
    case 2:
      return copy_row<2>(dst, src, row);
    case 4:
      return copy_row<4>(dst, src, row);
    case 8:
      return copy_row<8>(dst, src, row);
    case 16:
      return copy_row<16>(dst, src, row);
    default:
      for (int64_t i = 0; i < row.count; ++i)
        std::memcpy(dst + i * row.dst_stride, src + i * row.src_stride, item);
  }
}

void swap_bytes(uint8_t* data, int64_t count, size_t item) {
  for (int64_t i = 0; i < count; ++i)
    std::reverse(data + i * static_cast<int64_t>(item), data + (i + 1) * static_cast<int64_t>(item));
}

// Flips the sign bit of every `step`-th float of `size` bytes, from the `first`-th.
void flip_signs(uint8_t* data, int64_t floats, size_t size, int64_t first, int64_t step) {
  for (int64_t i = first; i < floats; i += step) data[(i + 1) * static_cast<int64_t>(size) - 1] ^= 0x80;
}

template <class T>
void negate_integers(uint8_t* data, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint8_t* p = data + i * static_cast<int64_t>(sizeof(T));
    store_le<T>(p, static_cast<T>(T{0} - load_le<T>(p)));
  }
}

void negate(uint8_t* data, int64_t count, DType dtype) {
  const DTypeInfo& t = info(dtype);
  const auto item = static_cast<size_t>(item_size(dtype));
  if (t.kind == DTypeClass::kComplex) return flip_signs(data, count * 2, item / 2, 0, 1);
  if (t.kind == DTypeClass::kFloat) return flip_signs(data, count, item, 0, 1);
  switch (item) {
    case 1:
      return negate_integers<uint8_t>(data, count);
    case 2:
      return negate_integers<uint16_t>(data, count);
    case 4:
      return negate_integers<uint32_t>(data, count);
    default:
      return negate_integers<uint64_t>(data, count);
  }
}

}  // namespace

void copy_strided(uint8_t* dst, const uint8_t* src, std::span<const CopyLoop> loops, size_t item) {
  if (loops.empty()) {
    std::memcpy(dst, src, item);
    return;
  }
  if (loops.size() == 1) return copy_row_any(dst, src, loops[0], item);
  for (int64_t i = 0; i < loops[0].count; ++i)
    copy_strided(dst + i * loops[0].dst_stride, src + i * loops[0].src_stride, loops.subspan(1), item);
}

void apply_flags(uint8_t* data, int64_t count, DType dtype, uint8_t flags) {
  const auto item = static_cast<size_t>(item_size(dtype));
  const bool complex = info(dtype).kind == DTypeClass::kComplex;
  if (flags & kByteSwapped) swap_bytes(data, complex ? count * 2 : count, complex ? item / 2 : item);
  if ((flags & kConjugated) && complex) flip_signs(data, count * 2, item / 2, 1, 2);
  if (flags & kNegated) negate(data, count, dtype);
}

}  // namespace uckpt::kernels
