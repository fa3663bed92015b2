// The universal folder, such that engines of stages 1, 2 and 3 load it: whole parameters in dicts, both kinds
// of model file, both places of the optimizer's options (DeepSpeed 0.19.8:
// checkpoint/universal_checkpoint.py, runtime/zero/stage3.py).
#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/deepspeed_writer.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

constexpr std::string_view kState = "optimizer_state_dict";

void check_name(const TargetCheckpoint& target, const std::string& name) {
  const bool is_plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
  if (!is_plain)
    throw refused("deepspeed.name", "its name cannot be that of a folder, which a universal folder needs")
        .in_file(target.parameters.catalog().path)
        .in_tensor(name);
}

// {'param': whole tensor}, of AutoEP's experts with what says so
void add_state_file(const TargetCheckpoint& target, const std::string& name, const std::string& state,
                    uint32_t tensor) {
  OutputPickle file(target.book, cat(target.folder, "zero/", name, "/", state, ".pt"));
  const Tensor& t = target.parameters.catalog().tensors[tensor];
  file.out().begin_dict();
  if (const FusedExperts* layer = layer_of(target.parameters.fused(), name)) {  // ranks take rows of it
    file.entry("cat_dim", 0);
    file.key("is_expert_param"), file.out().boolean(true);
    file.entry("ep_num_experts", layer->experts);
  }
  file.key("param");
  file.tensor(target.book.whole(tensor, optimizer_dtype(t)), t.shape, true);
  file.out().end_dict();
  file.finish();
}

// DeepSpeed cuts every state but the step like its parameter.
void refuse_number(const TargetCheckpoint& target, const std::string& name, const std::string& state) {
  if (state == state::kStep) return;
  throw refused("deepspeed.universal_state",
                cat("a universal folder holds states of their parameter's shape and the step, and ", state,
                    " is one number"))
      .in_file(target.parameters.catalog().path)
      .in_tensor(name)
      .hint(cat("--to deepspeed writes it; --drop '", state, "/*' leaves it out"));
}

void add_parameter(const TargetCheckpoint& target, const Named& n) {
  check_name(target, n.name);
  for (const auto& [state, tensor] : n.numbers) refuse_number(target, n.name, state);
  add_state_file(target, n.name, "fp32", *n.master);
  for (const auto& [state, tensor] : n.states) add_state_file(target, n.name, state, tensor);
  const FlatParameter alone{n.name, n.name, target.parameters.shape(n), 0, 0, 0};
  for (const auto& [state, tensor] : n.numbers) {
    OutputPickle file(target.book, cat(target.folder, "zero/", n.name, "/", state, ".pt"));
    write_number(file, target, state, {alone});
    file.finish();
  }
}

void write_param_groups(OutputPickle& file, const TargetCheckpoint& target) {
  file.key("param_groups");
  file.out().begin_list();
  for (size_t g = 0; g < target.parameters.groups().size(); ++g)
    write_group_options(file, target, g, {static_cast<int64_t>(g)});
  file.out().end_list();
}

void add_optimizer_state(const TargetCheckpoint& target) {
  OutputPickle file(target.book, cat(target.folder, "zero/optimizer_state.pt"));
  pickle::Pickler& out = file.out();
  out.begin_dict();
  write_scaler(file, target);
  write_clip_grad(file, target);
  file.key("zero_stage");
  file.enumerator("deepspeed.runtime.zero.config", "ZeroStageEnum", target.stage);
  file.key("ds_version"), out.text(target.ds_version);
  write_param_groups(file, target);
  // Where an engine of stage 3 looks.
  file.key(kState);
  out.begin_dict();
  file.key("state");
  out.begin_dict();
  const std::vector<FlatGroup> groups = flat_groups(target, 0, 0);
  for (size_t g = 0; g < groups.size(); ++g) {
    out.integer(static_cast<int64_t>(g));
    out.begin_dict();
    for (const auto& [state, is_cut] : state_order(target)) {
      if (is_cut || !has_state(target, state, false, groups[g].parameters)) continue;
      file.key(state);
      write_number(file, target, state, groups[g].parameters);
    }
    out.end_dict();
  }
  out.end_dict();
  write_param_groups(file, target);
  out.end_dict();
  out.end_dict();
  file.finish();
}

}  // namespace

void add_universal_files(const TargetCheckpoint& target) {
  for (const Named& n : target.parameters.all())
    if (n.is_trained()) add_parameter(target, n);
  add_optimizer_state(target);
}

}  // namespace uckpt::deepspeed
