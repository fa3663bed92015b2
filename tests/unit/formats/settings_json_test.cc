// Settings as JSON, and back.
#include "lib/formats/settings_json.h"

#include <doctest/doctest.h>

#include <limits>

#include "lib/base/error.h"

using namespace uckpt;

namespace {

using Texts = std::vector<std::string>;

std::string code_of(std::string_view text) {
  ModelSettings settings;
  uckpt::Arguments arguments;
  try {
    settings_and_arguments_from(text, settings, arguments);
  } catch (const Error& e) {
    return e.code();
  }
  return "";
}

}  // namespace

TEST_CASE("settings of a config.json") {
  const ModelSettings found = settings_from_json(
      R"({"a": 3, "b": -1, "c": 1e-05, "d": 10000.0, "e": true, "f": null, "g": "x", "h": [1, null, false, "x", [2]], "i": ["A", "B"],
          "j": {"k": {"l": 2}, "m": null}, "n": 99999999999999999999, "o": 18446744073709551615})");
  CHECK(found == ModelSettings{{"a", int64_t{3}},
                               {"b", int64_t{-1}},
                               {"c", 1e-05},
                               {"d", 10000.0},
                               {"e", true},
                               {"g", std::string("x")},
                               {"h[0]", int64_t{1}},
                               {"h[2]", false},
                               {"i", Texts{"A", "B"}},
                               {"j.k.l", int64_t{2}},
                               {"n", 1e20}});
  CHECK(settings_from_json("[1]").empty());
}

TEST_CASE("a config.json of settings") {
  const ModelSettings settings = {{"model_type", std::string("llama")},
                                  {"eps", 1e-05},
                                  {"rope.theta", 10000.0},
                                  {"rope.kind", std::string("x")},
                                  {"tie", false},
                                  {"layers", int64_t{4}},
                                  {"names", Texts{"A"}},
                                  {"o.list[0]", int64_t{2}},
                                  {"o.list[1]", 0.5},
                                  {"o.list[3]", int64_t{1}},
                                  {"tie.no_object", int64_t{1}},
                                  {"none", std::numeric_limits<double>::infinity()}};
  const std::string text = config_json(settings);
  CHECK(text ==
        "{\n  \"eps\": 1e-05,\n  \"layers\": 4,\n  \"model_type\": \"llama\",\n  \"names\": [\n    \"A\"\n  "
        "],\n"
        "  \"o\": {\n    \"list\": [\n      2,\n      0.5\n    ]\n  },\n"
        "  \"rope\": {\n    \"kind\": \"x\",\n    \"theta\": 10000.0\n  },\n  \"tie\": false,\n"
        "  \"tie.no_object\": 1\n}\n");
  ModelSettings back = settings_from_json(text), expected = settings;
  expected.erase("none");
  expected.erase("o.list[3]");  // behind a gap
  CHECK(back == expected);
}

TEST_CASE("settings and arguments, there and back") {
  const ModelSettings settings = {{"groups", int64_t{1}}, {"a.b", 0.5}, {"c", std::string("\xff")}};
  const uckpt::Arguments arguments = {{"heads", 4}};
  ModelSettings s;
  uckpt::Arguments a;
  settings_and_arguments_from(settings_and_arguments(settings, arguments), s, a);
  CHECK(a == arguments);
  CHECK(s == ModelSettings{{"groups", int64_t{1}}, {"a.b", 0.5}, {"c", std::string("\xef\xbf\xbd")}});
  CHECK(code_of("{}") == "");
  CHECK(code_of("[1]") == "json.syntax");
  CHECK(code_of("{") == "json.syntax");
  CHECK(code_of(R"({"settings": {"a": 1, "a": 2}})") == "json.duplicate");
  CHECK(code_of(std::string(100, '[') + std::string(100, ']')) == "json.depth");
}
