// Names, patterns and the matching of numbers with names, each by itself.
#include <doctest/doctest.h>

#include <string>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/folder.h"
#include "lib/formats/deepspeed/fused_experts.h"
#include "lib/formats/deepspeed/match.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/wrapped_names.h"

using namespace uckpt;
using namespace uckpt::deepspeed;

namespace {

std::string described(std::string_view name) {
  const auto f = parse_name(name);
  if (!f) return "-";
  constexpr const char* kRoles[] = {"model", "zero model", "optimizer",
                                    "layer", "expert",     "expert optimizer"};
  return cat(kRoles[static_cast<size_t>(f->role)], " M", f->model, " D", f->data, " L", f->layer, " E",
             f->expert);
}

std::string code_of(const std::vector<std::string>& patterns, const std::string& name,
                    std::optional<int64_t> rows = 3) {
  try {
    Vocabulary v;
    v.set(patterns, rows);
    return shape_text(v.logical(name, {5, 2}));
  } catch (const Error& e) {
    return e.code();
  }
}

using Slots = std::vector<std::vector<std::optional<Shape>>>;
using Taken = std::vector<std::vector<size_t>>;

}  // namespace

TEST_CASE("deepspeed: file names") {
  CHECK(described("mp_rank_00_model_states.pt") == "model M0 D0 L-1 E-1");
  CHECK(described("mp_rank_123_model_states.pt") == "model M123 D0 L-1 E-1");
  CHECK(described("zero_pp_rank_17_mp_rank_02_model_states.pt") == "zero model M2 D17 L-1 E-1");
  CHECK(described("zero_pp_rank_1023_mp_rank_00_optim_states.pt") == "optimizer M0 D1023 L-1 E-1");
  CHECK(described("bf16_zero_pp_rank_3_mp_rank_01_optim_states.pt") == "optimizer M1 D3 L-1 E-1");
  CHECK(described("fp16_zero_pp_rank_3_mp_rank_01_optim_states.pt") == "optimizer M1 D3 L-1 E-1");
  CHECK(described("zero_pp_rank_3_mp_rank_01optim_states.pt") == "optimizer M1 D3 L-1 E-1");
  CHECK(described("layer_07-model_01-model_states.pt") == "layer M1 D0 L7 E-1");
  CHECK(described("layer_107-model_states.pt") == "layer M0 D0 L107 E-1");
  CHECK(described("layer_2_expert_31_mp_rank_00_model_states.pt") == "expert M0 D0 L2 E31");
  CHECK(described("expert_31_mp_rank_00_model_states.pt") == "expert M0 D0 L-1 E31");
  CHECK(described("expp_rank_3_mp_rank_00_optim_states.pt") == "expert optimizer M0 D3 L-1 E-1");
  for (const char* other :
       {"mp_rank_00", "mp_rank__model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt.tmp",
        "model_states.pt", "layer_00-model_states.pt2", "mp_rank_99999999999_model_states.pt", ""}) {
    CHECK_MESSAGE(described(other) == "-", other);
  }
}

TEST_CASE("deepspeed: names of experts") {
  const std::string name = "moe.deepspeed_moe.experts.deepspeed_experts.12.up.weight";
  const auto at = parse_expert(name);
  REQUIRE(at);
  CHECK(at->number == 12);
  CHECK(at->layer(name) == "moe.deepspeed_moe.experts.deepspeed_experts.");
  CHECK(with_expert(name, *at, 345) == "moe.deepspeed_moe.experts.deepspeed_experts.345.up.weight");
  CHECK(parse_expert("deepspeed_moe.experts.deepspeed_experts.0.w"));
  CHECK(!parse_expert("mydeepspeed_moe.experts.deepspeed_experts.0.w"));
  CHECK(!parse_expert("deepspeed_moe.experts.deepspeed_experts.x.w"));
  CHECK(!parse_expert("deepspeed_moe.experts.deepspeed_experts.0"));
}

TEST_CASE("deepspeed: names in wrapped modules") {
  CHECK(state_dict_key("l.0._checkpoint_wrapped_module.fc.weight") == "l.0.fc.weight");
  CHECK(state_dict_key("_checkpoint_wrapped_module.a._checkpoint_wrapped_module.w") == "a.w");
  CHECK(state_dict_key("a.my_checkpoint_wrapped_module.w") == "a.my_checkpoint_wrapped_module.w");
  CHECK(state_dict_key("a._checkpoint_wrapped_module") == "a._checkpoint_wrapped_module");
  CHECK(state_dict_key("a..b.") == "a..b.");
  CHECK(state_dict_key("").empty());
  WrappedModules wrapped;
  wrapped.learn("l.1.fc.weight");
  CHECK(wrapped.empty());
  wrapped.learn("l.0._checkpoint_wrapped_module.fc.weight");
  wrapped.learn("m._checkpoint_wrapped_module._checkpoint_wrapped_module.a._checkpoint_wrapped_module.w");
  CHECK(wrapped.name_of("l.0.fc.weight") == "l.0._checkpoint_wrapped_module.fc.weight");
  CHECK(wrapped.name_of("l.0.shift") == "l.0._checkpoint_wrapped_module.shift");
  CHECK(wrapped.name_of("l.01.shift") == "l.01.shift");
  CHECK(wrapped.name_of("l.0") == "l.0");
  CHECK(wrapped.name_of("m.b") == "m._checkpoint_wrapped_module._checkpoint_wrapped_module.b");
  CHECK(wrapped.name_of("m.a.w") ==
        "m._checkpoint_wrapped_module._checkpoint_wrapped_module.a._checkpoint_wrapped_module.w");
  wrapped.learn("_checkpoint_wrapped_module.w");
  CHECK(wrapped.name_of("x") == "_checkpoint_wrapped_module.x");
}

TEST_CASE("deepspeed: vocabulary patterns match as re.match does") {
  CHECK(code_of({"word.weight"}, "word.weight") == "[3, 2]");
  CHECK(code_of({"word"}, "word.weight") == "[3, 2]");  // anchored at the start, not at the end
  CHECK(code_of({"weight"}, "word.weight") == "[5, 2]");
  CHECK(code_of({"^word\\.weight$"}, "word.weight") == "[3, 2]");
  CHECK(code_of({"layers\\.\\d+\\.w"}, "layers.12.w") == "[3, 2]");
  CHECK(code_of({"a|word"}, "word.weight") == "[3, 2]");
  CHECK(code_of({"word", "word.weight"}, "word.weight") == "deepspeed.pattern");  // two of one list
  CHECK(code_of({"word"}, "word", 9) == "deepspeed.sizes");
  CHECK(code_of({"word"}, "word", std::nullopt) == "deepspeed.pattern");
  CHECK(code_of({}, "word", std::nullopt) == "[5, 2]");
  for (const char* beyond :
       {"(?=word)", "(w)\\1", "word(?!x)", "(?P<a>w)(?P=a)", "[[:alpha:]]", "w{,3}", "w++", "("}) {
    CHECK_MESSAGE(code_of({beyond}, "word") == "deepspeed.pattern", beyond);
  }
  CHECK(code_of({"\\w+"}, "wörd") == "deepspeed.pattern");  // Unicode for Python, ASCII for RE2
}

TEST_CASE("deepspeed: numbers find their names") {
  const Shape a{2, 3}, b{3}, c{7, 2};
  Taken taken;
  // Weights and biases in two groups, a frozen one between them.
  CHECK(match_in_order({a, b, c, a, b}, {{a, a}, {b, b}}, taken) == Match::kUnique);
  CHECK(taken == Taken{{0, 3}, {1, 4}});
  CHECK(match_in_order({a, b}, {{a, b}}, taken) == Match::kUnique);
  CHECK(match_in_order({a, b}, {{b, a}}, taken) == Match::kNone);
  CHECK(match_in_order({a, b}, {{a, b, b}}, taken) == Match::kNone);
  CHECK(match_in_order({a, a}, {{a}, {a}}, taken) == Match::kSeveral);
  CHECK(match_in_order({a, a, b}, {{a, b}}, taken) == Match::kSeveral);  // which of the two is frozen?
  CHECK(match_in_order({}, {}, taken) == Match::kUnique);
  CHECK(match_in_order({}, {{a}}, taken) == Match::kNone);
  // An entry without a state needs no name; it gets one where only one is left.
  CHECK(match_in_order({a, b}, {{a, std::nullopt}}, taken) == Match::kUnique);
  CHECK(taken == Taken{{0, 1}});
  CHECK(match_in_order({a, c, c, b}, {{a, std::nullopt, b}}, taken) == Match::kUnique);
  CHECK(taken == Taken{{0, kNoMatch, 3}});
}

TEST_CASE("deepspeed: states tell the shape of their parameter") {
  const Shape a{2, 3}, number;
  CHECK(shape_of_states({{"step", number}, {"square_avg", a}}) == a);
  CHECK(shape_of_states({{"first", {5}}, {"second", {7}}, {"exp_avg", a}}) == a);
  CHECK(shape_of_states({{"step", number}, {"row_var", {2, 1}}, {"col_var", {1, 3}}}) == a);
  CHECK(shape_of_states({{"row_var", {4, 2, 1}}, {"col_var", {4, 1, 3}}}) == Shape{4, 2, 3});
  CHECK(shape_of_states({{"exp_avg_sq_row", {2}}, {"exp_avg_sq_col", {3}}}) == a);
  CHECK(shape_of_states({{"exp_avg_sq_row", {4, 2}}, {"exp_avg_sq_col", {4, 3}}}) == Shape{4, 2, 3});
  CHECK(shape_of_states({{"first", {5}}, {"second", {7}}}) == std::nullopt);
  CHECK(shape_of_states({{"step", number}}) == std::nullopt);
}

TEST_CASE("deepspeed: shapes that one parameter only has prove names, whatever the order") {
  const Shape a{2, 3}, b{3}, c{7, 2};
  Taken taken;
  bool is_proven = false;
  CHECK(match_numbers({a, b, c}, {{c, a}, {b}}, taken, is_proven) == Match::kUnique);
  CHECK((taken == Taken{{2, 0}, {1}} && is_proven));
  CHECK(match_numbers({a, c, c, b}, {{b, std::nullopt, a}}, taken, is_proven) == Match::kUnique);
  CHECK((taken == Taken{{3, kNoMatch, 0}} && is_proven));
  // The order of the model fits, and so would others.
  CHECK(match_numbers({a, b, a, b}, {{a, b, a, b}}, taken, is_proven) == Match::kUnique);
  CHECK((taken == Taken{{0, 1, 2, 3}} && !is_proven));
  CHECK(match_numbers({a, b, c}, {{a, a}}, taken, is_proven) == Match::kNone);
  CHECK(match_numbers({a, a, c}, {{c, a}}, taken, is_proven) == Match::kNone);
  CHECK(match_numbers({a, a, c}, {{a, c}}, taken, is_proven) == Match::kSeveral);
  CHECK(match_numbers({a}, {{a, std::nullopt}}, taken, is_proven) == Match::kNone);
}

TEST_CASE("deepspeed: rows of AutoEP's weights") {
  const std::vector<FusedExperts> layers = {{0, "a.experts", 4}, {1, "experts", 2}};
  CHECK(layer_of(layers, "a.experts.w1") == &layers[0]);
  CHECK(layer_of(layers, "experts.w3") == &layers[1]);
  for (const char* other : {"a.experts", "a.experts.w4", "a.experts.w1.0", "b.experts.w1", "w1", ""})
    CHECK_MESSAGE(!layer_of(layers, other), other);
  const auto row = fused_row(layers, "a.experts.w2.13");
  REQUIRE(row);
  CHECK(row->weight == "a.experts.w2");
  CHECK(row->expert == 13);
  for (const char* other : {"a.experts.w2", "a.experts.w2.", "a.experts.w2.-1", "a.experts.w2.1x",
                            "a.experts.w4.1", "a.experts.w2.99999999999999999999", "7"})
    CHECK_MESSAGE(!fused_row(layers, other), other);
}
