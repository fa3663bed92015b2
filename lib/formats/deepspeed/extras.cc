#include "lib/formats/deepspeed/extras.h"

#include <map>

#include "lib/base/text.h"
#include "lib/formats/file_path.h"

namespace uckpt::deepspeed {

namespace {

struct Found {
  const LooseTensor* tensor;
  Source* source;
};

bool same_bytes(const Found& a, const Found& b) {
  const torch::TensorInfo &x = a.tensor->info, &y = b.tensor->info;
  const auto fa = a.source->fingerprint(x.record), fb = b.source->fingerprint(y.record);
  return fa && fa == fb && x.dtype == y.dtype && x.shape == y.shape && x.stride == y.stride &&
         x.flags == y.flags && x.storage_offset == y.storage_offset && x.refusal.empty() && y.refusal.empty();
}

void put_loose(Builder& builder, const Found& found, std::string name) {
  const std::string base = name;
  for (int n = 2; builder.find(state::kOther, name); ++n)
    name = cat(base, "#", n);  // two paths, one spelling
  const torch::TensorInfo& info = found.tensor->info;
  const NewTensor tensor{state::kOther, name, info.dtype, info.shape, "whole", {}};
  if (const std::string why = builder.refusal_of(info); !why.empty()) return builder.put_refused(tensor, why);
  builder.put(tensor, [&]() -> std::optional<std::string> {
    builder.whole(*found.source, info, info.shape);
    return std::nullopt;
  });
}

void put_same_path(Builder& builder, const std::string& path, const std::vector<Found>& files) {
  bool same = true;
  for (const Found& f : files) same &= &f == &files[0] || same_bytes(files[0], f);
  if (!same) {
    for (const Found& f : files) put_loose(builder, f, cat(stem_of(f.source->name()), ".", path));
    return;
  }
  put_loose(builder, files[0], path);
  const auto known = builder.find(state::kOther, path);
  for (size_t i = 1; known && i < files.size(); ++i) {
    const torch::TensorInfo& info = files[i].tensor->info;
    builder.add_copy(*known, info.dtype, false, cat("replica in ", files[i].source->name()),
                     [&] { builder.whole(*files[i].source, info, info.shape); });
  }
}

void add_object(Catalog& catalog, Source& source, std::string view, const torch::FileRecord& pickle) {
  if (view.empty()) return;
  Object object;
  object.origin = source.name();
  object.json = std::move(view);
  object.file = source.file_id(catalog);
  object.offset = pickle.offset;
  object.size = pickle.size;
  if (pickle.crc) {
    object.record = catalog.add_record(object.file, pickle.offset, pickle.size, *pickle.crc, pickle.name);
  }
  catalog.objects.push_back(std::move(object));
}

std::string optimizer_form(const Checkpoint& c) {
  for (const OptimizerFile& f : c.optimizers) {
    if (f.damage) continue;
    if (!f.zero_stage) return "BF16_Optimizer";
    return cat("ZeRO stage ", *f.zero_stage, f.elastic ? ", elastic state" : "");
  }
  for (const ModelFile& f : c.models) {
    if (!f.optimizer) continue;
    if (!f.optimizer->flat_masters.empty()) return "16-bit wrapper, fused";
    return f.optimizer->masters.empty() ? "plain" : "16-bit wrapper";
  }
  return "none";
}

size_t group_count(const Checkpoint& c, const UniversalFolder* universal) {
  if (universal) return universal->state.groups.size();
  for (const OptimizerFile& f : c.optimizers) {
    if (!f.damage) return f.param_groups.empty() ? f.groups.size() : f.param_groups.size();
  }
  for (const ModelFile& f : c.models) {
    if (f.optimizer) return f.optimizer->groups.size();
  }
  return 0;
}

std::string describe(const Checkpoint& c, bool universal, const std::optional<int>& stage) {
  const std::string kind = universal ? "DeepSpeed universal checkpoint" : "DeepSpeed checkpoint";
  std::string with =
      stage && *stage > 0 ? cat(universal ? ", made from ZeRO stage " : ", ZeRO stage ", *stage) : "";
  if (!universal && stage == 0) with = ", no ZeRO";
  if (c.mesh.pp > 1) with += ", pipeline";
  return kind + with;
}

}  // namespace

void add_loose(Builder& builder, Checkpoint& checkpoint, UniversalFolder* universal) {
  std::map<std::string_view, std::vector<Found>> by_path;
  std::vector<std::string_view> order;
  const auto collect = [&](const std::vector<LooseTensor>& list, Source& source) {
    for (const LooseTensor& t : list) {
      auto& files = by_path[t.path];
      if (files.empty()) order.push_back(t.path);
      files.push_back({&t, &source});
    }
  };
  for (ModelFile& f : checkpoint.models) collect(f.loose, f.source);
  for (OptimizerFile& f : checkpoint.optimizers) collect(f.loose, f.source);
  if (universal) collect(universal->state.loose, universal->state.source);
  for (const std::string_view path : order) put_same_path(builder, std::string(path), by_path[path]);
}

void add_objects(Catalog& catalog, Checkpoint& checkpoint, UniversalFolder* universal) {
  for (ModelFile& f : checkpoint.models) add_object(catalog, f.source, std::move(f.view), f.pickle);
  for (OptimizerFile& f : checkpoint.optimizers) add_object(catalog, f.source, std::move(f.view), f.pickle);
  // Of each layer one file is kept for the names and their order, which writers want, even if that is all.
  for (auto* list : {&checkpoint.layers, &checkpoint.experts}) {
    int64_t last = -1;
    for (WeightFile& f : *list) {
      const bool is_first = f.file.layer != last && f.file.model == 0 && !f.damage;
      if (is_first) last = f.file.layer;
      if (is_first || f.view != kNothing) add_object(catalog, f.source, std::move(f.view), f.pickle);
    }
  }
  std::string first;
  for (WeightFile& f : checkpoint.expert_optimizers) {
    if (f.view == first) continue;
    if (first.empty()) first = f.view;
    add_object(catalog, f.source, std::move(f.view), f.pickle);
  }
  if (universal)
    add_object(catalog, universal->state.source, std::move(universal->state.view), universal->state.pickle);
}

void add_facts(Catalog& catalog, const Checkpoint& checkpoint, const Weights& weights,
               const UniversalFolder* universal) {
  const ModelFile* model = nullptr;
  for (const ModelFile& f : checkpoint.models) {
    merge_globals(catalog.globals, f.globals);
    if (!f.damage && !model) model = &f;
  }
  for (const OptimizerFile& f : checkpoint.optimizers) merge_globals(catalog.globals, f.globals);
  for (const auto* list : {&checkpoint.layers, &checkpoint.experts, &checkpoint.expert_optimizers}) {
    for (const WeightFile& f : *list) merge_globals(catalog.globals, f.globals);
  }
  catalog.zero_stage = checkpoint.stage;
  if (universal) {
    for (const UniversalFile& f : universal->files) merge_globals(catalog.globals, f.globals);
    merge_globals(catalog.globals, universal->state.globals);
  } else if (checkpoint.optimizers.empty() && model && model->param_shapes && checkpoint.stage != 3) {
    catalog.zero_stage.reset();  // stage 1 or 2: only its optimizer files would tell
  }
  catalog.description = describe(checkpoint, universal != nullptr, catalog.zero_stage);
  const auto count = [&](std::string_view key) -> std::optional<int64_t> {
    if (!model) return std::nullopt;
    const auto it = model->counts.find(std::string(key));
    return it == model->counts.end() ? std::nullopt : std::optional(it->second);
  };
  catalog.iteration = count("global_steps");
  auto fact = [&](std::string key, std::string value) {
    if (!value.empty()) catalog.facts.emplace_back(std::move(key), std::move(value));
  };
  fact("tag", checkpoint.folder.tag);
  fact("ds_version", model ? model->ds_version : "");
  if (!universal) fact("optimizer", optimizer_form(checkpoint));
  fact("param groups", cat(group_count(checkpoint, universal)));
  // At the other stages the weights are there, beside their masters; here only their type is.
  if (checkpoint.stage == 3) fact("module weights", weights.dtypes);
  for (const std::string_view key : {"dp_world_size", "mp_world_size", "global_samples", "skipped_steps"}) {
    if (const auto n = count(key)) fact(std::string(key), cat(*n));
  }
}

}  // namespace uckpt::deepspeed
