#include "lib/formats/deepspeed/universal.h"

#include <algorithm>
#include <set>

#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

using pickle::Value;

constexpr std::string_view kStateFile = "zero/optimizer_state.pt";

void read_parameter_file(UniversalFile& out, const OpenOptions& options) {
  const auto file = torch::TorchFile::open(out.source.bytes(), options.limits);
  out.refusal = file->refusal();
  out.globals = file->globals();
  Value value = file->root();
  out.bare = !value.is_dict();
  if (!out.bare) value = value.get("param");
  out.scalar = value ? scalar_of(value) : std::nullopt;
  auto info = value ? file->tensor(value) : std::nullopt;
  if (!info && !out.scalar)
    throw refused("deepspeed.malformed", "expected a tensor, or a dict with the tensor `param`");
  if (!info) return;
  if (info->refusal.empty() && info->numel() == 1) out.scalar = out.source.read_scalar(*file, *info);
  out.source.keep(*file, *info);
  out.tensor = std::move(*info);
}

void read_state_file(UniversalState& out, const OpenOptions& options) {
  const auto file = torch::TorchFile::open(out.source.bytes(), options.limits);
  const Value root = file->root();
  if (!root.is_dict()) throw refused("deepspeed.malformed", "expected a dict");
  out.refusal = file->refusal();
  out.globals = file->globals();
  out.pickle = file->pickle_record();
  out.zero_stage = read_stage(root.get("zero_stage"));
  const Value groups = root.get("param_groups");
  for (size_t i = 0; groups && groups.is_sequence() && i < groups.size(); ++i) {
    out.groups.push_back(read_optimizer_group(*file, out.source, groups.at(i)));
  }
  const Value inner = root.get("optimizer_state_dict");  // of stage 3: rank 0's own
  const Value state = inner ? inner.get("state") : Value();
  for (size_t i = 0; state && state.is_dict() && i < state.size(); ++i) {
    const Value entry = state.get_int(static_cast<int64_t>(i));
    auto& list = out.states.emplace_back();
    if (!entry) continue;
    for (RankState& s : read_rank_states(*file, out.source, entry)) {
      if (s.scalar) list.push_back(std::move(s));
    }
  }
  constexpr std::string_view kStructure[] = {"optimizer_state_dict", "fp32_flat_groups"};
  find_loose(*file, out.source, root, "optimizer_state", kStructure, out.loose);
  if (options.want_objects) out.view = view_of_zero_state(*file, root);
}

// Runs `read`; what is wrong with the file is kept for later.
template <class File, class Read>
void guarded(File& out, const Folder& folder, const std::string& name, const Read& read) {
  try {
    out.source = Source(name, folder.files.open(name));
    read();
  } catch (Error& e) {
    if (e.kind() != ErrorKind::kRefused) throw;
    out.damage = e.in_file(folder.files.join(name));
  }
}

// What the model files say about names and shapes.
struct Known {
  std::unordered_map<std::string_view, const Param*> trained;
  std::unordered_set<std::string_view> elsewhere;  // buffers, second names, other module weights

  explicit Known(const Checkpoint& c) {
    for (const ModelFile& f : c.models) {
      if (!f.param_shapes) continue;
      for (const ParamList& group : *f.param_shapes) {
        for (const Param& p : group) trained.emplace(p.name, &p);
      }
    }
    for (const ModelFile& f : c.models) {
      for (const std::string& name : f.buffer_names) elsewhere.insert(name);
      for (const auto& [alias, name] : f.shared) elsewhere.insert(alias);
      for (const NamedTensor& t : f.module) elsewhere.insert(t.name);
    }
  }
};

using ParamFiles = std::span<UniversalFile>;

bool is_master(const Known& known, ParamFiles files) {
  const std::string& name = files.front().param;
  if (known.trained.contains(name) || !known.elsewhere.contains(name)) return true;
  return std::any_of(files.begin(), files.end(), [](const auto& f) { return f.state != state::kMaster; });
}

Shape shape_of(const Builder& builder, const Known& known, const UniversalFile& file) {
  const Shape& own = file.tensor->shape;
  const auto param = known.trained.find(file.param);
  if (!file.bare || own.size() != 1) return own;
  if (param == known.trained.end()) return own;  // one dimension, as far as anybody knows
  if (param->second->numel != own[0]) {
    throw refused("deepspeed.sizes",
                  cat("expected ", param->second->numel, " elements as in param_shapes, found ", own[0]))
        .in_file(file.source.bytes()->name())
        .in_tensor(file.param);
  }
  return builder.vocabulary.logical(file.param, param->second->shape);
}

void add_file(Builder& builder, const Known& known, UniversalFile& file) {
  if (file.damage) {
    builder.problems.push_back(*file.damage);
    return;
  }
  const bool number = file.scalar && (!file.tensor || file.state == state::kStep);
  if (number) return builder.put_scalar(file.state, file.param, *file.scalar, file.source.name());
  const Shape shape = shape_of(builder, known, file);
  const auto master = builder.find(state::kMaster, file.param);
  if (master && builder.catalog.tensors[*master].shape != shape) {
    throw refused("deepspeed.sizes",
                  cat("expected the shape ", shape_text(builder.catalog.tensors[*master].shape),
                      " of its fp32 weight, found ", shape_text(shape)))
        .in_file(file.source.bytes()->name())
        .in_tensor(file.param);
  }
  const NewTensor tensor{file.state, file.param, file.tensor->dtype, shape, "whole", "replica"};
  if (const std::string why = builder.refusal_of(*file.tensor); !why.empty())
    return builder.put_refused(tensor, why);
  builder.put(tensor, [&]() -> std::optional<std::string> {
    if (file.tensor->shape == shape || file.tensor->contiguous()) {
      builder.whole(file.source, *file.tensor, shape);
      return std::nullopt;
    }
    throw refused("deepspeed.malformed", "expected a flat tensor that lies back to back, found strides")
        .in_tensor(file.param);
  });
}

// A parameter has all states or, without a gradient so far, only its weight.
void check_states(const Checkpoint& checkpoint, const std::set<std::string>& states, ParamFiles files,
                  std::vector<std::string>& missing) {
  if (files.size() == 1 && files.front().state == state::kMaster) return;
  for (const std::string& s : states) {
    if (std::any_of(files.begin(), files.end(), [&](const auto& f) { return f.state == s; })) continue;
    missing.push_back(checkpoint.folder.files.join(cat("zero/", files.front().param, "/", s, ".pt")));
  }
}

// Steps and other numbers that only optimizer_state.pt keeps.
void add_common_numbers(Builder& builder, const Checkpoint& checkpoint, const UniversalState& state) {
  for (const ModelFile& f : checkpoint.models) {
    if (!f.param_shapes) continue;
    for (size_t g = 0; g < f.param_shapes->size(); ++g) {
      for (const Param& p : (*f.param_shapes)[g]) {
        if (!builder.find(state::kMaster, p.name)) continue;
        for (size_t i = 0; g < state.states.size() && i < state.states[g].size(); ++i) {
          const RankState& s = state.states[g][i];
          const bool stored = builder.find(s.name, p.name).has_value();
          const bool flat = s.is_tensor && !s.shape.empty();
          if (!stored && !flat) builder.put_scalar(s.name, p.name, *s.scalar, state.source.name());
        }
        const bool in_group =
            g < state.groups.size() && state.groups[g].step && !builder.find(state::kStep, p.name);
        if (in_group) builder.put_scalar(state::kStep, p.name, *state.groups[g].step, state.source.name());
      }
    }
  }
}

}  // namespace

UniversalFolder read_universal_folder(const Folder& folder, const OpenOptions& options) {
  UniversalFolder out;
  for (std::string param : folder.files.list("zero")) {
    if (param.empty() || param.back() != '/') continue;
    param.pop_back();
    for (const std::string& name : folder.files.list(cat("zero/", param))) {
      if (!name.ends_with(".pt") || name.size() == 3) continue;
      UniversalFile& file = out.files.emplace_back();
      file.param = param;
      file.state = name.substr(0, name.size() - 3);
    }
  }
  in_parallel(out.files.size(), [&](size_t i) {
    UniversalFile& f = out.files[i];
    guarded(f, folder, cat("zero/", f.param, "/", f.state, ".pt"), [&] { read_parameter_file(f, options); });
  });
  if (!folder.files.has_file(kStateFile)) {
    out.state.damage = refused("deepspeed.missing_files", cat(kStateFile,
                                                              " is missing: the optimizer's groups and "
                                                              "steps are in it"))
                           .in_file(folder.files.path());
    return out;
  }
  guarded(out.state, folder, std::string(kStateFile), [&] { read_state_file(out.state, options); });
  return out;
}

void add_universal(Builder& builder, Checkpoint& checkpoint, UniversalFolder& folder) {
  const Known known(checkpoint);
  std::set<std::string> states;
  for (const UniversalFile& f : folder.files) {
    if (!known.elsewhere.contains(f.param) || known.trained.contains(f.param)) states.insert(f.state);
    if (f.refusal) builder.problems.push_back(Error(*f.refusal).in_file(f.source.bytes()->name()));
  }
  std::vector<std::string> missing;
  std::unordered_set<std::string_view> here;
  for (size_t i = 0, end = 0; i < folder.files.size(); i = end) {
    while (end < folder.files.size() && folder.files[end].param == folder.files[i].param) ++end;
    const ParamFiles files(folder.files.data() + i, end - i);
    here.insert(files.front().param);
    if (!is_master(known, files)) {
      for (const UniversalFile& f : files)
        if (f.damage) builder.problems.push_back(*f.damage);
      continue;
    }
    check_states(checkpoint, states, files, missing);
    // The weight first: its shape is that of the other states.
    std::stable_partition(files.begin(), files.end(),
                          [](const auto& f) { return f.state == state::kMaster; });
    for (UniversalFile& f : files) builder.guard([&] { add_file(builder, known, f); });
  }
  for (const auto& [name, param] : known.trained) {
    if (!here.contains(name)) missing.push_back(checkpoint.folder.files.join(cat("zero/", name, "/fp32.pt")));
  }
  std::sort(missing.begin(), missing.end());
  for (const std::string& path : missing) {
    builder.problems.push_back(refused("deepspeed.missing_files", "the file is missing").in_file(path));
  }
  if (folder.state.damage) {
    builder.problems.push_back(*folder.state.damage);
    return;
  }
  if (folder.state.refusal) {
    builder.problems.push_back(Error(*folder.state.refusal).in_file(folder.state.source.bytes()->name()));
  }
  add_common_numbers(builder, checkpoint, folder.state);
}

void add_universal_copies(Builder& builder, const Checkpoint& checkpoint, UniversalFolder& folder) {
  const Known known(checkpoint);
  for (UniversalFile& f : folder.files) {
    if (!known.elsewhere.contains(f.param) || known.trained.contains(f.param)) continue;
    if (f.damage || f.state != state::kMaster || !f.tensor || !builder.refusal_of(*f.tensor).empty())
      continue;
    for (const std::string_view of : {state::kBuffer, state::kParam}) {
      const auto number = builder.find(of, f.param);
      if (!number) continue;
      const Tensor& t = builder.catalog.tensors[*number];
      if (t.alias || !t.refusal.empty() || t.dtype != f.tensor->dtype || t.shape != f.tensor->shape) continue;
      builder.guard([&] {
        builder.add_copy(*number, t.dtype, false, cat("copy in zero/", f.param, "/", f.state, ".pt"),
                         [&] { builder.whole(f.source, *f.tensor, f.tensor->shape); });
      });
    }
  }
}

}  // namespace uckpt::deepspeed
