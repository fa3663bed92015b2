#include "lib/formats/megatron/rank_file.h"

#include <algorithm>
#include <array>

#include "lib/base/text.h"
#include "lib/formats/megatron/rank_optimizer.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

constexpr size_t kMaxName = 64 << 10;
constexpr int64_t kMaxChunks = 1 << 16;

bool is_extra_state(std::string_view key) { return key == "_extra_state" || key.ends_with("._extra_state"); }

std::string_view last_part(std::string_view name) { return name.substr(name.find_last_of('.') + 1); }

// The tensors of a chunk's dict, and of the dicts in it (before megatron-core): in order, names joined by
// dots.
class ChunkReader {
 public:
  ChunkReader(const torch::TorchFile& file, ModelFile& out, std::string path)
      : file_(file),
        out_(out),
        path_(std::move(path)),
        most_(static_cast<size_t>(file.pickle_record().size) + (64 << 10)) {}

  Chunk run(const Value& root) {
    stack_.push_back({root, 0, ""});
    while (!stack_.empty()) {
      Level& at = stack_.back();
      if (at.next == at.dict.size()) {
        stack_.pop_back();
        continue;
      }
      const auto [key, value] = at.dict.entry(at.next++);
      if (key.text())
        visit(at.prefix.empty() ? std::string(*key.text()) : cat(at.prefix, ".", *key.text()), value);
    }
    return std::move(chunk_);
  }

 private:
  struct Level {
    Value dict;
    size_t next;
    std::string prefix;
  };

  void visit(std::string name, const Value& value) {
    if (name.size() > kMaxName || ++visited_ > most_)
      throw refused("limit.tensors",
                    "shared parts of the model show its tensors far more often than its size explains");
    if (value.is_dict() && !is_extra_state(name)) return stack_.push_back({value, 0, std::move(name)});
    auto info = file_.tensor(value);
    if (!info) return;
    out_.source.keep(file_, *info);
    if (is_extra_state(name)) return out_.loose.push_back({cat(path_, ".", name), std::move(*info)});
    ModelTensor t;
    t.is_buffer = is_buffer(name, info->dtype);
    t.is_expert = name.find(".experts.") != name.npos;
    t.name = std::move(name);
    t.info = std::move(*info);
    chunk_.push_back(std::move(t));
  }

  const torch::TorchFile& file_;
  ModelFile& out_;
  const std::string path_;
  const size_t most_;
  size_t visited_ = 0;
  std::vector<Level> stack_;
  Chunk chunk_;
};

void check_names(const Chunk& chunk) {
  std::vector<std::string_view> names;
  for (const ModelTensor& t : chunk) names.push_back(t.name);
  std::ranges::sort(names);
  const auto twice = std::ranges::adjacent_find(names);
  if (twice != names.end()) throw malformed("two tensors of the model have this name").in_tensor(*twice);
}

void read_chunks(const torch::TorchFile& file, const Value& root, ModelFile& out) {
  const auto add = [&](const std::string& key) {
    const Value dict = root.get(key);
    if (!dict || !dict.is_dict()) return false;
    out.chunks.push_back(ChunkReader(file, out, key).run(dict));
    check_names(out.chunks.back());
    return true;
  };
  if (add("model")) {
    if (root.get("model0")) throw malformed("expected either `model` or `model0`, found both");
    return;
  }
  while (static_cast<int64_t>(out.chunks.size()) < kMaxChunks && add(cat("model", out.chunks.size())))
    out.is_chunked = true;
  if (out.chunks.empty()) throw malformed("expected a dict `model` or `model0`, found neither");
}

bool is_model_key(std::string_view key) {
  if (!key.starts_with("model")) return false;
  key.remove_prefix(5);
  return std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
}

void read_scalars(const Value& root, ModelFile& out) {
  out.arguments = Arguments::read(root.get("args"));
  if (const Value version = root.get("checkpoint_version")) out.version = version.number();
  if (const Value iteration = root.get("iteration")) out.iteration = iteration.integer();
  for (size_t i = 0; i < root.size(); ++i) {
    const auto [key, value] = root.entry(i);
    if (!key.text() || key.text() == "iteration" || key.text() == "checkpoint_version") continue;
    if (const auto n = value.integer()) out.numbers.emplace(*key.text(), cat(*n));
  }
}

// What is neither the model's nor a parameter's: at the top, and beside the optimizer's states.
void read_loose(const torch::TorchFile& file, const Value& root, ModelFile& out) {
  std::vector<std::string_view> skip = {"optimizer"};
  for (size_t i = 0; i < root.size(); ++i) {
    const auto key = root.entry(i).first.text();
    if (key && is_model_key(*key)) skip.push_back(*key);
  }
  deepspeed::find_loose(file, out.source, root, "", skip, out.loose);
  static constexpr std::array<std::string_view, 4> kStates = {"optimizer", "state", "param_groups",
                                                              "fp32_from_fp16_params"};
  const std::vector<Value> entries = optimizer_entries(root);
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!entries[i].is_dict()) continue;
    const std::string path = entries.size() > 1 ? cat("optimizer.", i) : "optimizer";
    deepspeed::find_loose(file, out.source, entries[i], path, kStates, out.loose);
  }
}

std::string view_of_model(const torch::TorchFile& file, const Value& root) {
  return deepspeed::view_of(file, root,
                            [&](std::string_view key, const Value& value) -> std::optional<std::string> {
                              if (is_model_key(key) && value.is_dict())
                                return deepspeed::view_without_tensors(file, value);
                              if (key == "optimizer") return view_of_optimizers(file, root);
                              return std::nullopt;
                            });
}

std::unique_ptr<torch::TorchFile> open(const InputFolder& folder, const std::string& name, Source& source,
                                       const OpenOptions& options) {
  source = Source(name, folder.open(name));
  return torch::TorchFile::open(source.bytes(), options.limits);
}

}  // namespace

bool is_buffer(std::string_view name, DType dtype) {
  constexpr std::array<std::string_view, 7> kBuffers = {"expert_bias",
                                                        "local_tokens_per_expert",
                                                        "global_tokens_per_expert",
                                                        "inv_freq",
                                                        "running_mean",
                                                        "running_var",
                                                        "ga_steps"};
  return info(dtype).kind != DTypeClass::kFloat ||
         std::ranges::find(kBuffers, last_part(name)) != kBuffers.end();
}

ModelFile read_model_file(const InputFolder& folder, const std::string& name, const OpenOptions& options) {
  try {
    ModelFile out;
    const auto file = open(folder, name, out.source, options);
    const Value root = file->root();
    if (!root.is_dict()) throw malformed("expected a dict at the top of a rank's file");
    out.refusal = file->refusal();
    out.globals = file->globals();
    out.pickle = file->pickle_record();
    read_scalars(root, out);
    read_chunks(*file, root, out);
    out.optimizers = read_optimizers(*file, out.source, root);
    out.has_optimizer = !out.optimizers.empty();
    read_loose(*file, root, out);
    if (options.want_objects) out.view = view_of_model(*file, root);
    return out;
  } catch (Error& e) {
    throw e.in_file(folder.join(name));
  }
}

OptimFile read_optim_file(const InputFolder& folder, const std::string& name, const OpenOptions& options) {
  try {
    OptimFile out;
    const auto file = open(folder, name, out.source, options);
    out.refusal = file->refusal();
    out.globals = file->globals();
    out.pickle = file->pickle_record();
    out.optimizers = read_flat_optimizers(*file, out.source);
    if (options.want_objects) out.view = file->json();
    return out;
  } catch (Error& e) {
    throw e.in_file(folder.join(name));
  }
}

}  // namespace uckpt::megatron
