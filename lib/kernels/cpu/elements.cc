#include "lib/kernels/elements.h"

#include <algorithm>

#include "lib/base/bytes.h"

namespace uckpt::kernels {

namespace {

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

void apply_flags(uint8_t* data, int64_t count, DType dtype, uint8_t flags) {
  const auto item = static_cast<size_t>(item_size(dtype));
  const bool complex = info(dtype).kind == DTypeClass::kComplex;
  if (flags & kByteSwapped) swap_bytes(data, complex ? count * 2 : count, complex ? item / 2 : item);
  if ((flags & kConjugated) && complex) flip_signs(data, count * 2, item / 2, 1, 2);
  if (flags & kNegated) negate(data, count, dtype);
}

}  // namespace uckpt::kernels
