// Incomplete, stale, doubled and mixed folders: each is named before anything is written, whole message by
// whole message.
#include <unistd.h>

#include <algorithm>

#include "tests/unit/formats/deepspeed_support.h"

using namespace deepspeed_test;

namespace {

// What a conversion would say; the catalog itself must still open.
std::string refusal_of(const Scratch& scratch) {
  const Catalog c = read_checkpoint(scratch.path());
  REQUIRE(c.refusal);
  CHECK(c.refusal->exit_code() == 1);
  CHECK(!c.tensors.empty());
  std::string line = c.refusal->code() + " " + c.refusal->line();
  for (size_t at; (at = line.find(scratch.path() + "/")) != line.npos;)
    line.erase(at, scratch.path().size() + 1);
  return line;
}

std::string thrown_by(const std::string& path, const std::string& root) {
  try {
    read_checkpoint(path);
  } catch (const Error& e) {
    std::string line = e.code() + " " + e.line();
    for (size_t at; (at = line.find(root)) != line.npos;) line.erase(at, root.size());
    return line;
  }
  FAIL("it opened");
  return "";
}

void write_text(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

}  // namespace

TEST_CASE("deepspeed: a missing rank file") {
  const Scratch s("zero3-dp4-subgroups");
  s.remove("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt");
  CHECK(refusal_of(s) ==
        "deepspeed.missing_files global_step4: zero_pp_rank_1_mp_rank_00_optim_states.pt is missing (ranks "
        "0, 2-3 are "
        "here); 84 tensors cannot be rebuilt");
  const Catalog c = read_checkpoint(s.path());
  CHECK(find(c, "fp32/gain")->refusal.empty());  // one element: rank 0 has it
  CHECK(find(c, "fp32/emb.weight")->refusal ==
        "a part of it lies in zero_pp_rank_1_mp_rank_00_optim_states.pt, which cannot be read");
  CHECK(find(c, "step/emb.weight")->refusal.empty());
}

TEST_CASE("deepspeed: several missing rank files") {
  const Scratch s("zero2-dp3");
  s.remove("global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt");
  s.remove("global_step4/zero_pp_rank_2_mp_rank_00_optim_states.pt");
  CHECK(refusal_of(s).starts_with(
      "deepspeed.missing_files global_step4: zero_pp_rank_0_mp_rank_00_optim_states.pt and 1 more "
      "files are missing (rank 1 is here); "));
}

TEST_CASE("deepspeed: missing model files") {
  const Scratch stage1("zero1-dp2");
  stage1.remove("global_step4/mp_rank_00_model_states.pt");
  CHECK(thrown_by(stage1.path(), stage1.path()) ==
        "deepspeed.missing_files /global_step4: mp_rank_00_model_states.pt is missing: without it no tensor "
        "has a name or a "
        "shape");
  const Scratch stage3("zero3-dp2");
  stage3.remove("global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt");
  CHECK(refusal_of(stage3) ==
        "deepspeed.missing_files global_step4: zero_pp_rank_1_mp_rank_00_model_states.pt is missing (rank 0 "
        "is here); 1 tensor "
        "cannot be rebuilt");
  const Scratch stage3_first("zero3-dp2");
  stage3_first.remove("global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt");
  CHECK(refusal_of(stage3_first).starts_with("deepspeed.missing_files "));
  const Scratch pipe("pipe-pp2-dp2");
  pipe.remove("global_step3/mp_rank_01_model_states.pt");
  CHECK(refusal_of(pipe) == "deepspeed.missing_files global_step3: mp_rank_01_model_states.pt is missing");
}

TEST_CASE("deepspeed: missing layer and expert files") {
  const Scratch pipe("pipe-pp2-dp2");
  pipe.remove("global_step3/layer_02-model_00-model_states.pt");
  CHECK(refusal_of(pipe) ==
        "deepspeed.missing_files global_step3: layer_02-model_00-model_states.pt is missing");
  const Scratch moe("moe-ep2-zero1-dp4");
  moe.remove("global_step3/layer_0_expert_2_mp_rank_00_model_states.pt");
  CHECK(refusal_of(moe) ==
        "deepspeed.missing_files global_step3: layer_0_expert_2_mp_rank_00_model_states.pt is missing");
  const Scratch plain("moe-ep2-nozero-dp2");
  plain.remove("global_step3/expp_rank_1_mp_rank_00_optim_states.pt");
  CHECK(refusal_of(plain) ==
        "deepspeed.missing_files global_step3: expp_rank_1_mp_rank_00_optim_states.pt is missing");
  const Scratch tied("pipe-pp2-dp2");  // the layer of a weight that both stages train
  tied.remove("global_step3/layer_00-model_00-model_states.pt");
  CHECK(refusal_of(tied) ==
        "deepspeed.missing_files global_step3: layer_00-model_00-model_states.pt is missing");
  const Scratch last("moe-ep2-nozero-dp2");  // the model file says how many there are
  last.remove("global_step3/layer_0_expert_3_mp_rank_00_model_states.pt");
  CHECK(refusal_of(last) ==
        "deepspeed.missing_files global_step3: layer_0_expert_3_mp_rank_00_model_states.pt is missing");
}

TEST_CASE("deepspeed: layers, experts and files of no name in a checkpoint that has none") {
  const Scratch s("zero1-dp2");
  const size_t before = read_checkpoint(s.path()).tensors.size();
  fs::copy(fixture("pipe-pp2-dp2") + "/ckpt/global_step3/layer_02-model_00-model_states.pt",
           s.file("global_step4/layer_09-model_00-model_states.pt"));
  fs::copy(fixture("moe-ep2-zero2-dp2") + "/ckpt/global_step3/layer_0_expert_0_mp_rank_00_model_states.pt",
           s.file("global_step4/layer_0_expert_0_mp_rank_00_model_states.pt"));
  write_text(s.file("global_step4/random.pt"), "?");
  const Catalog c = read_checkpoint(s.path());
  CHECK(!c.refusal);
  CHECK(c.tensors.size() == before);
  REQUIRE(c.warnings.size() == 2);
  CHECK(c.warnings[1] == "random.pt is not part of this checkpoint: not read");
  CHECK(c.warnings[0] ==
        "layer_09-model_00-model_states.pt, layer_0_expert_0_mp_rank_00_model_states.pt are not part of this "
        "checkpoint (1 model × 2 data ranks): left from another run, not read");
}

TEST_CASE("deepspeed: a truncated file") {
  const Scratch s("zero2-dp3");
  s.truncate("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt");
  const Catalog c = read_checkpoint(s.path());
  REQUIRE(c.refusal);
  CHECK(c.refusal->file() == s.path() + "/global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt");
  CHECK(c.refusal->hint_text().ends_with(" tensors cannot be rebuilt without it"));
  CHECK(find(c, "fp32/emb.weight")->shape == Shape{37, 11});
  const Scratch model("zero1-dp2");
  model.truncate("global_step4/mp_rank_00_model_states.pt");
  CHECK(thrown_by(model.path(), model.path()).find("/global_step4/mp_rank_00_model_states.pt") !=
        std::string::npos);
}

TEST_CASE("deepspeed: two files for one rank") {
  const Scratch s("zero1-dp2");
  s.copy("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt",
         "global_step4/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt");
  CHECK(refusal_of(s) ==
        "deepspeed.duplicate_rank global_step4: bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt and "
        "zero_pp_rank_1_mp_rank_00_optim_states.pt both claim to be rank 1 of model rank 0: one of them is "
        "left from another "
        "run");
}

TEST_CASE("deepspeed: one rank's file under another's name") {
  const auto overwrite = [](const Scratch& s, const std::string& from, const std::string& to) {
    fs::copy_file(s.file("global_step4/" + from), s.file("global_step4/" + to),
                  fs::copy_options::overwrite_existing);
  };
  const Scratch stage3("zero3-dp2");
  overwrite(stage3, "zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_pp_rank_1_mp_rank_00_optim_states.pt");
  CHECK(refusal_of(stage3) ==
        "deepspeed.duplicate_rank global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt: its tensors are "
        "the same bytes as "
        "those of zero_pp_rank_0_mp_rank_00_optim_states.pt: one rank's file under two names");
  // Two files that changed places: no bytes are doubled, but the files know where their partitions begin.
  const Scratch stage2("zero2-dp3");
  overwrite(stage2, "zero_pp_rank_0_mp_rank_00_optim_states.pt", "spare");
  overwrite(stage2, "zero_pp_rank_1_mp_rank_00_optim_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt");
  overwrite(stage2, "spare", "zero_pp_rank_1_mp_rank_00_optim_states.pt");
  CHECK(refusal_of(stage2) ==
        "deepspeed.duplicate_rank global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt: group 0: its "
        "partition begins with "
        "51 elements of blocks.0.fc1.weight: expected 363 of blocks.0.qkv.weight: the file belongs to "
        "another rank");
}

TEST_CASE("deepspeed: a universal state of another shape") {
  const Scratch s("universal-zero1-dp2");
  const std::string zero = "global_step4_universal/zero/";
  fs::copy_file(s.file(zero + "emb.weight/exp_avg.pt"), s.file(zero + "norm.weight/exp_avg.pt"),
                fs::copy_options::overwrite_existing);
  CHECK(refusal_of(s) ==
        "deepspeed.sizes global_step4_universal/zero/norm.weight/exp_avg.pt::norm.weight: expected the shape "
        "[11] of its fp32 "
        "weight, found [37, 11]");
}

TEST_CASE("deepspeed: files of a larger, older run are named and not read") {
  const Scratch s("zero1-dp2");
  s.copy("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt",
         "global_step4/zero_pp_rank_2_mp_rank_00_optim_states.pt");
  s.copy("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt",
         "global_step4/zero_pp_rank_3_mp_rank_01_optim_states.pt");
  s.copy("global_step4/mp_rank_00_model_states.pt", "global_step4/mp_rank_01_model_states.pt");
  const Catalog c = read_checkpoint(s.path());
  CHECK(!c.refusal);
  REQUIRE(c.warnings.size() == 1);
  CHECK(c.warnings[0] ==
        "zero_pp_rank_2_mp_rank_00_optim_states.pt, zero_pp_rank_3_mp_rank_01_optim_states.pt, "
        "mp_rank_01_model_states.pt are "
        "not part of this checkpoint (1 model × 2 data ranks): left from another run, not read");
}

TEST_CASE("deepspeed: files of two runs") {
  const Scratch s("zero2-dp3");
  fs::copy_file(fixture("zero1-dp2") + "/ckpt/global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt",
                s.file("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt"),
                fs::copy_options::overwrite_existing);
  CHECK(refusal_of(s) ==
        "deepspeed.mixed_runs global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt: zero_stage: expected "
        "2, found 1, as in "
        "zero_pp_rank_0_mp_rank_00_optim_states.pt: the files come from different saves");
  const Scratch elastic("zero1-dp2");
  fs::copy_file(fixture("zero1-dp2-elastic") + "/ckpt/global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt",
                elastic.file("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt"),
                fs::copy_options::overwrite_existing);
  CHECK(refusal_of(elastic).starts_with("deepspeed.mixed_runs "));
  const Scratch model("zero3-dp2");
  fs::copy_file(
      fixture("zero3-dp4-subgroups") + "/ckpt/global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt",
      model.file("global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt"),
      fs::copy_options::overwrite_existing);
  CHECK(refusal_of(model) ==
        "deepspeed.mixed_runs global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt: dp_world_size: "
        "expected 2, found 4, as "
        "in zero_pp_rank_0_mp_rank_00_model_states.pt: the files come from different saves");
}

TEST_CASE("deepspeed: partitions that do not fit param_shapes") {
  const Scratch s("zero1-dp2-elastic");
  // The model of another run: it has more layers.
  fs::copy_file(fixture("zero1-dp2") + "/ckpt/global_step4/mp_rank_00_model_states.pt",
                s.file("global_step4/mp_rank_00_model_states.pt"), fs::copy_options::overwrite_existing);
  CHECK(refusal_of(s) ==
        "deepspeed.sizes global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt: group 0: 2 ranks hold up to "
        "568 elements each: "
        "expected room for the 2255 of param_shapes");
}

TEST_CASE("deepspeed: no optimizer files") {
  const Scratch s("bf16-zero1-dp2");
  s.remove("global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt");
  s.remove("global_step4/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt");
  const Catalog c = read_checkpoint(s.path());
  CHECK(!c.refusal);
  CHECK(!c.zero_stage);
  REQUIRE(c.warnings.size() == 1);
  CHECK(c.warnings[0] == "there are no optimizer files here: only the module's weights can be read");
  REQUIRE(find(c, "param/gain"));
  CHECK(find(c, "param/gain")->dtype == DType::kBF16);
  CHECK(find(c, "param/head.weight")->alias);
  CHECK(find(c, "buffer/seen")->dtype == DType::kI64);
  const Scratch stage3("zero3-dp2");
  stage3.remove("global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt");
  stage3.remove("global_step4/zero_pp_rank_1_mp_rank_00_optim_states.pt");
  CHECK(refusal_of(stage3).starts_with(
      "deepspeed.missing_files global_step4: zero_pp_rank_0_mp_rank_00_optim_states.pt and 1 "
      "more files are missing (none of its ranks is here); "));
}

TEST_CASE("deepspeed: which checkpoint is meant") {
  const Scratch s("zero1-dp2");
  write_text(s.file("latest"), "global_step5");
  CHECK(thrown_by(s.path(), s.path()) ==
        "deepspeed.no_tag /latest: it names the checkpoint \"global_step5\", and no such folder is here");
  try {
    read_checkpoint(s.path());
  } catch (const Error& e) {
    CHECK(e.hint_text() == "name the folder of a checkpoint itself; here are global_step4");
  }
  write_text(s.file("latest"), "../zero1-dp2");
  CHECK(thrown_by(s.path(), s.path()).starts_with("deepspeed.no_tag /latest: "));
  write_text(s.file("latest"), "global_step4\n");
  CHECK(!read_checkpoint(s.path()).refusal);
  fs::create_directories(s.file("run/1"));
  fs::copy(s.file("global_step4"), s.file("run/1/step4"), fs::copy_options::recursive);
  write_text(s.file("latest"), "run/1/step4");  // as `tag="run/1/step4"` makes it
  const Catalog nested = read_checkpoint(s.path());
  CHECK(!nested.refusal);
  CHECK(std::ranges::count(nested.facts, std::pair<std::string, std::string>("tag", "run/1/step4")) == 1);
  for (const std::string& out : {std::string("run/../run/1/step4"), std::string("run//1/step4"),
                                 s.file("run/1/step4").string(), std::string(".")}) {
    write_text(s.file("latest"), out);
    CHECK_MESSAGE(thrown_by(s.path(), s.path()).starts_with("deepspeed.no_tag /latest: "), out);
  }
  const Scratch elsewhere("zero1-dp2");
  fs::create_directory_symlink(elsewhere.path(), s.file("run/link"));
  write_text(s.file("latest"), "run/link/global_step4");
  CHECK(thrown_by(s.path(), s.path()).starts_with("name.escapes : "));
  fs::remove_all(s.file("run"));
  s.remove("latest");
  const Catalog only = read_checkpoint(s.path());
  REQUIRE(only.warnings.size() == 1);
  CHECK(only.warnings[0] == "there is no `latest`; global_step4 is the only checkpoint here");
  fs::copy(s.file("global_step4"), s.file("global_step10"), fs::copy_options::recursive);
  CHECK(
      thrown_by(s.path(), s.path()) ==
      "deepspeed.no_latest : there is no `latest`, and 2 checkpoints are here: global_step4, global_step10");
}

TEST_CASE("deepspeed: a universal folder without a file") {
  const Scratch s("universal-zero1-dp2");
  s.remove("global_step4_universal/zero/gain/exp_avg.pt");
  CHECK(refusal_of(s) ==
        "deepspeed.missing_files global_step4_universal/zero/gain/exp_avg.pt: the file is missing");
  const Scratch t("universal-zero3-dp2");
  fs::remove_all(t.file("global_step4_universal/zero/gain"));
  CHECK(refusal_of(t) ==
        "deepspeed.missing_files global_step4_universal/zero/gain/fp32.pt: the file is missing");
  const Scratch u("universal-zero1-dp2");
  const Scratch v("universal-zero1-dp2");
  v.remove("global_step4_universal/zero/optimizer_state.pt");
  CHECK(refusal_of(v) ==
        "deepspeed.missing_files global_step4_universal: zero/optimizer_state.pt is missing: the optimizer's "
        "groups and steps are in it");
  u.truncate("global_step4_universal/zero/emb.weight/fp32.pt");
  CHECK(refusal_of(u).find("global_step4_universal/zero/emb.weight/fp32.pt") != std::string::npos);
}
