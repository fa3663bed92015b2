#include "tools/options.h"

#include <doctest/doctest.h>

#include <functional>

#include "lib/base/text.h"

namespace uckpt::cli {
namespace {

using Sizes = std::map<std::string, int64_t, std::less<>>;

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return cat(e.code(), ": ", e.message());
  }
  return "";
}

TEST_CASE("--layout: sizes of a mesh") {
  CHECK(parse_layout("--layout", "").empty());
  CHECK(parse_layout("--layout", "tp=2") == Sizes{{"tp", 2}});
  CHECK(parse_layout("--layout", "tp=2,pp=4,zero=0") == Sizes{{"tp", 2}, {"pp", 4}, {"zero", 0}});
  for (const char* wrong : {"tp", "=2", "tp=2,", ",tp=2", "tp=2,,pp=4", ","}) {
    CHECK(message_of([&] { parse_layout("--layout", wrong); }) ==
          cat("usage.layout: --layout: expected sizes of a mesh such as tp=2,pp=4, found `", wrong, "`"));
  }
  CHECK(message_of([] { parse_layout("--layout", "tp=2,tp=2"); }) ==
        "usage.layout: --layout: the size of tp is given twice");
  CHECK(message_of([] { parse_layout("--layout", "tp=two"); }) ==
        "usage.number: --layout tp: expected a whole number from 0 up, found `two`");
  CHECK(message_of([] { parse_layout("--layout", "tp=-1"); }) ==
        "usage.number: --layout tp: expected a whole number from 0 up, found `-1`");
  CHECK(parse_layout("--layout", "dp=1000000") == Sizes{{"dp", 1'000'000}});
  CHECK(message_of([] { parse_layout("--layout", "dp=1000001"); }) ==
        "usage.layout: --layout dp: expected at most 1000000 ranks, found 1000001");
}

TEST_CASE("flags become what a conversion is asked") {
  ConvertFlags flags;
  flags.in = "in";
  flags.out = "out";
  flags.dtypes = {"fp32:**.router.weight", "bf16"};
  flags.layout = "tp=2,pp=4";
  const ConvertOptions options = flags.checked();
  CHECK(options.layout == Sizes{{"tp", 2}, {"pp", 4}});
  REQUIRE(options.dtypes.rules.size() == 2);
  CHECK(options.dtypes.rules[0].dtype == DType::kF32);
  CHECK(options.dtypes.rules[0].names.size() == 1);
  CHECK(options.dtypes.rules[1].dtype == DType::kBF16);
  CHECK(options.dtypes.rules[1].names.empty());
  flags.dtypes = {"bf16", "fp32:**.router.weight"};
  CHECK(message_of([&] { (void)flags.checked(); }) ==
        "usage.dtype: --dtype: `fp32:**.router.weight` changes nothing behind `bf16`, which takes every "
        "weight");
  flags.dtypes = {"bf16", "fp16"};
  CHECK(message_of([&] { (void)flags.checked(); }) ==
        "usage.dtype: --dtype: `fp16` changes nothing behind `bf16`, which takes every weight");
  flags.dtypes = {"bloat16"};
  CHECK(message_of([&] { (void)flags.checked(); }) ==
        "usage.dtype: --dtype: no element type is called `bloat16`");
}

TEST_CASE("--device: one of three, and which") {
  using Choice = exec::DeviceChoice;
  CHECK(parse_device("-d", "auto") == Choice{Choice::kAuto, 0});
  CHECK(parse_device("-d", "cpu") == Choice{Choice::kCpu, 0});
  CHECK(parse_device("-d", "cuda") == Choice{Choice::kCuda, 0});
  CHECK(parse_device("-d", "cuda:0") == Choice{Choice::kCuda, 0});
  CHECK(parse_device("-d", "cuda:17") == Choice{Choice::kCuda, 17});
  for (const char* wrong : {"", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:1x", "cuda0", "cuda:0,1", "cuda: 1",
                            "cuda:4294967296", "cuda:1024", "auto "})
    CHECK(message_of([&] { parse_device("--device", wrong); }) ==
          cat("usage.device: --device: expected auto, cpu or cuda:N, such as cuda:0, found `", wrong, "`"));
}

TEST_CASE("--device is no part of what decides a plan") {
  ConvertFlags flags;
  flags.in = "in";
  flags.out = "out";
  CHECK(flags.checked().device == exec::DeviceChoice{});
  const auto request = flags.checked().request;
  flags.device = "cuda:1";
  CHECK(flags.checked().device == exec::DeviceChoice{exec::DeviceChoice::kCuda, 1});
  CHECK(flags.checked().request == request);
  CHECK(flags.is_only_paths());
}

TEST_CASE("sizes and counts") {
  CHECK(parse_size("-s", "16G") == int64_t{16} << 30);
  CHECK(parse_size("-s", "512MiB") == int64_t{512} << 20);
  CHECK(parse_size("-s", "4096") == 4096);
  for (const char* wrong : {"", "0", "-1", "16Q", "16GB", "G", "99999999999T"})
    CHECK(message_of([&] { parse_size("-s", wrong); }) ==
          cat("usage.size: -s: expected a size such as 512M or 16G, found `", wrong, "`"));
  CHECK(parse_count("-j", "4", 1) == 4);
  CHECK(message_of([] { parse_count("-j", "0", 1); }) ==
        "usage.number: -j: expected a whole number from 1 up, found `0`");
}

}  // namespace
}  // namespace uckpt::cli
