// numpy arrays and scalars as they lie in a pickle: plain numbers only, no objects, no structures.
#pragma once

#include <optional>

#include "lib/pickle/value.h"
#include "lib/tensor/dtype.h"

namespace uckpt::pickle {

struct NumpyArray {
  DType dtype{};
  std::vector<int64_t> shape;  // empty for scalars
  ByteSpan bytes;              // in the document, as written
  bool fortran = false;        // first index runs fastest
  bool swapped = false;        // big-endian elements
  bool is_scalar = false;

  int64_t numel() const;
  Bytes row_major() const;  // little-endian, last index fastest
};

// Nothing if `value` is no array or scalar of plain numbers (objects, structures, strings stay calls). Throws
// `numpy.…` where it is one and its parts contradict each other.
std::optional<NumpyArray> numpy_array(const Value& value);

}  // namespace uckpt::pickle
