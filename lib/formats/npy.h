// One tensor as a NumPy .npy file: the header, and the values in a type NumPy knows.
#pragma once

#include <cstdint>
#include <string>

#include "lib/base/bytes.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

// Types that NumPy lacks are widened to float32 (bfloat16, fp8) or complex64 (complex of halves), value by
// value; with `raw` they stay as they are, spelt as unsigned integers. Types under a byte can only be raw: a
// row of bytes.
class NpyWriter {
 public:
  // Throws trouble (`npy.dtype`) for a type under a byte that is not to be raw.
  NpyWriter(DType dtype, const Shape& shape, bool raw);

  const std::string& header() const { return header_; }
  int64_t data_bytes() const { return data_bytes_; }
  // The next of the tensor's bytes, in order and cut anywhere, as they stand in the file. Valid until the
  // next call.
  ByteSpan convert(ByteSpan bytes);

 private:
  void widen(const uint8_t* element);

  DType dtype_;
  bool widens_;
  std::string header_;
  int64_t data_bytes_;
  Bytes carry_;  // the begun element of the last call
  Bytes out_;
};

// The value of a float of 16 bits or fewer.
float small_float(DType dtype, uint32_t bits);

}  // namespace uckpt
