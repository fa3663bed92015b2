#include "lib/formats/deepspeed/model_file.h"

#include <algorithm>
#include <unordered_set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/optimizer_file.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

constexpr std::string_view kCounts[] = {"global_steps", "global_samples", "skipped_steps", "dp_world_size",
                                        "mp_world_size"};
// What the rest of the catalog says; the remaining keys may hold loose tensors.
constexpr std::string_view kModelStructure[] = {"module",
                                                "buffer_names",
                                                "optimizer",
                                                "param_shapes",
                                                "shared_params",
                                                "frozen_param_shapes",
                                                "frozen_param_fragments"};

void read_scalars(const Value& root, ModelFile& out) {
  for (const std::string_view key : kCounts) {
    if (const auto n = root.get(key).integer()) out.counts.emplace(key, *n);
  }
  if (const auto version = root.get("ds_version").text()) out.ds_version = *version;
  if (const Value dims = root.get("checkpoint_parallel_dimensions"); dims && dims.is_dict()) {
    out.tp_degree = dims.get("tp_degree").integer();
    out.pp_degree = dims.get("pp_degree").integer();
  }
}

// Those that the lists of names beside the module tell.
WrappedModules wrapped_modules(const ModelFile& lists, const Value& module) {
  WrappedModules out;
  const auto learn = [&](const ParamList& params) {
    for (const Param& p : params) out.learn(p.name);
  };
  if (lists.param_shapes) std::for_each(lists.param_shapes->begin(), lists.param_shapes->end(), learn);
  if (lists.frozen_shapes) learn(*lists.frozen_shapes);
  for (const std::string& name : lists.buffer_names) out.learn(name);
  for (const auto& [alias, name] : lists.shared) out.learn(alias), out.learn(name);
  // A dict that has such names itself means them.
  for (size_t i = 0; !out.empty() && module && module.is_dict() && i < module.size(); ++i) {
    const std::string_view key = module.entry(i).first.text().value_or("");
    if (state_dict_key(key) != key) return {};
  }
  return out;
}

// The named tensors of a state dict, in order; what is no tensor stays in the view.
std::vector<NamedTensor> read_state_dict(const torch::TorchFile& file, Source& source, const Value& dict,
                                         const WrappedModules& wrapped,
                                         const std::unordered_set<std::string_view>* only) {
  std::vector<NamedTensor> out;
  for (size_t i = 0; dict && dict.is_dict() && i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    if (!key.text()) continue;
    std::string name = wrapped.name_of(*key.text());
    if (only && !only->contains(name)) continue;
    auto info = file.tensor(value);
    if (!info) continue;
    source.keep(file, *info);
    out.push_back({std::move(name), std::move(*info)});
  }
  return out;
}

void read_frozen(const torch::TorchFile& file, const Value& root, const ModelFile* reference,
                 ModelFile& out) {
  const Value fragments = root.get("frozen_param_fragments");
  const auto& list = reference ? reference->frozen_shapes : out.frozen_shapes;
  if (!list || !fragments || !fragments.is_dict()) return;
  if (fragments.size() != list->size()) {
    throw refused("deepspeed.malformed",
                  cat("expected ", list->size(), " frozen fragments, found ", fragments.size()));
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const auto [key, value] = fragments.entry(i);
    auto info = file.tensor(value);
    if (key.text() != std::string_view((*list)[i].name) || !info) {
      throw refused("deepspeed.malformed",
                    "expected a fragment of each frozen parameter, in the order of the shapes")
          .in_tensor((*list)[i].name);
    }
    out.fragments.push_back(out.source.place_of(file, std::move(*info)));
  }
}

void read_names(const Value& root, ModelFile& out) {
  const Value buffers = root.get("buffer_names");
  for (size_t i = 0; buffers && buffers.is_sequence() && i < buffers.size(); ++i) {
    if (const auto name = buffers.at(i).text()) out.buffer_names.emplace_back(*name);
  }
  const Value shared = root.get("shared_params");
  for (size_t i = 0; shared && shared.is_dict() && i < shared.size(); ++i) {
    const auto [alias, name] = shared.entry(i);
    if (alias.text() && name.text()) out.shared.emplace_back(*alias.text(), *name.text());
  }
}

// Whole numbers and truths among the client state's `args`, a dict or an argparse.Namespace.
void read_arguments(const Value& args, ModelFile& out) {
  const Value dict = args && !args.is_dict() ? args.state() : args;
  for (size_t i = 0; dict && dict.is_dict() && i < dict.size(); ++i) {
    const auto [key, value] = dict.entry(i);
    if (!key.text()) continue;
    const auto number = value.integer();
    const auto truth = value.boolean();
    if (number || truth) out.arguments.emplace(*key.text(), number ? *number : *truth);
  }
  // Megatron ignores it without grouped-query attention.
  if (const auto gqa = out.arguments.find("group_query_attention");
      gqa != out.arguments.end() && gqa->second == 0)
    out.arguments.erase("num_query_groups");
}

void read_reference(const torch::TorchFile& file, const Value& root, ModelFile& out) {
  if (const Value shapes = root.get("param_shapes"); shapes && !shapes.is_none()) {
    out.param_shapes = read_param_groups(shapes);
  }
  if (const Value frozen = root.get("frozen_param_shapes"); frozen && frozen.is_dict())
    out.frozen_shapes = read_params(frozen);
  read_names(root, out);
  const Value module = root.get("module");
  out.wrapped = wrapped_modules(out, module);
  out.module = read_state_dict(file, out.source, module, out.wrapped, nullptr);
  if (const Value optimizer = root.get("optimizer"); optimizer && optimizer.is_dict()) {
    out.optimizer = read_plain_optimizer(file, out.source, optimizer);
  }
  if (const Value info = root.get("universal_checkpoint_info"); info && info.is_dict())
    out.universal = read_universal_info(info);
  read_arguments(root.get("args"), out);
  const Value config = root.get("ds_config");
  out.data_before_experts = config.get("use_data_before_expert_parallelism").boolean().value_or(false);
  if (const Value experts = root.get("num_experts"); experts && experts.is_sequence())
    out.experts = read_integers(experts);
  out.fused = read_fused_experts(root);
}

void compare(const Value& root, const ModelFile& reference, ModelFile& out) {
  const auto note = [&](std::string text) {
    if (!out.difference) out.difference = std::move(text);
  };
  for (const auto& [key, n] : reference.counts) {
    const auto own = out.counts.find(key);
    if (own == out.counts.end() || own->second != n) {
      note(cat(key, ": expected ", n, ", found ", own == out.counts.end() ? "none" : cat(own->second)));
    }
  }
  if (out.ds_version != reference.ds_version) {
    note(cat("ds_version: expected ", escape(reference.ds_version, 40), ", found ",
             escape(out.ds_version, 40)));
  }
  if (!reference.param_shapes) return;
  if (auto difference = differs(*reference.param_shapes, root.get("param_shapes"))) {
    note(cat("param_shapes: ", *difference));
  }
}

// What ranks may differ in: everything but the lists that are compared one by one.
std::string make_view(const torch::TorchFile& file, const Value& root, bool whole) {
  return view_of(file, root, [&](std::string_view key, const Value& value) -> std::optional<std::string> {
    if (key == "module" && value.is_dict()) return view_without_tensors(file, value);
    if (key == "frozen_param_fragments") return "";
    if (key == "optimizer" && value.is_dict()) {
      const bool partitioned = static_cast<bool>(value.get("single_partition_of_fp32_groups"));
      return partitioned ? view_of_zero_state(file, value) : view_of_optimizer(file, value);
    }
    const bool repeated = key == "param_shapes" || key == "frozen_param_shapes" || key == "buffer_names" ||
                          key == "shared_params";
    return repeated && !whole ? std::optional<std::string>("") : std::nullopt;
  });
}

// Options of an optimizer without ZeRO that are tensors, as `lr` can be.
void find_options(const torch::TorchFile& file, const Value& optimizer, ModelFile& out) {
  constexpr std::string_view kOwn[] = {"state", "fp32_groups", "fp32_groups_flat", "optimizer_state_dict"};
  if (!optimizer || !optimizer.is_dict()) return;
  find_loose(file, out.source, optimizer, "optimizer", kOwn, out.loose);
  const Value wrapped = optimizer.get("optimizer_state_dict");
  if (wrapped && wrapped.is_dict())
    find_loose(file, out.source, wrapped, "optimizer.optimizer_state_dict", kOwn, out.loose);
}

void read_into(ModelFile& out, const ModelFile* reference, const OpenOptions& options) {
  const auto file = torch::TorchFile::open(out.source.bytes(), options.limits);
  const Value root = file->root();
  if (!root.is_dict()) throw refused("deepspeed.malformed", "expected a dict at the top of a model file");
  out.refusal = file->refusal();
  out.globals = file->globals();
  out.pickle = file->pickle_record();
  read_scalars(root, out);
  if (reference) {
    compare(root, *reference, out);
    const std::unordered_set<std::string_view> buffers(reference->buffer_names.begin(),
                                                       reference->buffer_names.end());
    if (!buffers.empty())
      out.module = read_state_dict(*file, out.source, root.get("module"), reference->wrapped, &buffers);
  } else {
    read_reference(*file, root, out);
  }
  read_frozen(*file, root, reference, out);
  find_loose(*file, out.source, root, "", kModelStructure, out.loose);
  find_options(*file, root.get("optimizer"), out);
  if (!options.want_objects) return;
  std::string comparable = make_view(*file, root, false);
  if (!reference) {
    out.view = make_view(*file, root, true);
    out.comparable_view = std::move(comparable);
  } else if (comparable != reference->comparable_view) {
    out.view = std::move(comparable);
  }
}

}  // namespace

ModelFile read_model_file(const Folder& folder, const RankFile& file, const ModelFile* reference,
                          const OpenOptions& options) {
  ModelFile out;
  try {
    out.source = Source(file.name, folder.files.open(file.name));
    read_into(out, reference, options);
  } catch (Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;
    out = ModelFile();
    out.damage = e.in_file(folder.files.join(file.name));
  }
  out.file = file;
  return out;
}

WeightFile read_weight_file(const Folder& folder, const RankFile& name, const OpenOptions& options) {
  WeightFile out;
  out.file = name;
  try {
    out.source = Source(name.name, folder.files.open(name.name));
    const auto file = torch::TorchFile::open(out.source.bytes(), options.limits);
    const Value root = file->root();
    if (!root.is_dict()) throw refused("deepspeed.malformed", "expected a dict of tensors");
    out.refusal = file->refusal();
    out.globals = file->globals();
    out.pickle = file->pickle_record();
    if (name.role == Role::kExpertOptimizer) {
      const Value optimizer = root.get("optimizer");
      if (optimizer && optimizer.is_dict())
        out.optimizer = read_plain_optimizer(*file, out.source, optimizer);
      if (options.want_objects && optimizer && optimizer.is_dict()) {
        out.view = cat("{\"optimizer\":", view_of_optimizer(*file, optimizer), "}");
      }
    } else {
      out.tensors = read_state_dict(*file, out.source, root, {}, nullptr);
      if (options.want_objects) out.view = view_without_tensors(*file, root);
      if (options.want_objects && out.view.empty()) out.view = kNothing;
    }
  } catch (Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;
    out.damage = e.in_file(folder.files.join(name.name));
    out.tensors.clear();
  }
  return out;
}

}  // namespace uckpt::deepspeed
