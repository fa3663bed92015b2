// What is taken of a run's `args`, whoever wrote them.
#include "lib/formats/megatron/arguments.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"
#include "megatron_support.h"

using namespace megatron_test;
using namespace uckpt::megatron;

namespace {

// The arguments of a dict that `fill` writes.
Arguments arguments(const std::function<void(pickle::Pickler&)>& fill) {
  pickle::Pickler out;
  out.begin_dict();
  fill(out);
  out.end_dict();
  const auto document = pickle::parse_whole(out.finish(), {});
  return Arguments::read(document->root());
}

Arguments numbers(const std::vector<std::pair<std::string, int64_t>>& list) {
  return arguments([&](pickle::Pickler& out) {
    for (const auto& [name, n] : list) {
      out.text(name);
      out.integer(n);
    }
  });
}

std::string thrown_by(const Arguments& arguments) {
  try {
    parallelism_of(arguments);
  } catch (const Error& e) {
    return e.code() + " " + e.message();
  }
  return "";
}

}  // namespace

TEST_CASE("megatron: the arguments of a run") {
  const auto file = torch::TorchFile::open(
      InputFile::open(fixture("megatron_gpt2_tied/legacy/iter_0000120/mp_rank_00_000/model_optim_rng.pt")));
  const Arguments args = Arguments::read(file->root().get("args"));
  CHECK(args.number("hidden_size") == 16);
  CHECK(args.truth("bf16") == true);
  CHECK(args.text("params_dtype") == "bf16");
  CHECK(args.text("normalization") == "LayerNorm");
  CHECK(std::get<double>(args.settings().at("adam_beta2")) == 0.95);
  for (const char* left_out : {"virtual_pipeline_model_parallel_size", "attention_backend", "data_path"})
    CHECK(!args.settings().contains(left_out));
  CHECK(!args.number("num_query_groups"));  // without grouped-query attention it says nothing
  CHECK(args.tied());
  CHECK(args.distributed_optimizer());
  CHECK(!args.bucket_size());
  const auto table = args.numbers();
  CHECK(table.at("bf16") == 1);
  CHECK(table.at("swiglu") == 0);
  CHECK(table.at("padded_vocab_size") == 128);
  CHECK(!table.contains("lr"));
  const Parallelism p = parallelism_of(args);
  CHECK(p.tp == 2);
  CHECK(p.pp == 2);
  CHECK(p.etp == 2);
  CHECK(p.world == 4);
}

TEST_CASE("megatron: the numbers of a list stand each under its place") {
  const auto list_of = [](pickle::Pickler& out, const std::string& key, auto... items) {
    out.text(key);
    out.begin_list();
    (out.integer(items), ...);
    out.end_list();
  };
  const Arguments args = arguments([&](pickle::Pickler& out) {
    list_of(out, "window_size", 4095, 0);
    list_of(out, "empty");
    out.text("data_path");
    out.begin_list();
    out.text("0.5");
    out.end_list();
  });
  CHECK(args.settings() == ModelSettings{{"window_size[0]", int64_t{4095}}, {"window_size[1]", int64_t{0}}});
}

TEST_CASE("megatron: no list is named so often that its items fill the memory") {
  try {
    arguments([](pickle::Pickler& out) {
      out.text("0");
      out.begin_list();
      for (int i = 0; i < 1000; ++i) out.integer(i);
      out.end_list();
      const pickle::Pickler::Memo list = out.last();
      for (int key = 1; key < 1000; ++key) {
        out.text(std::to_string(key));
        out.again(list);
      }
    });
    FAIL("a million values were taken");
  } catch (const Error& e) {
    CHECK(e.message() == "args: expected at most 262144 values, counting the items of lists");
  }
}

TEST_CASE("megatron: no arguments") {
  CHECK(Arguments::read({}).empty());
  CHECK(Arguments().tied());
  CHECK(parallelism_of({}).world == 1);
  CHECK(arguments([](pickle::Pickler& out) {
          out.integer(1);
          out.integer(2);
        }).empty());
}

TEST_CASE("megatron: degrees of parallelism") {
  const Parallelism p = parallelism_of(numbers({{"tensor_model_parallel_size", 4},
                                                {"pipeline_model_parallel_size", 2},
                                                {"expert_model_parallel_size", 8},
                                                {"expert_tensor_parallel_size", 1},
                                                {"context_parallel_size", 2},
                                                {"world_size", 32}}));
  CHECK(p.etp == 1);
  CHECK(p.cp == 2);
  CHECK(p.world == 32);
  CHECK(parallelism_of(numbers({{"model_parallel_size", 8}})).tp == 8);
  CHECK(parallelism_of(numbers({{"tensor_model_parallel_size", 8}})).etp == 8);
}

TEST_CASE("megatron: hostile degrees") {
  CHECK(thrown_by(numbers({{"tensor_model_parallel_size", 0}})) ==
        "megatron.arguments args.tensor_model_parallel_size: expected 1 to 1048576, found 0");
  CHECK(thrown_by(numbers({{"world_size", INT64_MIN}})).starts_with("megatron.arguments args.world_size: "));
  CHECK(thrown_by(
            numbers({{"tensor_model_parallel_size", 1 << 20}, {"pipeline_model_parallel_size", 1 << 20}})) ==
        "megatron.arguments args: expected at most 1048576 ranks, found 1048576 × 1048576");
  CHECK(
      thrown_by(numbers({{"tensor_model_parallel_size", 4}, {"world_size", 6}})) ==
      "megatron.arguments args.world_size: expected a multiple of 4 (tp × cp × pp) and of 4 (etp × ep × pp), "
      "found 6");
}
