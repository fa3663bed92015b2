// What the checks allow, and what they make of programs that lack something.
#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/tensor/dtype.h"
#include "lib/ucl/terms.h"
#include "lib/ucl/words.h"
#include "tests/unit/ucl/testing.h"

using namespace uckpt;
using namespace uckpt::ucl;
using namespace uckpt::ucl::testing;

namespace {

// The terms of the left side of a map's one rule, as `labels{axes}`.
std::string terms_text(const std::string& side) {
  Diagnostics diagnostics;
  const Program p = parse(Source("x", cat("map a <-> b { ", side, " <-> drop }")), diagnostics);
  CHECK(diagnostics.text() == "");
  const auto terms = terms_of(std::get<MapRule>(std::get<Map>(p.statements[0]).items[0]).left);
  if (!terms) return "too many";
  std::string out;
  for (const Term& t : *terms) out += cat(out.empty() ? "" : " ", t.labels_text(), t.axes_text());
  return out;
}

size_t count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("the terms of a side") {
  CHECK(terms_text("\"a.{i}.qkv\" [g (q: r | k: 1 | v: 1) d, h]") == "q{d g h i r} k{d g h i} v{d g h i}");
  CHECK(terms_text("q: \"b.{i}.q\" [g r d, h], k: \"b.{i}.k\" [g d, h]") == "q{d g h i r} k{d g h i}");
  CHECK(terms_text("\"a\"") == "{...}");
  CHECK(terms_text("\"a\" []") == "{}");
  CHECK(terms_text("\"a.{x:**}\" [..., (a: b | c: d)]") == "a{... b x} c{... d x}");
  CHECK(terms_text("x: \"a\" [(a: b | c: 1) (d: e | f: g)]") == "a d x{b e} c d x{e} a f x{b g} c f x{g}");
  CHECK(terms_text("\"a\" [(a: (b: c | d: e) | f: g)]") == "a b{c} a d{e} f{g}");
  CHECK(terms_text("\"a\" [((o h))]") == "{h o}");
}

TEST_CASE("a program that lacks something is not blamed for what may be in it") {
  const std::string lost =
      messages("ucl 1\ngiven heads from , groups\nlayout l over tp { \"a\" [x@tpp] * 1/zz }\n");
  CHECK(count(lost, "error:") == 1);
  const std::string missing =
      messages("ucl 1\nimport \"./none.ucl\"\nlayout l { use elsewhere \"a\" [h, h] }\n");
  CHECK(count(missing, "error:") == 2);
  CHECK(missing.find("ucl.import_missing") != std::string::npos);
  CHECK(missing.find("ucl.axis_twice") != std::string::npos);
}

TEST_CASE("imports: limits, and each file once") {
  TestImporter importer;
  Diagnostics diagnostics;
  const Spec spec = read_spec(Source("x.ucl", "ucl 1\nimport \"test/base\"\nimport \"test/base\"\n"),
                              importer, diagnostics);
  check(spec, diagnostics);
  CHECK(diagnostics.text() == "");
  CHECK(spec.files().size() == 2);
  CHECK(spec.layout("base"));
  CHECK(spec.map("hf", "base").reversed);
  CHECK(!spec.map("base", "hf").reversed);
  CHECK(spec.is_naming("hf"));
  CHECK(!spec.is_naming("nobody"));

  class Endless : public Importer {
   public:
    std::optional<std::string> shipped(std::string_view name) override {
      ++asked;
      return cat("ucl 1\nimport \"", name, "x\"\nimport \"", name, "y\"\n");
    }
    std::optional<std::string> beside(std::string_view) override { return std::nullopt; }
    int asked = 0;
  } endless;
  Diagnostics of_endless;
  read_spec(Source("x.ucl", "ucl 1\nimport \"x\"\n"), endless, of_endless);
  CHECK(of_endless.has_errors());
  CHECK(of_endless.text().find("ucl.import_limit") != std::string::npos);
  CHECK(endless.asked < 64);
}

TEST_CASE("the language knows every element type of the tool") {
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::string_view name = name_of(static_cast<DType>(i));
    CAPTURE(name);
    const auto names = dtype_names();
    CHECK(std::find(names.begin(), names.end(), name) != names.end());
  }
  for (const std::string& name : dtype_names()) CHECK(dtype_from_name(name));
  for (const char* foreign : {"bfloat16", "half", "float", "double", "int64", "uint8"}) {
    CAPTURE(foreign);
    CHECK(dtype_from_name(dtype_meant_by(foreign)) == dtype_from_torch(foreign));
  }
}

TEST_CASE("ten thousand rules") {
  std::string text = "ucl 1\nlayout l over tp {\n";
  for (int i = 0; i < 5000; ++i) text += cat("\"layers.{i}.m_", i, ".w\" [g@tp (q: r | k: 1 | v: 1) d, h]\n");
  text += "}\nmap l <-> m {\n";
  for (int i = 0; i < 5000; ++i)
    text += cat("\"layers.{i}.m_", i, ".w\" [(a: f | b: f), h] <-> a: \"a.{i}.", i, "\" [f, h], b: \"b.{i}.",
                i, "\" [f, h]\n");
  CHECK(messages(text + "}\n") == "");
}
