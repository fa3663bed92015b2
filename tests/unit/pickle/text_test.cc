// Names, numbers and keys as text.
#include <doctest/doctest.h>

#include <limits>

#include "lib/pickle/globals.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/utf8.h"
#include "lib/pickle/value_text.h"

using namespace uckpt;
using namespace uckpt::pickle;

TEST_CASE("globals: whole names, byte for byte") {
  CHECK(make_global("torch._utils", "_rebuild_tensor_v2").known == Known::kRebuildTensorV2);
  CHECK(make_global("torch._utils", "_rebuild_tensor_v2 ").known == Known::kNone);
  CHECK(make_global("Torch._Utils", "_rebuild_tensor_v2").trust == GlobalClass::kUnknown);
  CHECK(make_global("torch", "FloatStorage").dtype == DType::kF32);
  CHECK(make_global("torch.cuda", "BFloat16Storage").dtype == DType::kBF16);
  CHECK(make_global("torch", "Float128Storage").trust == GlobalClass::kUnknown);
  CHECK(make_global("torch", "bfloat16").known == Known::kDtype);
  CHECK(make_global("torch.nn", "bfloat16").known == Known::kNone);
  CHECK(make_global("torch", "QInt8Storage").known == Known::kStorage);
  CHECK(!make_global("torch", "QInt8Storage").dtype);
  CHECK(make_global("__builtin__", "set").known == Known::kSet);
  CHECK(make_global("__builtin__", "xrange").full == "builtins.range");
  CHECK(make_global("__builtin__", "eval").trust == GlobalClass::kDangerous);
  CHECK(make_global("os", "getcwd").trust == GlobalClass::kDangerous);
  CHECK(make_global("os.path", "join").trust == GlobalClass::kDangerous);
  CHECK(make_global("osprey", "fly").trust == GlobalClass::kUnknown);
  CHECK(make_global("torch", "hub.load").trust == GlobalClass::kDangerous);
  CHECK(make_global("torch.hub", "load").trust == GlobalClass::kDangerous);
  CHECK(make_global("deepspeed.utils.tensor_fragment", "fragment_address").trust == GlobalClass::kKnown);
  CHECK(make_global("a.b", "c").module() == "a.b");
  CHECK(make_global("a.b", "c").name() == "c");
}

TEST_CASE("numbers") {
  CHECK(real_text(0.0) == "0.0");
  CHECK(real_text(-0.0) == "-0.0");
  CHECK(real_text(0.1) == "0.1");
  CHECK(real_text(1e300) == "1e+300");
  CHECK(real_text(std::numeric_limits<double>::infinity()) == "inf");
  CHECK(real_text(-std::numeric_limits<double>::infinity()) == "-inf");
  CHECK(real_text(std::numeric_limits<double>::quiet_NaN()) == "nan");
  const auto big = [](Bytes bytes) { return big_integer_text(bytes); };
  CHECK(big({}) == "0");
  CHECK(big({0xff}) == "-1");
  CHECK(big({0, 0, 0, 0, 0, 0, 0, 0, 1}) == "18446744073709551616");
  CHECK(big({0, 0, 0, 0, 0, 0, 0, 0x80}) == "-9223372036854775808");
  CHECK(big({0, 0, 0, 0, 0, 0, 0, 0x80, 0}) == "9223372036854775808");
  CHECK(big({0x00, 0xca, 0x9a, 0x3b}) == "1000000000");
  CHECK(hex_text(Bytes{0, 0xab}) == "00ab");
}

TEST_CASE("UTF-8 as Python writes it") {
  const auto check = [](std::string_view text) {
    return check_utf8({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  };
  CHECK(check("plain text of some length") == Utf8Check::kGood);
  CHECK(check("\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80") == Utf8Check::kGood);
  CHECK(check("\xed\xa0\x80") == Utf8Check::kSurrogates);
  CHECK(check("\xc0\x80") == Utf8Check::kBroken);
  CHECK(check("\xe0\x80\x80") == Utf8Check::kBroken);
  CHECK(check("\xf4\x90\x80\x80") == Utf8Check::kBroken);
  CHECK(check("\xf0\x80\x80\x80") == Utf8Check::kBroken);
  CHECK(check("eight by\x80") == Utf8Check::kBroken);
  CHECK(check("\xe4\xb8") == Utf8Check::kBroken);
}

TEST_CASE("keys as one word") {
  const auto key = [](std::string body) {
    body = "\x80\x02" + body + ".";
    const auto document = parse_whole(Bytes(body.begin(), body.end()), {});
    return key_text(document->root());
  };
  CHECK(key("N") == "None");
  CHECK(key("\x88") == "True");
  CHECK(key("K\x07") == "7");
  CHECK(key("ctorch\nfloat32\n") == "torch.float32");
  CHECK(key("ctorch\nfloat32\nK\x01\x86") == "(torch.float32, 1)");
  // A tuple of itself twice, twelve times over, would spell 4096 parts.
  std::string nested = "K\x01";
  for (int i = 0; i < 12; ++i) nested += "\x32\x86";
  CHECK(key(nested).size() < 1100);
}
