#include "lib/convert/resume.h"

#include <doctest/doctest.h>

using namespace uckpt;

using Lines = std::vector<std::string>;

TEST_CASE("what has changed since an interrupted run is told by its name") {
  const Lines request = {"version uckpt 1", "flag --to=dcp", "input 10 5.0 7 /in/a b",
                         "input 11 5.0 8 /in/c"};
  Lines then = request;
  then.insert(then.end(), {"kept 3 0", "plan 0123 in tasks of 5"});
  CHECK(!what_changed(then, request));
  const auto changed = [&](size_t line, const std::string& text) {
    Lines other = then;
    other[line] = text;
    return what_changed(other, request).value_or("");
  };
  CHECK(changed(0, "version uckpt 0").find("another version") != std::string::npos);
  CHECK(changed(1, "flag --to=hdf5") == "other flags were given");
  CHECK(changed(2, "input 10 5.1 7 /in/a b") == "/in/a b was changed since");
  CHECK(changed(3, "input 11 5.0 9 /in/c") == "/in/c was changed since");
  CHECK(changed(3, "input 11 5.0 8 /in/d") == "/in/c was no input of it");
  CHECK(what_changed({"version uckpt 1", "flag --to=dcp"}, request).value_or("") ==
        "/in/a b was no input of it");
  Lines more = then;
  more.insert(more.begin() + 4, "input 1 1.0 1 /in/e");
  CHECK(what_changed(more, request).value_or("") == "the input had more files");
  more = then;
  more.insert(more.begin() + 2, "flag --no-sync");
  CHECK(what_changed(more, request).value_or("") == "other flags were given");
}

TEST_CASE("the module weights that a run had come to keep") {
  const auto kept = kept_in({"version x", "kept 3 0", "kept 12 1", "kept x", "kept 5", "plan y"});
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].tensor == 3);
  CHECK(kept[1].tensor == 12);
  CHECK(kept[1].copy == 1);
}
