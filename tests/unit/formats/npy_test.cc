#include "lib/formats/npy.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "lib/base/error.h"

using namespace uckpt;

namespace {

std::vector<float> floats(ByteSpan bytes) {
  std::vector<float> out;
  for (size_t i = 0; i + 4 <= bytes.size(); i += 4) out.push_back(load_le<float>(bytes.data() + i));
  return out;
}

}  // namespace

TEST_CASE("npy: header") {
  const NpyWriter w(DType::kF32, {2, 3}, false);
  CHECK(w.header().size() % 64 == 0);
  CHECK(w.header().substr(0, 8) == std::string("\x93NUMPY\x01\0", 8));
  CHECK(load_le<uint16_t>(reinterpret_cast<const uint8_t*>(w.header().data()) + 8) == w.header().size() - 10);
  CHECK(w.header().find("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }") == 10);
  CHECK(w.header().back() == '\n');
  CHECK(w.data_bytes() == 24);
  CHECK(
      NpyWriter(DType::kBool, {5}, false).header().find("'|b1', 'fortran_order': False, 'shape': (5,), }") !=
      std::string::npos);
  CHECK(NpyWriter(DType::kI64, {}, false).header().find("'shape': (), }") != std::string::npos);
  CHECK(NpyWriter(DType::kBF16, {1}, true).header().find("'<u2'") != std::string::npos);
  CHECK(NpyWriter(DType::kF8E4M3, {1}, true).header().find("'|u1'") != std::string::npos);
}

TEST_CASE("npy: what NumPy lacks is widened, wherever the bytes are cut") {
  NpyWriter w(DType::kBF16, {3}, false);
  CHECK(w.data_bytes() == 12);
  const Bytes in = {0x80, 0x3f, 0x00, 0xc0, 0xc0, 0x7f};
  std::vector<float> got;
  for (size_t i = 0; i < in.size(); ++i) {
    for (float f : floats(w.convert(ByteSpan(in).subspan(i, 1)))) got.push_back(f);
  }
  REQUIRE(got.size() == 3);
  CHECK(got[0] == 1.0F);
  CHECK(got[1] == -2.0F);
  CHECK(std::isnan(got[2]));
  NpyWriter c(DType::kC32, {1}, false);
  CHECK(floats(c.convert(Bytes{0x00, 0x3c, 0x00, 0xb8})) == std::vector<float>{1.0F, -0.5F});
  NpyWriter same(DType::kI32, {1}, false);
  CHECK(same.convert(in).data() == in.data());
}

TEST_CASE("npy: small floats") {
  CHECK(small_float(DType::kF8E4M3, 0x7e) == 448.0F);
  CHECK(std::isnan(small_float(DType::kF8E4M3, 0x7f)));
  CHECK(small_float(DType::kF8E4M3, 0x01) == std::ldexp(1.0F, -9));
  CHECK(small_float(DType::kF8E5M2, 0xfc) == -std::numeric_limits<float>::infinity());
  CHECK(small_float(DType::kF8E5M2, 0x7b) == 57344.0F);
  CHECK(small_float(DType::kF8E4M3Fnuz, 0x7f) == 240.0F);
  CHECK(std::isnan(small_float(DType::kF8E4M3Fnuz, 0x80)));
  CHECK(small_float(DType::kF8E5M2Fnuz, 0x7f) == 57344.0F);
  CHECK(small_float(DType::kF8E8M0, 127) == 1.0F);
  CHECK(small_float(DType::kF8E8M0, 0) == std::ldexp(1.0F, -127));
  CHECK(std::isnan(small_float(DType::kF8E8M0, 0xff)));
  CHECK(small_float(DType::kF16, 0x7bff) == 65504.0F);
}

TEST_CASE("npy: types under a byte are raw or refused") {
  CHECK_THROWS_AS(NpyWriter(DType::kF4, {2, 4}, false), Error);
  NpyWriter w(DType::kF4, {2, 4}, true);
  CHECK(w.data_bytes() == 4);
  CHECK(w.header().find("'|u1', 'fortran_order': False, 'shape': (4,), }") != std::string::npos);
}
