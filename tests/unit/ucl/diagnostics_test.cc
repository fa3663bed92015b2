// The collector: order, limits, and the form for programs.
#include "lib/ucl/diagnostics.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"

using namespace uckpt;
using namespace uckpt::ucl;

TEST_CASE("messages come in the order of files and places") {
  const Source one("one.ucl", "aa bb cc\n"), two("two.ucl", "dd\n");
  Diagnostics d;
  d.know(one);
  d.error(two, {0, 2}, "ucl.c", "third");
  d.warning(one, {6, 8}, "ucl.b", "second");
  d.error(one, {0, 2}, "ucl.a", "first").note(two, {0, 2}, "there").hint("do it");
  CHECK(d.text() ==
        "one.ucl:1:1: error: first [ucl.a]\n"
        "    1 | aa bb cc\n"
        "      | ^^\n"
        "two.ucl:1:1: note: there\n"
        "    1 | dd\n"
        "      | ^^\n"
        "  hint: do it\n"
        "one.ucl:1:7: warning: second [ucl.b]\n"
        "    1 | aa bb cc\n"
        "      |       ^^\n"
        "two.ucl:1:1: error: third [ucl.c]\n"
        "    1 | dd\n"
        "      | ^^\n"
        "2 errors, 1 warning\n");
}

TEST_CASE("the form for programs") {
  const Source source("a \"b\".ucl", "x €y\n");
  Diagnostics d;
  d.error(source, {2, 6}, "ucl.a", "say `\\`").note(source, {0, 1}, "here").hint("or not");
  CHECK(d.json() ==
        R"({"uckpt":1,"diagnostics":[{"severity":"error","code":"ucl.a","file":"a \"b\".ucl","line":1,)"
        R"("column":3,"end_line":1,"end_column":5,"begin":2,"end":6,"message":"say `\\`","notes":[)"
        R"({"file":"a \"b\".ucl","line":1,"column":1,"end_line":1,"end_column":2,"begin":0,"end":1,)"
        R"("message":"here"}],"hint":"or not"}],"errors":1,"warnings":0})");
  CHECK(Diagnostics().json() == R"({"uckpt":1,"diagnostics":[],"errors":0,"warnings":0})");
}

TEST_CASE("many messages are counted, not shown") {
  const Source source("x", "x\n");
  Diagnostics d;
  for (int i = 0; i < 5000; ++i)
    d.error(source, {0, 1}, "ucl.a", cat("number ", i)).suggest("number", [] {
      return std::vector<std::string>{};
    });
  const std::string text = d.text(2);
  CHECK(text.find("number 1 ") != std::string::npos);
  CHECK(text.find("number 2 ") == std::string::npos);
  CHECK(text.ends_with("… and 4,998 more\n5,000 errors\n"));
  CHECK(d.errors() == 5000);
  CHECK(d.text(0) == "… and 5,000 more\n5,000 errors\n");
}

TEST_CASE("a suggestion is made where a name is near, and long enough to be mistyped") {
  const Source source("x", "x\n");
  const auto hint_for = [&](std::string name) {
    Diagnostics d;
    return d.error(source, {0, 1}, "a", "b")
        .suggest(name,
                 [] {
                   return std::vector<std::string>{"heads", "groups", "tp", "h"};
                 })
        .hint_text;
  };
  CHECK(hint_for("heds") == "did you mean `heads`?");
  CHECK(hint_for("group") == "did you mean `groups`?");
  CHECK(hint_for("layers") == "");
  CHECK(hint_for("g") == "");
}
