#include "lib/formats/torch/sizes.h"

#include <algorithm>
#include <limits>

#include "lib/base/checked.h"

namespace uckpt::torch {

Shape row_major(const Shape& shape) {
  Shape stride(shape.size(), 1);
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (size_t d = shape.size(); d-- > 1;)
    stride[d - 1] = checked_mul(stride[d], std::max<int64_t>(1, shape[d])).value_or(kMost);
  return stride;
}

void write_tuple(pickle::Pickler& out, const Shape& shape) {
  out.begin_tuple(shape.size());
  for (const int64_t n : shape) out.integer(n);
  out.end_tuple();
}

void write_size(pickle::Pickler& out, const Shape& shape) {
  out.begin_call();
  out.global("torch", "Size");
  out.begin_tuple(1);
  write_tuple(out, shape);
  out.end_tuple();
  out.end_call();
}

}  // namespace uckpt::torch
