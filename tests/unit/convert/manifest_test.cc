#include "lib/convert/manifest.h"

#include <doctest/doctest.h>

#include <random>

#include "lib/base/error.h"

using namespace uckpt;

namespace {

MemorySource source(const std::string& text) { return {"m.txt", Bytes(text.begin(), text.end())}; }

std::string problem(const std::string& text) {
  try {
    read_manifest(source(text));
  } catch (const Error& e) {
    return e.line();
  }
  return "";
}

const std::string kFirst = "# uckpt sum 1\n", kLine = "crc64:0123456789abcdef  fp32  [2, 3]  weight/a\n";

}  // namespace

TEST_CASE("a manifest is read back as it was written, whatever the names") {
  std::vector<TensorSum> sums;
  for (const char* name :
       {"weight/b", "weight/a  b", "exp_avg/\n", "other/\\x41", "param/\xc3\xa9", "weight/\xff",
        "weight/\xe2\x80\xae"
        "evil",
        "step/"})
    sums.push_back({name, DType::kBF16, {3, 0, 7}, crc64_text(sums.size())});
  sums.push_back({"weight/scalar", DType::kF64, {}, "sha256:" + std::string(64, 'a')});
  const std::string text = manifest_text(sums);
  CHECK(text.starts_with(kFirst));
  for (const char c : text) CHECK((c == '\n' || static_cast<uint8_t>(c) >= 0x20));
  const std::vector<TensorSum> back = read_manifest(source(text));
  REQUIRE(back.size() == sums.size());
  for (size_t i = 1; i < back.size(); ++i) CHECK(back[i - 1].path < back[i].path);
  for (const TensorSum& want : sums) {
    const auto found =
        std::find_if(back.begin(), back.end(), [&](const TensorSum& s) { return s.path == want.path; });
    REQUIRE(found != back.end());
    CHECK(found->digest == want.digest);
    CHECK(found->shape == want.shape);
    CHECK(found->dtype == want.dtype);
  }
}

TEST_CASE("comments and empty lines are skipped, anything else is named by its line") {
  CHECK(problem(kFirst + "\n# more\n" + kLine).empty());
  CHECK(problem("").empty());
  CHECK(problem("nothing of the kind\n").find("line 1: expected `# uckpt sum 1`") != std::string::npos);
  for (const char* line :
       {"crc64:0123  fp32  [2]  weight/a", "crc64:0123456789abcdeF  fp32  [2]  weight/a",
        "crc65:0123456789abcdef  fp32  [2]  weight/a", "crc64:0123456789abcdef  fp33  [2]  weight/a",
        "crc64:0123456789abcdef  fp32  [2,3]  weight/a", "crc64:0123456789abcdef  fp32  [-2]  weight/a",
        "crc64:0123456789abcdef  fp32  [2]  a", "crc64:0123456789abcdef  fp32  [2]",
        "crc64:0123456789abcdef  fp32  [2]  weight/\\x4", "crc64:0123456789abcdef fp32 [2] weight/a"}) {
    CAPTURE(line);
    CHECK(problem(kFirst + kLine + line).find("line 3: expected DIGEST") != std::string::npos);
  }
  CHECK(problem(kFirst + kLine + kLine).find("twice") != std::string::npos);
}

TEST_CASE("any bytes are read or refused") {
  std::mt19937 rng(1);
  const std::string whole = kFirst + kLine + "sha256:" + std::string(64, '0') + "  u8  []  other/\\x0a\n";
  for (int i = 0; i < 3000; ++i) {
    std::string text = whole;
    for (int n = static_cast<int>(rng() % 4); n >= 0; --n)
      text[rng() % text.size()] = static_cast<char>(rng());
    text.resize(text.size() - rng() % 40);
    problem(text);
  }
}
