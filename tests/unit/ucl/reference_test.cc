// The manual: every example in it is run, every code in it exists, and every code has a snippet.
#include <doctest/doctest.h>

#include <set>

#include "lib/base/text.h"
#include "tests/unit/ucl/testing.h"

using namespace uckpt;
using namespace uckpt::ucl;
using namespace uckpt::ucl::testing;

namespace {

struct Fenced {
  std::string info, text;
};

std::vector<Fenced> fenced_blocks(const std::string& markdown) {
  std::vector<Fenced> out;
  size_t at = 0;
  while ((at = markdown.find("\n```", at)) != std::string::npos) {
    const size_t begin = markdown.find('\n', at + 1);
    const size_t end = markdown.find("\n```", begin - 1);
    REQUIRE(end != std::string::npos);
    out.push_back({markdown.substr(at + 4, begin - at - 4), markdown.substr(begin + 1, end - begin)});
    at = end + 4;
  }
  return out;
}

std::string whole(const Fenced& block) {
  if (block.info == "ucl statements") return "ucl 1\n" + block.text;
  if (block.info == "ucl rules") return cat("ucl 1\nlayout l over pp, tp, dp, ep {\n", block.text, "}\n");
  if (block.info == "ucl map") return cat("ucl 1\nmap a <-> b {\n", block.text, "}\n");
  return block.text;
}

std::string said(const std::string& text) {
  TestImporter importer;
  Diagnostics diagnostics;
  const Spec spec = read_spec(Source("spec.ucl", text), importer, diagnostics);
  check(spec, diagnostics);
  return diagnostics.text();
}

// Every `ucl.something` of a text.
std::set<std::string> codes_in(const std::string& text) {
  std::set<std::string> out;
  for (size_t at = 0; (at = text.find("ucl.", at)) != std::string::npos;) {
    size_t end = at + 4;
    while (end < text.size() &&
           ((text[end] >= 'a' && text[end] <= 'z') || text[end] == '_' || text[end] == '8'))
      ++end;
    const std::string code = text.substr(at, end - at);
    if (end > at + 4 && code != "ucl.yy" && code != "ucl.ll") out.insert(code);
    at = end;
  }
  return out;
}

}  // namespace

TEST_CASE("every example of the manual is right, or wrong as it says") {
  const std::vector<Fenced> blocks = fenced_blocks(read_file(kGrammar / "reference.md"));
  size_t examples = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (!blocks[i].info.starts_with("ucl")) continue;
    ++examples;
    CAPTURE(blocks[i].text);
    if (blocks[i].info == "ucl wrong") {
      REQUIRE(i + 1 < blocks.size());
      CHECK(said(blocks[i].text) == blocks[i + 1].text);
    } else {
      CHECK(said(whole(blocks[i])) == "");
    }
  }
  CHECK(examples >= 7);
}

TEST_CASE("the manual lists the codes that messages have, and each has a snippet") {
  std::set<std::string> used;
  for (const auto& entry : std::filesystem::directory_iterator(kGrammar / ".." / "lib" / "ucl"))
    if (entry.path().extension() == ".cc") used.merge(codes_in(read_file(entry.path())));
  used.merge(codes_in(read_file(kGrammar / "ucl.ll")));
  std::set<std::string> shown;
  for (const auto& entry : std::filesystem::directory_iterator(kGrammar / "invalid"))
    if (entry.path().extension() == ".expected") shown.merge(codes_in(read_file(entry.path())));

  const std::set<std::string> manual = codes_in(read_file(kGrammar / "reference.md"));
  for (const std::string& code : used) {
    CAPTURE(code);
    CHECK(manual.contains(code));
    const bool no_snippet_can_show = code == "ucl.utf8" || code == "ucl.limit_size" ||
                                     code == "ucl.limit_name" || code == "ucl.limit_blocks" ||
                                     code == "ucl.import_limit";
    CHECK((shown.contains(code) || no_snippet_can_show));
  }
  for (const std::string& code : manual) {
    CAPTURE(code);
    CHECK(used.contains(code));
  }
}
