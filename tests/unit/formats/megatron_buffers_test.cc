// The layout of gradient buffers against what the buffers of a running megatron-core say of themselves.
#include "lib/formats/megatron/grad_buffers.h"
#include "torch_support.h"

using namespace uckpt;
using namespace uckpt::megatron;

namespace {

// Parameters of one buffer as the fixture lists them, and whether a bucket of its own shows a shared table.
std::vector<GradParameter> parameters_of(const nlohmann::json& buffer, bool is_tied,
                                         std::vector<std::string>& names) {
  std::vector<GradParameter> out;
  for (const nlohmann::json& p : buffer["params"]) {
    const std::string name = p["name"];
    GradParameter made;
    made.numel = p["end"].get<int64_t>() - p["start"].get<int64_t>();
    made.dtype = DType::kBF16;
    made.is_expert = buffer["optimizer"] == 1;
    made.is_shared_embedding =
        is_tied && (name == "embedding.word_embeddings.weight" || name == "output_layer.weight");
    out.push_back(made);
    names.push_back(name);
  }
  std::reverse(out.begin(), out.end());
  std::reverse(names.begin(), names.end());
  return out;
}

void compare(const nlohmann::json& truth, const GradBuffer& found, const std::vector<std::string>& names) {
  CHECK(found.numel == truth["numel"]);
  CHECK(found.numel_unpadded == truth["numel_unpadded"]);
  REQUIRE(found.buckets.size() == truth["buckets"].size());
  for (size_t b = 0; b < found.buckets.size(); ++b) {
    CHECK(found.buckets[b].offset == truth["buckets"][b]["offset"]);
    CHECK(found.buckets[b].numel == truth["buckets"][b]["numel"]);
    CHECK(found.buckets[b].numel_unpadded == truth["buckets"][b]["numel_unpadded"]);
  }
  REQUIRE(found.parameters.size() == truth["params"].size());
  for (size_t p = 0; p < found.parameters.size(); ++p) {
    CHECK(names[found.parameters[p].parameter] == truth["params"][p]["name"]);
    CHECK(found.parameters[p].start == truth["params"][p]["start"]);
    CHECK(found.parameters[p].bucket == truth["params"][p]["bucket"]);
  }
}

GradParameter dense(int64_t numel, DType dtype = DType::kBF16) { return {numel, dtype, false, false}; }

}  // namespace

TEST_CASE("gradient buffers are laid out as megatron-core lays them out") {
  for (const char* fixture : {"megatron_gpt2_tied", "megatron_llama_buckets", "megatron_llama_tp_pp",
                              "megatron_llama_uneven_stages", "megatron_moe_ep"}) {
    CAPTURE(fixture);
    const auto truth = torch_test::read_json(torch_test::data(cat("torch/", fixture, "/expected.json")));
    const auto& parallel = truth["parallel"];
    const bool is_tied = parallel["gpt2"] == true && parallel["pp"] > 1;
    for (const auto& rank : truth["grad_buffers"]) {
      for (const auto& buffer : rank["buffers"]) {
        std::vector<std::string> names;
        const auto parameters = parameters_of(buffer, is_tied, names);
        const BucketRule rule = bucket_rule(rank["rank"]["pp"], 0, parallel.value("bucket", 0));
        const auto found = grad_buffers(parameters, rule);
        REQUIRE(found.size() == 1);
        compare(buffer, found[0], names);
      }
    }
  }
}

TEST_CASE("a position in the coalesced form leaves out what pads the ends of buckets") {
  const std::vector<GradParameter> parameters = {dense(100), dense(70), dense(200), dense(10)};
  const auto found = grad_buffers(parameters, {.bucket_size = 200});
  REQUIRE(found.size() == 1);
  const GradBuffer& b = found[0];  // 10 at 0, 200 at 64: a bucket of 264 in 384; 70, 100 at 128 more
  REQUIRE(b.buckets.size() == 2);
  CHECK(b.buckets[0].numel_unpadded == 264);
  CHECK(b.buckets[1].offset == 384);
  CHECK(b.buckets[1].coalesced == 264);
  CHECK(b.parameters[2].start == 384);
  CHECK(b.parameters[2].coalesced == 264);
  CHECK(b.parameters[3].start == 512);
  CHECK(b.parameters[3].coalesced == 392);
  CHECK(b.numel_unpadded == 264 + 228);
  CHECK(b.numel == 640);
}

TEST_CASE("each kind and type of parameter has a buffer of its own, in the order of their first parameters") {
  const std::vector<GradParameter> parameters = {
      dense(8, DType::kF32), {16, DType::kBF16, true, false}, dense(8), dense(8, DType::kF32)};
  const auto found = grad_buffers(parameters, {});
  REQUIRE(found.size() == 3);
  CHECK(found[0].dtype == DType::kF32);
  CHECK(found[0].parameters[0].parameter == 3);
  CHECK(found[0].numel_unpadded == 72);
  CHECK(found[1].dtype == DType::kBF16);
  CHECK_FALSE(found[1].is_expert);
  CHECK(found[2].is_expert);
}

TEST_CASE("only the first chunk of the first stage has more than one bucket") {
  CHECK(bucket_rule(0, 0, 3000).bucket_size == 3000);
  CHECK(bucket_rule(1, 0, 3000).bucket_size == 0);
  CHECK(bucket_rule(0, 1, 3000).bucket_size == 0);
  CHECK(end_multiple_of(3, false) == 384);
  CHECK(end_multiple_of(256, false) == 256);
  CHECK(end_multiple_of(3, true) == 3 * 65536);
  CHECK(end_multiple_of(INT64_MAX, false) == 0);
  CHECK(default_bucket_size(8) == 40'000'000);
  CHECK(default_bucket_size(64) == 64'000'000);
  CHECK(other_rules(bucket_rule(1, 0, 3000), 3000).size() == 3);
}

TEST_CASE("gradient buffers that 64 bits cannot count are refused") {
  const auto refused_with = [](std::vector<GradParameter> parameters) -> std::string {
    try {
      (void)grad_buffers(parameters, {});
    } catch (const Error& e) {
      return e.code();
    }
    return "";
  };
  CHECK(refused_with({dense(INT64_MAX - 10), dense(100)}) == "megatron.buffer_size");
  CHECK(refused_with({dense(INT64_MAX)}) == "megatron.buffer_size");
  CHECK(refused_with({dense(-1)}) == "megatron.buffer_size");
  CHECK(refused_with({dense(0), dense(5)}) == "");
  CHECK(grad_buffers({}, {}).empty());
}
