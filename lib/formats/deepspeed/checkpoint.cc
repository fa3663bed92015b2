#include "lib/formats/deepspeed/checkpoint.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"

namespace uckpt::deepspeed {

namespace {

constexpr int64_t kMostRanks = 1 << 20;  // of one kind of parallelism; more is a damaged number

using RankKey = std::pair<int64_t, int64_t>;  // model rank, data rank

RankKey key_of(const RankFile& f) { return {f.model, f.data}; }

// Two files for one rank: the first is taken, and the checkpoint is refused.
std::vector<RankFile> one_a_rank(const std::vector<RankFile>& files, Checkpoint& out) {
  std::vector<RankFile> unique;
  for (const RankFile& f : files) {
    if (!unique.empty() && key_of(unique.back()) == key_of(f)) {
      out.problems.push_back(
          refused("deepspeed.duplicate_rank",
                  cat(unique.back().name, " and ", f.name, " both claim to be rank ", f.data,
                      " of model rank ", f.model, ": one of them is left from another run")));
      out.problems.back().in_file(out.folder.files.path());
    } else {
      unique.push_back(f);
    }
  }
  return unique;
}

// Reads the files of each model rank: first one that becomes the reference of the others, then these. Model
// ranks, and then all others, run side by side.
template <class File, class Read>
std::vector<File> read_all(const std::vector<RankFile>& files, const Read& read) {
  std::vector<File> out(files.size());
  std::vector<size_t> first;  // of each model rank
  for (size_t i = 0; i < files.size(); ++i) {
    if (i == 0 || files[i].model != files[i - 1].model) first.push_back(i);
  }
  first.push_back(files.size());
  std::vector<size_t> reference(files.size(), files.size());
  in_parallel(first.size() - 1, [&](size_t m) {
    for (size_t i = first[m]; i < first[m + 1]; ++i) {
      out[i] = read(files[i], nullptr);
      if (out[i].damage) continue;
      for (size_t k = i + 1; k < first[m + 1]; ++k) reference[k] = i;
      break;
    }
  });
  in_parallel(files.size(), [&](size_t i) {
    if (reference[i] < files.size()) out[i] = read(files[i], &out[reference[i]]);
  });
  return out;
}

template <class File>
File* find_rank(std::vector<File>& files, RankKey key) {
  const auto it = std::lower_bound(files.begin(), files.end(), key,
                                   [](const File& f, const RankKey& k) { return key_of(f.file) < k; });
  return it != files.end() && key_of(it->file) == key && !it->damage ? &*it : nullptr;
}

template <class File>
File* first_good(std::vector<File>& files, int64_t model_rank) {
  for (File& f : files) {
    if (f.file.model == model_rank && !f.damage) return &f;
  }
  return nullptr;
}

void check_degree(int64_t degree, std::string_view what) {
  if (degree < 1 || degree > kMostRanks) {
    throw refused("deepspeed.malformed",
                  cat("expected a ", what, " degree of 1 to ", kMostRanks, ", found ", degree));
  }
}

// Sequence parallel ranks (Ulysses) count as ranks of the model there, and each has all of it: the model's
// own world is one rank.
bool is_of_sequences(const ModelFile& model, size_t model_ranks) {
  const auto world = model.counts.find("mp_world_size");
  return model_ranks == 1 && model.pp_degree.value_or(1) == 1 && world != model.counts.end() &&
         world->second == 1;
}

// What checkpoint_parallel_dimensions says; without it what DeepSpeed's own tools conclude from the names.
void find_model_mesh(Checkpoint& out, const ModelFile& reference) {
  std::set<int64_t> ranks, first_layer;
  for (const ModelFile& f : out.models) ranks.insert(f.file.model);
  const auto& layers = out.folder.layers;
  const int64_t probe = std::any_of(layers.begin(), layers.end(), [](const auto& f) { return f.layer == 1; })
                            ? 1
                            : (layers.empty() ? 0 : layers.front().layer);
  for (const RankFile& f : layers) {
    if (f.layer == probe) first_layer.insert(f.model);
  }
  const auto count = static_cast<int64_t>(ranks.size());
  out.mesh.tp =
      is_of_sequences(reference, ranks.size())
          ? 1
          : reference.tp_degree.value_or(layers.empty() ? count : static_cast<int64_t>(first_layer.size()));
  check_degree(out.mesh.tp, "tensor parallel");
  out.mesh.pp = reference.pp_degree.value_or(std::max<int64_t>(1, count / out.mesh.tp));
  check_degree(out.mesh.pp, "pipeline parallel");
  check_degree(out.mesh.tp * out.mesh.pp, "model parallel");
}

void find_data_degree(Checkpoint& out, const ModelFile& model) {
  const auto stated = model.counts.find("dp_world_size");
  if (stated != model.counts.end()) out.mesh.dp = stated->second;
  const OptimizerFile* optimizer = nullptr;
  for (int64_t m = 0; m < out.model_ranks() && !optimizer; ++m) optimizer = out.reference_optimizer(m);
  if (optimizer && !optimizer->partition_count.empty()) {
    const auto& groups = optimizer->param_groups;
    const bool experts_only =
        !groups.empty() && std::all_of(groups.begin(), groups.end(), [](auto& g) { return g.moe; });
    const int64_t count =
        *std::max_element(optimizer->partition_count.begin(), optimizer->partition_count.end());
    out.mesh.dp = experts_only ? std::max(count, out.mesh.dp) : count;
  } else if (!out.optimizers.empty()) {
    int64_t last = 0;
    for (const auto& f : out.optimizers) last = std::max(last, f.file.data);
    out.mesh.dp = std::max(out.mesh.dp, last + 1);
  }
  check_degree(out.mesh.dp, "data parallel");
  check_degree(ceil_div(out.mesh.dp * out.model_ranks(), 16), "total parallel");
}

template <class File>
void drop_stale(std::vector<File>& files, int64_t model_ranks, int64_t data_ranks,
                std::vector<std::string>& stale) {
  std::erase_if(files, [&](const File& f) {
    const bool extra = f.file.model >= model_ranks || f.file.data >= data_ranks;
    if (extra) stale.push_back(f.file.name);
    return extra;
  });
}

void drop_names(std::vector<RankFile>& files, std::vector<std::string>& stale) {
  for (const RankFile& f : files) stale.push_back(f.name);
  files.clear();
}

// The layer files of a pipeline beside model files that hold the weights themselves; experts that the model
// does not have; optimizers of experts beside those of ZeRO, which hold them too.
void drop_foreign_weights(Checkpoint& out, std::vector<std::string>& stale) {
  const ModelFile* first = nullptr;
  bool has_module = false;
  for (const ModelFile& f : out.models) {
    if (f.damage) return;
    if (!first) first = &f;
    has_module |= !f.module.empty();
  }
  if (has_module) drop_names(out.folder.layers, stale);
  const bool has_experts = first && (first->experts || !first->fused.empty());
  if (!has_experts) drop_names(out.folder.experts, stale);
  if (!has_experts || !out.optimizers.empty()) drop_names(out.folder.expert_optimizers, stale);
  if (!first || !first->experts) return;
  std::erase_if(out.folder.experts, [&](const RankFile& f) {
    const auto layers = static_cast<int64_t>(first->experts->size());
    const bool extra =
        f.layer >= layers || (f.layer >= 0 && f.expert >= (*first->experts)[static_cast<size_t>(f.layer)]);
    if (extra) stale.push_back(f.name);
    return extra;
  });
}

void drop_all_stale(Checkpoint& out) {
  std::vector<std::string> stale;
  drop_stale(out.optimizers, out.model_ranks(), out.mesh.dp, stale);
  drop_stale(out.models, out.model_ranks(), out.stage == 3 ? out.mesh.dp : 1, stale);
  // A universal folder for engines of any stage has the model files of both kinds.
  const auto is_of_other_stage = [&](const RankFile& f) {
    return out.folder.universal && f.model < out.model_ranks() && f.data < out.mesh.dp;
  };
  for (const RankFile& f : out.stage == 3 ? out.folder.models : out.folder.zero_models)
    if (!is_of_other_stage(f)) stale.push_back(f.name);
  drop_foreign_weights(out, stale);
  if (stale.empty()) return;
  out.warnings.push_back(cat(some_of(stale), stale.size() == 1 ? " is" : " are",
                             " not part of this checkpoint (", out.model_ranks(), " model × ", out.mesh.dp,
                             " data ranks): left from another run, not read"));
}

template <class File>
std::string ranks_here(const std::vector<File>& files, int64_t model_rank) {
  std::vector<int64_t> here;
  for (const File& f : files) {
    if (f.file.model == model_rank) here.push_back(f.file.data);
  }
  if (here.empty()) return "none of its ranks is here";
  return cat(here.size() == 1 ? "rank " : "ranks ", ranges_text(here),
             here.size() == 1 ? " is here" : " are here");
}

template <class File>
std::set<RankKey> keys_of(const std::vector<File>& files) {
  std::set<RankKey> keys;
  for (const File& f : files) keys.insert(key_of(f.file));
  return keys;
}

void find_missing(Checkpoint& out) {
  const std::set<RankKey> models = keys_of(out.models), optimizers = keys_of(out.optimizers);
  const auto note = [&](std::string name, std::string here) {
    if (out.missing.empty()) out.missing_note = std::move(here);
    out.missing.push_back(std::move(name));
  };
  for (int64_t m = 0; m < out.model_ranks(); ++m) {
    const std::string tail = cat("mp_rank_", m < 10 ? "0" : "", m, "_model_states.pt");
    for (int64_t d = 0; d < (out.stage == 3 ? out.mesh.dp : 1); ++d) {
      if (models.contains({m, d})) continue;
      note(out.stage == 3 ? cat("zero_pp_rank_", d, "_", tail) : tail,
           out.stage == 3 ? ranks_here(out.models, m) : std::string());
    }
    if (out.folder.universal || (out.optimizers.empty() && out.stage != 3)) continue;
    for (int64_t d = 0; d < out.mesh.dp; ++d) {
      if (!optimizers.contains({m, d})) note(out.optimizer_name(m, d), ranks_here(out.optimizers, m));
    }
  }
}

Error mixed(const Checkpoint& c, const std::string& name, const std::string& than,
            const std::string& difference) {
  return refused("deepspeed.mixed_runs",
                 cat(difference, ", as in ", than, ": the files come from different saves"))
      .in_file(c.folder.files.join(name));
}

void check_models(Checkpoint& out, const ModelFile& first) {
  for (const ModelFile& f : out.models) {
    if (f.damage) {
      out.problems.push_back(*f.damage);
      continue;
    }
    if (f.refusal) out.problems.push_back(Error(*f.refusal).in_file(out.folder.files.join(f.file.name)));
    if (f.difference) {
      const ModelFile* reference = out.reference_model(f.file.model);
      out.problems.push_back(
          mixed(out, f.file.name, reference ? reference->file.name : "its first rank", *f.difference));
      continue;
    }
    for (const auto& [key, n] : first.counts) {
      const auto own = f.counts.find(key);
      if (own != f.counts.end() && own->second == n) continue;
      out.problems.push_back(
          mixed(out, f.file.name, first.file.name,
                cat(key, ": expected ", n, ", found ", own == f.counts.end() ? "none" : cat(own->second))));
      break;
    }
    if (f.ds_version != first.ds_version) {
      out.problems.push_back(mixed(
          out, f.file.name, first.file.name,
          cat("ds_version: expected ", escape(first.ds_version, 40), ", found ", escape(f.ds_version, 40))));
    }
  }
}

void check_optimizers(Checkpoint& out, const ModelFile& model) {
  const OptimizerFile* first = nullptr;
  for (const OptimizerFile& f : out.optimizers) {
    if (f.damage) {
      out.problems.push_back(*f.damage);
      continue;
    }
    if (f.refusal) out.problems.push_back(Error(*f.refusal).in_file(out.folder.files.join(f.file.name)));
    if (!first) first = &f;
    std::optional<std::string> difference = f.difference;
    if (!difference && f.zero_stage != first->zero_stage) difference = "zero_stage: expected the same";
    if (difference) {
      const OptimizerFile* reference = out.reference_optimizer(f.file.model);
      out.problems.push_back(mixed(out, f.file.name,
                                   reference && reference != &f ? reference->file.name : first->file.name,
                                   *difference));
    } else if (f.ds_version != model.ds_version && !f.ds_version.empty() && !model.ds_version.empty()) {
      out.problems.push_back(mixed(
          out, f.file.name, model.file.name,
          cat("ds_version: expected ", escape(model.ds_version, 40), ", found ", escape(f.ds_version, 40))));
    }
  }
}

// Are the weights of a file more than one value over and over? Such files may be equal by chance.
bool says_something(const OptimizerFile& f) {
  constexpr int64_t kLook = 1 << 16;
  for (const RankGroup& g : f.groups) {
    const int64_t item = g.master ? item_size(g.master->dtype) : 0;
    if (item == 0) continue;
    const Bytes head =
        f.source.bytes()->read_range(g.master->offset, std::min(kLook, g.master->numel) * item);
    for (size_t i = static_cast<size_t>(item); i < head.size(); ++i) {
      if (head[i] != head[i - static_cast<size_t>(item)]) return true;
    }
  }
  return false;
}

// One rank's file under the name of another fits in every size: only its numbers show it.
void check_doubles(Checkpoint& out) {
  std::map<std::pair<int64_t, uint64_t>, const OptimizerFile*> seen;
  for (const OptimizerFile& f : out.optimizers) {
    if (f.damage || !f.content) continue;
    const auto [it, fresh] = seen.emplace(std::pair(f.file.model, *f.content), &f);
    if (fresh || !says_something(f)) continue;
    out.problems.push_back(
        refused("deepspeed.duplicate_rank", cat("its tensors are the same bytes as those of ",
                                                it->second->file.name, ": one rank's file under two names"))
            .in_file(out.folder.files.join(f.file.name)));
  }
}

void read_weight_files(Checkpoint& out, const OpenOptions& options) {
  const auto read = [&](std::vector<RankFile> names, std::vector<WeightFile>& files) {
    std::erase_if(names, [&](const RankFile& f) {
      return f.model >= (f.role == Role::kLayer ? out.mesh.tp : out.model_ranks());
    });
    files.resize(names.size());
    in_parallel(names.size(), [&](size_t i) { files[i] = read_weight_file(out.folder, names[i], options); });
    for (const WeightFile& f : files) {
      if (f.damage) out.problems.push_back(*f.damage);
      if (f.refusal) out.problems.push_back(Error(*f.refusal).in_file(out.folder.files.join(f.file.name)));
    }
  };
  read(out.folder.layers, out.layers);
  read(out.folder.experts, out.experts);
  if (out.optimizers.empty()) read(out.folder.expert_optimizers, out.expert_optimizers);
}

ModelFile& any_model(Checkpoint& out) {
  for (ModelFile& f : out.models) {
    if (!f.damage) return f;
  }
  if (!out.models.empty()) throw *out.models.front().damage;
  throw refused("deepspeed.missing_files", cat(out.stage == 3 ? "zero_pp_rank_0_mp_rank_00_model_states.pt"
                                                              : "mp_rank_00_model_states.pt",
                                               " is missing: without it no tensor has a name or a shape"))
      .in_file(out.folder.files.path());
}

}  // namespace

void in_parallel(size_t n, const std::function<void(size_t)>& f) { tbb::parallel_for(size_t{0}, n, f); }

ModelFile* Checkpoint::model(int64_t m, int64_t d) { return find_rank(models, {m, d}); }
OptimizerFile* Checkpoint::optimizer(int64_t m, int64_t d) { return find_rank(optimizers, {m, d}); }
ModelFile* Checkpoint::reference_model(int64_t m) { return first_good(models, m); }
OptimizerFile* Checkpoint::reference_optimizer(int64_t m) { return first_good(optimizers, m); }

const std::vector<FusedExperts>& Checkpoint::fused() const {
  static const std::vector<FusedExperts> kNone;
  const auto found = std::ranges::find_if(models, [](const ModelFile& f) { return !f.fused.empty(); });
  return found == models.end() ? kNone : found->fused;
}

std::string Checkpoint::optimizer_name(int64_t model_rank, int64_t data_rank) const {
  std::string prefix;
  if (!optimizers.empty()) {
    const std::string& name = optimizers.front().file.name;
    prefix = name.substr(0, name.find("zero_pp_rank_"));
  }
  return cat(prefix, "zero_pp_rank_", data_rank, "_mp_rank_", model_rank < 10 ? "0" : "", model_rank,
             "_optim_states.pt");
}

Checkpoint load_checkpoint(Folder folder, const OpenOptions& options, std::optional<int> universal_stage) {
  Checkpoint out(std::move(folder));
  // There the optimizer lies under zero/.
  std::vector<std::string> beside_universal;
  if (out.folder.universal)
    for (auto* files : {&out.folder.optimizers, &out.folder.expert_optimizers})
      drop_names(*files, beside_universal);
  if (!beside_universal.empty())
    out.warnings.push_back(cat(some_of(beside_universal), beside_universal.size() == 1 ? " is" : " are",
                               " not part of a universal checkpoint: left from another run, not read"));
  const auto optimizers = one_a_rank(out.folder.optimizers, out);
  out.optimizers =
      read_all<OptimizerFile>(optimizers, [&](const RankFile& f, const OptimizerFile* reference) {
        return read_optimizer_file(out.folder, f, reference, options);
      });
  out.stage = out.folder.models.empty() && !out.folder.zero_models.empty() ? 3 : 0;
  for (const OptimizerFile& f : out.optimizers) {
    if (f.damage) continue;
    out.stage = f.stage();
    break;
  }
  if (universal_stage) out.stage = *universal_stage;
  const auto models = one_a_rank(out.stage == 3 ? out.folder.zero_models : out.folder.models, out);
  out.models = read_all<ModelFile>(models, [&](const RankFile& f, const ModelFile* reference) {
    return read_model_file(out.folder, f, reference, options);
  });
  const ModelFile& model = any_model(out);
  find_model_mesh(out, model);
  find_data_degree(out, model);
  const bool says_ranks = model.counts.contains("dp_world_size");
  if (out.stage == 3 && out.optimizers.empty() && !says_ranks &&
      out.mesh.dp < static_cast<int64_t>(models.size())) {
    out.mesh.dp = static_cast<int64_t>(models.size());
  }
  drop_all_stale(out);
  find_missing(out);
  const ModelFile& first = any_model(out);
  check_models(out, first);
  check_optimizers(out, first);
  check_doubles(out);
  read_weight_files(out, options);
  return out;
}

}  // namespace uckpt::deepspeed
