#include "lib/formats/deepspeed/write/deepspeed_writer.h"

#include <algorithm>
#include <array>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/dcp/lost_state.h"
#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

// The newest version whose files these are; a loader wants one.
constexpr std::string_view kVersion = "0.19.8";

std::string version_of(const SourceObjects& source) {
  const pickle::Value model = source.model(0, 0).root;
  const pickle::Value version = model && model.is_dict() ? model.get("ds_version") : pickle::Value();
  return std::string(version ? version.text().value_or(kVersion) : kVersion);
}

bool is_bf16(const SourceObjects& source, const Parameters& parameters) {
  if (source.ds_config()) return source.config_flag("bf16", "enabled");
  for (const Named& n : parameters.all())
    if (n.is_trained()) return n.module_dtype == DType::kBF16;
  return false;
}

[[noreturn]] void refuse_layout(std::string text) { throw trouble("usage.layout", std::move(text)); }

// A size that nothing asks for would be taken for one that was granted.
void refuse_unknown_axes(const WriteRequest& request) {
  constexpr std::array<std::string_view, 5> kKnown = {"dp", "tp", "pp", "ep", "zero"};
  for (const auto& [axis, size] : request.mesh)
    if (std::ranges::find(kKnown, axis) == kKnown.end())
      refuse_layout(
          cat("--layout ", escape(axis, 40), ": a DeepSpeed checkpoint has dp, tp, pp, ep and zero"));
}

// AutoEP's layers: what their files cannot hold.
void check_fused(const TargetCheckpoint& target, int64_t ep) {
  const Parameters& parameters = target.parameters;
  const Catalog& catalog = parameters.catalog();
  if (parameters.fused().empty()) return;
  if (!parameters.moe().empty())
    throw refused("deepspeed.experts",
                  "it has layers of AutoEP beside other layers of experts: files of both "
                  "are not written")
        .in_file(catalog.path)
        .hint("--to deepspeed-universal, hdf5, safetensors or torch writes its tensors");
  if (target.tp > 1) refuse_layout("--layout tp: expected 1 for AutoEP's layers");
  for (const FusedExperts& layer : parameters.fused())
    if (layer.experts % ep != 0)
      refuse_layout(cat("--layout ep: ", ep, " ranks cannot share the ", layer.experts, " experts of ",
                        escape(layer.prefix, 100), " alike"));
  for (const Named& n : parameters.all())
    if (const FusedExperts* layer = layer_of(parameters.fused(), n.name);
        layer && (parameters.shape(n).empty() || parameters.shape(n)[0] != layer->experts))
      throw refused("deepspeed.experts", cat("expected rows of ", layer->experts,
                                             " experts, found the shape ", shape_text(parameters.shape(n))))
          .in_file(catalog.path)
          .in_tensor(n.name);
}

// What DeepSpeed itself does not train, and what the mesh's sizes do not allow.
void check(const TargetCheckpoint& target, int64_t ep) {
  const Parameters& parameters = target.parameters;
  const Catalog& catalog = parameters.catalog();
  if (target.stage < 1 || target.stage > 3)
    refuse_layout(cat("--layout zero: expected 1, 2 or 3, found ", target.stage));
  for (const auto& [axis, size] :
       {std::pair("dp", target.dp), std::pair("pp", target.pp), std::pair("ep", ep)})
    if (size < 1) refuse_layout(cat("--layout ", axis, ": expected at least 1 rank"));
  const bool is_pipeline = !parameters.pipeline().empty(), has_fused = !parameters.fused().empty(),
             has_experts = has_fused || !parameters.moe().empty();
  if (!is_pipeline && target.pp > 1)
    refuse_layout(
        cat("--layout pp: expected 1, as the input is no pipeline with files of layers, found ", target.pp));
  if (!is_pipeline && !target.source.empty() && catalog.mesh.pp > 1)
    throw refused("deepspeed.stages",
                  "it is a pipeline whose layer files are not there, and nothing else says "
                  "which layers it has")
        .in_file(catalog.path)
        .hint("--to deepspeed-universal, hdf5, safetensors or torch writes its tensors");
  if (is_pipeline && target.stage > 1)
    refuse_layout(
        cat("--layout zero: expected 1 for a pipeline, which DeepSpeed trains at no other stage, found ",
            target.stage));
  if (!has_experts && ep > 1)
    refuse_layout(cat("--layout ep: expected 1, as there are no experts, found ", ep));
  if (has_fused && target.stage == 3)
    refuse_layout(
        "--layout zero: expected 1 or 2 for AutoEP's experts, whose files of stage 3 are not written (a "
        "universal folder is for any stage: --to deepspeed-universal), found 3");
  if (has_experts && target.stage == 3)
    refuse_layout(
        "--layout zero: expected 1 or 2 for experts, which DeepSpeed does not train at stage 3, found 3");
  if (target.dp % ep != 0)
    refuse_layout(cat("--layout ep: expected a number that divides dp, ", target.dp, ", found ", ep));
  check_fused(target, ep);
  if (is_pipeline && has_experts)
    throw refused("deepspeed.experts",
                  "a pipeline with experts has files of its own kind, which are not written")
        .in_file(catalog.path);
  for (const Named& n : parameters.all())
    if (n.is_frozen() && target.stage == 2 && parameters.is_expert(n.name))
      throw refused("deepspeed.experts",
                    "it is frozen, and at stage 2 DeepSpeed would give all ranks the first one's")
          .in_file(catalog.path)
          .in_tensor(n.name)
          .hint("--layout zero=1 writes it");
}

int64_t asked(const WriteRequest& request, std::string_view axis, int64_t otherwise) {
  const auto found = request.mesh.find(axis);
  return found == request.mesh.end() ? otherwise : found->second;
}

// Flat buffers have no names: a loader takes the parameters as its program registers them.
void refuse_unknown_order(const Catalog& catalog, const Parameters& parameters) {
  if (parameters.order_is_known()) return;
  throw refused(
      "deepspeed.order",
      "nothing in it says in which order the program registers its parameters, and the flat buffers "
      "of a DeepSpeed checkpoint are cut in that order")
      .in_file(catalog.path)
      .hint("--spec with a rule for each parameter gives the order; --to deepspeed-universal needs none");
}

// Values that each rank has of its own, or that are no numbers: the reader has no tensors of them. What it
// has and was not selected is left out as asked.
void tell_lost_states(const Catalog& catalog, const SourceObjects& source, const Parameters& parameters,
                      std::vector<std::string>& notes) {
  std::set<std::string> lost = source.state_names();
  for (const auto* known : {&parameters.states(), &parameters.numbers()})
    for (const std::string& name : *known) lost.erase(name);
  for (const Tensor& t : catalog.tensors) lost.erase(t.state);
  std::string list;
  for (const std::string& name : lost) list += cat(list.empty() ? "" : ", ", escape(name, 40));
  if (!list.empty())
    notes.push_back(cat("left out, since it is neither cut like the weights nor one number for all ranks: ",
                        list, " of the optimizer's state"));
}

// What both kinds of output are made from.
struct Making {
  TargetLayout layout;
  std::vector<std::string> notes;
  SourceObjects source;
  Parameters parameters;
  ShardBook book;
  TargetCheckpoint target;

  Making(const Catalog& catalog, const WriteRequest& request, std::string folder)
      : source(catalog),
        parameters(catalog, request, source),
        book(catalog, layout, request.shards.get()),
        target{source, parameters, book, notes, std::move(folder), version_of(source)} {
    target.is_bf16 = is_bf16(source, parameters);
    tell_lost_states(catalog, source, parameters, notes);
    if (source.empty()) dcp::tell_lost_state(catalog, request.tensors, notes);
  }
  // Elements that the first tensor parallel rank has of a parameter that is trained.
  int64_t numel_of(const std::string& name) {
    const Named& n = parameters.at(name);
    const auto part = n.is_trained() ? book.find(*n.master) : std::nullopt;
    return part ? part->numel : 0;
  }
  // Puts experts and layers where they go.
  void place(int64_t ep, bool as_before, std::span<const int64_t> stage_sizes) {
    const auto numel = [this](const std::string& name) { return numel_of(name); };
    parameters.spread_over(ep, as_before, numel);
    for (const ParamGroup& g : parameters.groups())
      if (g.ep > 0 && target.dp % g.ep != 0)
        refuse_layout(cat("--layout dp: expected a number that ", g.ep,
                          " divides, as so many ranks share the experts of some layers, found ", target.dp));
    if (!parameters.pipeline().empty() && !target.is_universal)
      target.stages = Stages::make(parameters.catalog(), source, parameters.pipeline(), target.pp,
                                   stage_sizes, numel, notes);
    else if (!stage_sizes.empty())
      throw trouble("usage.stages", "--stages: the input is no pipeline");
  }
  TargetLayout finish() {
    layout.notes = std::move(notes);
    return std::move(layout);
  }
};

std::string tag_of(const Catalog& catalog) { return cat("global_step", catalog.iteration.value_or(0)); }

// All files of a model rank.
void add_rank(const TargetCheckpoint& target, int64_t model_rank) {
  ShardBook& book = target.book;
  book.turn_to(model_rank, model_rank % target.tp);
  for (const Named& n : target.parameters.all()) {
    if (n.is_trained() && target.holds(model_rank, n.name)) {
      book.own(*n.master);
      for (const auto& [state, tensor] : n.states) book.own(tensor);
    } else if (n.is_frozen() && target.stage == 3) {
      book.own(n.weight());
    }
  }
  const bool is_cut = target.stage == 3;
  const ModelForm form = is_cut ? ModelForm::kStage3 : ModelForm::kWhole;
  for (int64_t d = 0; d < (is_cut ? target.dp : 1); ++d) add_model_file(target, form, model_rank, d);
  for (int64_t d = 0; d < target.dp; ++d)
    is_cut ? add_optimizer_file3(target, model_rank, d) : add_optimizer_file12(target, model_rank, d);
}

}  // namespace

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  refuse_unknown_axes(request);
  const std::string tag = tag_of(catalog);
  Making making(catalog, request, tag + "/");
  refuse_unknown_order(catalog, making.parameters);
  TargetCheckpoint& target = making.target;
  target.stage = static_cast<int>(asked(request, "zero", std::max(1, catalog.zero_stage.value_or(1))));
  // Stages and ranks of experts of another framework's run say nothing of DeepSpeed's.
  const Mesh mesh = making.source.empty() ? Mesh{.dp = catalog.mesh.dp} : catalog.mesh;
  target.dp = asked(request, "dp", mesh.dp);
  target.tp = request.shards ? static_cast<int64_t>(request.shards->ranks.size()) : 1;
  target.pp = asked(request, "pp", mesh.pp);
  const int64_t ep = asked(request, "ep", mesh.ep);
  check(target, ep);
  target.ep = ep;
  making.place(ep, !request.mesh.contains("ep"), request.stage_sizes);
  add_text_file(making.layout, "latest", tag);
  for (int64_t m = 0; m < target.pp * target.tp; ++m) add_rank(target, m);
  for (int64_t t = 0; t < target.tp; ++t) {  // those of a tensor parallel rank's first stage
    making.book.turn_to(t, t);
    if (target.stages) add_layer_files(target, t);
    add_expert_files(target, t);
  }
  return making.finish();
}

// Loaders count the model files of their own kind, and want as many as `mp_world_size` in them says: one.
TargetLayout lay_out_universal(const Catalog& catalog, const WriteRequest& request) {
  const std::string folder = tag_of(catalog) + "_universal";
  Making making(catalog, request, folder + "/");
  making.target.stage = std::clamp(catalog.zero_stage.value_or(1), 1, 3);
  making.target.is_universal = true;
  making.place(1, false, request.stage_sizes);
  add_text_file(making.layout, "latest_universal", folder);
  add_universal_files(making.target);
  add_model_file(making.target, ModelForm::kWhole, 0, 0);
  add_model_file(making.target, ModelForm::kStage3, 0, 0);
  return making.finish();
}

}  // namespace uckpt::deepspeed
