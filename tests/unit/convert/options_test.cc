#include "lib/convert/options.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "lib/base/text.h"

namespace uckpt {
namespace {

Tensor tensor(std::string state, std::string name, DType dtype) {
  Tensor t;
  t.state = std::move(state);
  t.name = std::move(name);
  t.dtype = dtype;
  return t;
}

DTypeRules rules(std::initializer_list<const char*> texts) {
  DTypeRules out;
  for (const char* text : texts) out.rules.push_back(parse_dtype_rule(text));
  return out;
}

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return cat(e.code(), ": ", e.message(), e.hint_text().empty() ? "" : "; ", e.hint_text());
  }
  return "";
}

TEST_CASE("dtypes: the first rule that takes a name wins") {
  const DTypeRules r = rules({"fp32:**.router.weight", "keep:layers.{i}.norm*", "bf16"});
  const auto wanted = [&](const char* name) { return r.wanted(tensor("fp32", name, DType::kF32)); };
  CHECK(wanted("layers.3.router.weight") == DType::kF32);  // the one that it has
  CHECK(wanted("layers.3.norm_1") == std::nullopt);
  CHECK(wanted("layers.x.norm_1") == DType::kBF16);
  CHECK(wanted("layers.3.fc.weight") == DType::kBF16);
  CHECK(r.wanted(tensor("param", "a.router.weight", DType::kF16)) == DType::kF32);
  CHECK(r.wanted(tensor("param", "layers.0.norm.weight", DType::kF16)) == DType::kBF16);
  CHECK(r.wanted(tensor("param", "layers.0.norm", DType::kF16)) == std::nullopt);
  CHECK(rules({"fp32:a"}).wanted(tensor("param", "b", DType::kF16)) == std::nullopt);
  CHECK(DTypeRules().wanted(tensor("fp32", "a", DType::kF32)) == std::nullopt);
}

TEST_CASE("dtypes: floating weights only") {
  const DTypeRules r = rules({"bf16"});
  for (const char* state : {"exp_avg", "exp_avg_sq", "step", "buffer", "other", "objects"})
    CHECK(r.wanted(tensor(state, "a", DType::kF32)) == std::nullopt);
  for (const DType dtype : {DType::kI64, DType::kU8, DType::kBool, DType::kC64})
    CHECK(r.wanted(tensor("param", "a", dtype)) == std::nullopt);
  CHECK(r.wanted(tensor("param", "a", DType::kF64)) == DType::kBF16);
  CHECK(r.wanted(tensor("fp32", "a", DType::kF32)) == DType::kBF16);
}

TEST_CASE("dtypes: what is said of a flag that is wrong") {
  CHECK(message_of([] { parse_dtype_rule("bfloat16"); }) ==
        "usage.dtype: --dtype: no element type is called `bfloat16`; it is called `bf16` here");
  CHECK(message_of([] { parse_dtype_rule("f8_e4m"); }) ==
        "usage.dtype: --dtype: no element type is called `f8_e4m`; did you mean `f8_e4m3`?");
  CHECK(message_of([] { parse_dtype_rule(""); }) == "usage.dtype: --dtype: no element type is called ``");
  CHECK(message_of([] { parse_dtype_rule("i32"); }) ==
        "usage.dtype: --dtype: weights are not cast to i32: expected one of fp16, bf16, fp32, fp64, f8_e4m3, "
        "f8_e5m2");
  CHECK(message_of([] { parse_dtype_rule("bf16:a.{"); }) ==
        "usage.dtype: --dtype: `a.{` is no pattern of names: `{` without `}`");
  CHECK(message_of([] { parse_dtype_rule("bf16:"); }) ==
        "usage.dtype: --dtype: `` is no pattern of names: the name is empty");
}

// Options after the `convert` block of a program.
ConvertOptions with_block(const std::string& block, ConvertOptions options = {}) {
  const auto path = std::filesystem::temp_directory_path() / cat("uckpt_options_", ::getpid(), ".ucl");
  std::ofstream(path) << "ucl 1\nlayout ours { \"**\" replicate }\n" << block;
  options.rules.spec = path.string();
  options = with_convert_block(std::move(options));
  std::filesystem::remove(path);
  return options;
}

constexpr char kBlock[] = R"(convert {
    from deepspeed as ours
    to hdf5 as ours with tp = 2, pp = 4
    drop "a.{i}.*", "b"
    dtype keep for "**.ids", "c"
    dtype bf16
    states fp32, exp_avg
})";

TEST_CASE("the convert block fills what the flags left out") {
  const ConvertOptions o = with_block(kBlock);
  CHECK(o.to == "hdf5");
  CHECK(o.layout == std::map<std::string, int64_t, std::less<>>{{"tp", 2}, {"pp", 4}});
  CHECK(o.selection.states == std::vector<std::string>{"fp32", "exp_avg"});
  REQUIRE(o.dtypes.rules.size() == 2);
  CHECK(o.dtypes.wanted(tensor("fp32", "x.ids", DType::kF32)) == std::nullopt);
  CHECK(o.dtypes.wanted(tensor("fp32", "c", DType::kF32)) == std::nullopt);
  CHECK(o.dtypes.wanted(tensor("fp32", "d", DType::kF32)) == DType::kBF16);
  CHECK_FALSE(o.selection.takes(tensor("fp32", "a.1.w", DType::kF32)));
  CHECK_FALSE(o.selection.takes(tensor("exp_avg", "b", DType::kF32)));
  CHECK(o.selection.takes(tensor("fp32", "a.x.w", DType::kF32)));
  CHECK_FALSE(o.selection.takes(tensor("exp_avg_sq", "a.x.w", DType::kF32)));
}

TEST_CASE("flags go before the convert block, and what either drops is dropped") {
  ConvertOptions flags;
  flags.to = "safetensors";
  flags.layout = {{"tp", 8}};
  flags.dtypes = rules({"fp16"});
  flags.selection.states = {"param"};
  flags.selection.drop = {"z*"};
  const ConvertOptions o = with_block(kBlock, flags);
  CHECK(o.to == "safetensors");
  CHECK(o.layout == std::map<std::string, int64_t, std::less<>>{{"tp", 8}, {"pp", 4}});
  CHECK(o.dtypes.wanted(tensor("param", "c", DType::kF32)) == DType::kF16);
  CHECK(o.selection.states == std::vector<std::string>{"param"});
  CHECK_FALSE(o.selection.takes(tensor("param", "z", DType::kF32)));
  CHECK_FALSE(o.selection.takes(tensor("param", "b", DType::kF32)));
  CHECK(o.selection.takes(tensor("param", "d", DType::kF32)));
}

TEST_CASE("a program without a convert block, with errors, or with a type that nothing is cast to") {
  CHECK(with_block("").to.empty());
  CHECK(with_block("convert { to hdf5 as nobody }").to.empty());
  const std::string message = message_of([] { with_block("convert { dtype i8 }"); });
  CHECK(message.ends_with(
      ": dtype i8: weights are not cast to i8: expected one of fp16, bf16, fp32, fp64, f8_e4m3, f8_e5m2"));
}

TEST_CASE("the kind of input is that of the convert block") {
  const auto path = std::filesystem::temp_directory_path() / cat("uckpt_kind_", ::getpid(), ".ucl");
  std::ofstream(path) << "ucl 1\nlayout ours { \"**\" replicate }\n" << kBlock;
  RuleOptions r;
  CHECK(input_kind(r).empty());
  r.spec = path.string();
  CHECK(input_kind(r) == "deepspeed");
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace uckpt
