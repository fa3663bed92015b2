// Settings from one naming to another, by `config`.
#include "lib/layout/settings_map.h"

#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/ucl/check.h"

namespace uckpt::layout {
namespace {

constexpr char kProgram[] = R"(ucl 1
given heads from num_attention_heads | n_head,
      groups from num_query_groups | num_key_value_heads = heads,
      scaled from use_scaling | "rope.original" = 0,
      tie from shared | not untied = 0,
      bounded from kind == "bounded" = 0,
      span from size = 0,
      reach from "window[0]" = 0
map te <-> ours { "{x:**}" <-> "{x}" }
map ours <-> theirs { "{x:**}" <-> "{x}" }
config ours <-> theirs {
    layers <-> num_hidden_layers
    num_query_groups = groups <-> num_key_value_heads = groups
    not untied <-> shared = tie
    eps | old_eps = 1e-05 <-> rms_eps = 1e-06
    base <-> theta | "rope.theta" = 10000.0
    optional std <-> range
    norm == true <-> kind == "normed"
    norm == true <-> names == ["Normed"]
    norm = false | true <-> drop
    gated = true <-> drop
    drop <-> kind = "plain" | "normed" | "bounded"
    drop <-> names = ["Plain"] | ["Normed"]
    factor = 8.0 <-> "rope.factor" when scaled
    optional drop <-> bias = false
    off clamp, skip, offset <-> drop
    drop <-> off upcast
    optional types = "all" | "some" <-> drop
    optional often = 1 <-> drop
    "window[0]" = span - 1 <-> drop when bounded * span > 0
    "window[1]" = 0 <-> drop when bounded * span > 0
    drop <-> size = reach + 1 when reach > 0
}
)";

class NoImports : public ucl::Importer {
 public:
  std::optional<std::string> shipped(std::string_view) override { return std::nullopt; }
  std::optional<std::string> beside(std::string_view) override { return std::nullopt; }
};

using Texts = std::vector<std::string>;

struct Made {
  Made(std::string_view from, std::string_view to, const ModelSettings& settings, Settings sizes = {}) {
    NoImports importer;
    const ucl::Spec spec = ucl::read_spec(ucl::Source("test.ucl", kProgram), importer, diagnostics);
    ucl::check(spec, diagnostics);
    REQUIRE(diagnostics.text() == "");
    for (const auto& [key, value] : settings) {
      if (const auto* n = std::get_if<int64_t>(&value)) sizes.arguments.emplace(key, *n);
      if (const auto* b = std::get_if<bool>(&value)) sizes.arguments.emplace(key, *b);
      if (const auto* t = std::get_if<std::string>(&value)) sizes.texts.emplace(key, *t);
    }
    out = translate(spec, from, to, settings, sizes, diagnostics);
  }
  const ModelSettings& settings() const { return out.settings; }

  ucl::Diagnostics diagnostics;
  TranslatedSettings out;
};

const ModelSettings kSettings = {{"layers", int64_t{4}},
                                 {"num_attention_heads", int64_t{8}},
                                 {"num_query_groups", int64_t{2}},
                                 {"untied", true},
                                 {"eps", 1e-6},
                                 {"base", int64_t{10000}},
                                 {"gated", true},
                                 {"of_no_rule", int64_t{3}}};

TEST_CASE("settings: there and back") {
  const Made there("ours", "theirs", kSettings);
  CHECK(there.diagnostics.text() == "");
  CHECK(there.out.known);
  CHECK(there.out.lacking.empty());
  CHECK(there.settings() == ModelSettings{{"num_hidden_layers", int64_t{4}},
                                          {"num_key_value_heads", int64_t{2}},
                                          {"shared", false},
                                          {"rms_eps", 1e-6},
                                          {"theta", int64_t{10000}},
                                          {"kind", std::string("plain")},
                                          {"names", Texts{"Plain"}}});
  const Made back("theirs", "ours", there.settings());
  CHECK(back.diagnostics.text() == "");
  CHECK(back.settings() == ModelSettings{{"layers", int64_t{4}},
                                         {"num_query_groups", int64_t{2}},
                                         {"untied", true},
                                         {"eps", 1e-6},
                                         {"base", int64_t{10000}},
                                         {"norm", false},
                                         {"gated", true}});
}

TEST_CASE("settings: a map without a config leaves them as they are") {
  const Made over("te", "theirs", kSettings);
  CHECK(over.settings() == Made("ours", "theirs", kSettings).settings());
  const Made stays("te", "ours", kSettings);
  CHECK(stays.settings() == kSettings);
  CHECK(!stays.out.known);
}

TEST_CASE("settings: what lacks comes from sizes, from defaults, or is told") {
  Settings sizes;
  sizes.set["groups"] = 3;
  sizes.set["tie"] = 1;
  const Made made("ours", "theirs", {}, sizes);
  CHECK(made.settings() == ModelSettings{{"num_key_value_heads", int64_t{3}},
                                         {"shared", true},
                                         {"rms_eps", 1e-5},
                                         {"kind", std::string("plain")},
                                         {"names", Texts{"Plain"}}});
  CHECK(made.out.lacking == Texts{"num_hidden_layers"});  // `theta` has a default of its own
  const Made back("theirs", "ours", {{"rope.theta", 5e5}});
  CHECK(back.settings().at("base") == ModelSetting(5e5));
  CHECK(back.settings().at("eps") == ModelSetting(1e-6));
  CHECK(back.out.lacking == Texts{"layers", "num_query_groups"});
}

TEST_CASE("settings: values that correspond, in both directions") {
  ModelSettings ours = kSettings;
  ours["norm"] = true;
  const Made there("ours", "theirs", ours);
  CHECK(there.settings().at("kind") == ModelSetting(std::string("normed")));
  CHECK(there.settings().at("names") == ModelSetting(Texts{"Normed"}));
  CHECK(Made("theirs", "ours", there.settings()).settings().at("norm") == ModelSetting(true));
}

TEST_CASE("settings: a condition decides which rules there are") {
  ModelSettings ours = kSettings;
  CHECK(!Made("ours", "theirs", ours).settings().contains("rope.factor"));
  ours["use_scaling"] = true;
  CHECK(Made("ours", "theirs", ours).settings().at("rope.factor") == ModelSetting(8.0));
}

TEST_CASE("settings: an input that says otherwise is refused by name") {
  ModelSettings ours = kSettings;
  ours["gated"] = int64_t{0};
  const Made made("ours", "theirs", ours);
  CHECK(made.diagnostics.text() ==
        "test.ucl:21:5: error: the input's setting `gated` is 0: expected true [ucl.setting_differs]\n"
        "   21 |     gated = true <-> drop\n"
        "      |     ^^^^^^^^^^^^\n"
        "  hint: the map is of models that have it so: expected a spec of the model's own family\n"
        "1 error\n");
  CHECK(Made("theirs", "ours", {{"kind", std::string("other")}}).diagnostics.errors() == 1);
  CHECK(Made("theirs", "ours", {{"bias", true}}).diagnostics.errors() == 1);
  CHECK(Made("theirs", "ours", {{"bias", false}}).diagnostics.errors() == 0);
}

ModelSettings with(ModelSettings settings, const std::string& key, ModelSetting value) {
  settings[key] = std::move(value);
  return settings;
}

std::string message(std::string_view from, std::string_view to, const ModelSettings& settings) {
  const std::string text = Made(from, to, settings).diagnostics.text();
  const size_t begin = text.find("error: ");
  return begin == std::string::npos ? "" : text.substr(begin + 7, text.find(" [ucl.", begin) - begin - 7);
}

TEST_CASE("settings: what must be off is refused by name, and never written") {
  const Made there("ours", "theirs", kSettings);
  CHECK(!there.settings().contains("upcast"));
  const Made back("theirs", "ours", there.settings());
  for (const char* key : {"clamp", "skip", "offset"}) CHECK(!back.settings().contains(key));
  for (const ModelSetting& plain : {ModelSetting(false), ModelSetting(int64_t{0}), ModelSetting(0.0)})
    CHECK(message("ours", "theirs", with(kSettings, "offset", plain)) == "");
  CHECK(message("ours", "theirs", with(kSettings, "offset", 1.5)) ==
        "the input's setting `offset` is 1.5: expected false, 0 or no value");
  CHECK(message("ours", "theirs", with(kSettings, "clamp", std::string("no"))) ==
        "the input's setting `clamp` is \"no\": expected false, 0 or no value");
  CHECK(message("theirs", "ours", {{"upcast", true}}) ==
        "the input's setting `upcast` is true: expected false, 0 or no value");
  CHECK(message("theirs", "ours", {{"clamp", true}}) == "");  // of the other naming
}

TEST_CASE("settings: each item of a list must be as the value") {
  CHECK(message("ours", "theirs", with(with(kSettings, "skip[0]", int64_t{0}), "skip[1]", int64_t{0})) == "");
  CHECK(message("ours", "theirs", with(with(kSettings, "skip[0]", int64_t{0}), "skip[1]", int64_t{1})) ==
        "the input's setting `skip[1]` is 1: expected false, 0 or no value");
  CHECK(message("ours", "theirs", with(with(kSettings, "often[0]", int64_t{1}), "often[1]", int64_t{1})) ==
        "");
  CHECK(message("ours", "theirs", with(with(kSettings, "often[0]", int64_t{1}), "often[1]", int64_t{0})) ==
        "the input's setting `often[1]` is 0: expected 1");
  CHECK(message("ours", "theirs", with(kSettings, "types", Texts{"some", "all", "some"})) == "");
  CHECK(message("ours", "theirs", with(kSettings, "types", Texts{"all", "none"})) ==
        "the input's setting `types` is [\"all\", \"none\"]: expected \"all\" or \"some\"");
}

TEST_CASE("settings: a text decides which rules there are, and a list's item is a size") {
  const Made bounded("theirs", "ours", {{"kind", std::string("bounded")}, {"size", int64_t{4}}});
  CHECK(bounded.diagnostics.text() == "");
  CHECK(bounded.settings().at("window[0]") == ModelSetting(int64_t{3}));
  CHECK(bounded.settings().at("window[1]") == ModelSetting(int64_t{0}));
  CHECK(Made("ours", "theirs", bounded.settings()).settings().at("size") == ModelSetting(int64_t{4}));
  for (const char* kind : {"plain", "normed"})
    CHECK(!Made("theirs", "ours", {{"kind", std::string(kind)}, {"size", int64_t{4}}})
               .settings()
               .contains("window[0]"));
  CHECK(!Made("theirs", "ours", {{"size", int64_t{4}}}).settings().contains("window[0]"));
  CHECK(!Made("theirs", "ours", {{"kind", std::string("bounded")}}).settings().contains("window[0]"));
}

TEST_CASE("settings: what a person sets is a setting from there on") {
  NoImports importer;
  ucl::Diagnostics diagnostics;
  const ucl::Spec spec = ucl::read_spec(ucl::Source("test.ucl", kProgram), importer, diagnostics);
  Catalog catalog;
  catalog.settings = {{"n_head", int64_t{4}}, {"untied", false}};
  Settings sizes;
  sizes.set = {{"heads", 8}, {"tie", 0}, {"no_given", 1}};
  keep_what_was_set(catalog, spec, sizes);
  CHECK(catalog.settings == ModelSettings{{"n_head", int64_t{8}}, {"untied", true}});
  CHECK(catalog.arguments.at("n_head") == 8);
  CHECK(catalog.arguments.at("untied") == 1);
}

}  // namespace
}  // namespace uckpt::layout
