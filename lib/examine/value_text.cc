#include "lib/examine/value_text.h"

#include <cmath>

#include "lib/base/bytes.h"
#include "lib/base/text.h"
#include "lib/kernels/numbers.h"

namespace uckpt {

namespace {

std::string float_text(const uint8_t* element, DType dtype) {
  double value = 0;
  kernels::to_doubles(element, dtype, 1, &value);
  if (std::isnan(value)) return "nan";
  return dtype == DType::kF64 ? cat(value) : cat(static_cast<float>(value));
}

}  // namespace

std::string value_text(const uint8_t* element, DType dtype) {
  if (!kernels::has_numbers(dtype)) return cat("0x", hex(*element, 2));
  switch (info(dtype).kind) {
    case DTypeClass::kTruth:
      return *element != 0 ? "true" : "false";
    case DTypeClass::kInt:
    case DTypeClass::kUint: {
      if (dtype == DType::kI64) return cat(load_le<int64_t>(element));
      if (dtype == DType::kU64) return cat(load_le<uint64_t>(element));
      double value = 0;
      kernels::to_doubles(element, dtype, 1, &value);
      return cat(static_cast<int64_t>(value));
    }
    case DTypeClass::kFloat:
      return float_text(element, dtype);
    case DTypeClass::kComplex: {
      const DType part = kernels::part_of(dtype);
      const std::string imaginary = float_text(element + item_size(part), part);
      return cat(float_text(element, part), imaginary.front() == '-' ? "" : "+", imaginary, "i");
    }
  }
  return {};
}

}  // namespace uckpt
