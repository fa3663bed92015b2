#include "lib/formats/megatron/legacy_format.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/megatron/legacy_catalog.h"
#include "lib/formats/megatron/remainders.h"
#include "lib/formats/megatron/told_by_names.h"
#include "lib/formats/strangers.h"

namespace uckpt::megatron {

namespace {

constexpr size_t kMostLines = 20;  // of further problems

// States that do not fit are no reason to refuse the weights.
void give_flat_states(LegacyCheckpoint& checkpoint, LoadedRank& rank, const RankFiles& files) {
  try {
    add_flat_states(files, checkpoint.parallelism, rank.states);
  } catch (const Error& e) {
    if (e.code() != "megatron.optimizer_size") throw;
    rank.unplaced = e.message();
  }
}

void give_states(LegacyCheckpoint& checkpoint, LoadedRank& rank) {
  const RankFiles files{rank.rank, &*rank.model, rank.optim ? &*rank.optim : nullptr};
  const bool is_plain =
      std::ranges::any_of(rank.model->optimizers, [](const OptimizerEntry& e) { return e.is_plain(); });
  if (rank.optim) give_flat_states(checkpoint, rank, files);
  if (is_plain) add_plain_states(files, checkpoint.parallelism, rank.states);
  add_group_steps(files, checkpoint.parallelism, rank.states);
}

void give_all_states(LegacyCheckpoint& checkpoint) {
  for (LoadedRank& rank : checkpoint.ranks) {
    if (!rank.model) continue;
    try {
      give_states(checkpoint, rank);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kRefused) throw;
      checkpoint.problems.push_back(e);
    }
  }
}

// Where one rank's states have no names, those of the others are of no use: all weights are then as the model
// has them.
void leave_unplaced(LegacyCheckpoint& checkpoint, Catalog& catalog) {
  for (const LoadedRank& rank : checkpoint.ranks) {
    if (rank.unplaced.empty()) continue;
    Tensor& t = catalog.tensors.emplace_back();
    t.state = state::kOther;
    t.name = cat(rank.name, "/distrib_optim.pt");
    t.layout = "flat states";
    t.refusal = cat(rank.unplaced, ": --states param writes the weights alone");
  }
  if (catalog.tensors.empty()) return;
  for (LoadedRank& rank : checkpoint.ranks)
    for (auto& chunk : rank.states) std::ranges::fill(chunk, ParameterStates());
}

std::optional<Error> missing_error(const LegacyCheckpoint& c) {
  if (c.missing.empty()) return std::nullopt;
  const size_t more = c.missing.size() - 1;
  std::string text = cat(escape(c.missing.front(), 80),
                         more == 0 ? std::string(" is missing")
                                   : cat(" and ", more, more == 1 ? " more is" : " more are", " missing"));
  Error e = refused("megatron.missing_files", cat(text, " (", c.here, ")")).in_file(c.folder.files.path());
  if (more > 0) {
    constexpr size_t kMost = 8;
    std::string names;
    for (size_t i = 0; i < c.missing.size() && i < kMost; ++i) names += cat(i ? ", " : "", c.missing[i]);
    e.hint(cat("missing: ", names, c.missing.size() > kMost ? ", …" : ""));
  }
  return e;
}

// The gravest problem stops a conversion, the others are said.
void settle(const LegacyCheckpoint& checkpoint, Catalog& catalog) {
  std::vector<Error> all;
  if (auto missing = missing_error(checkpoint)) all.push_back(std::move(*missing));
  all.insert(all.end(), checkpoint.problems.begin(), checkpoint.problems.end());
  if (all.empty()) return;
  catalog.refusal = all[0];
  for (size_t i = 1; i < all.size() && i <= kMostLines; ++i) catalog.warnings.push_back(all[i].line());
  if (all.size() > kMostLines + 1)
    catalog.warnings.push_back(cat("… and ", all.size() - kMostLines - 1, " more problems"));
}

// Files of the older layouts are told of elsewhere.
void warn_of_other_files(const LegacyCheckpoint& checkpoint, Catalog& catalog) {
  warn_of_strangers(
      checkpoint.folder.entries, [](std::string_view) { return false; }, catalog);
  const auto is_own = [](std::string_view name) {
    return name == "model_optim_rng.pt" || name == "distrib_optim.pt" || name == "model_rng.pt" ||
           name == "optim.pt" || name.starts_with("layer_wise_optimizer_");
  };
  for (const LoadedRank& rank : checkpoint.ranks)
    if (rank.model)
      warn_of_strangers(checkpoint.folder.files.list(rank.name), is_own, catalog, cat(rank.name, "/"));
}

}  // namespace

bool recognises_legacy(const Target& target) { return looks_like(target, FolderKind::kLegacy); }

Catalog read_legacy(const Target& target, const OpenOptions& options) {
  Folder folder = find_folder(target);
  if (folder.kind != FolderKind::kLegacy) {
    throw refused("megatron.format", "expected mp_rank_* folders, found a distributed checkpoint")
        .in_file(folder.files.path())
        .hint("--from megatron-core reads it");
  }
  LegacyCheckpoint checkpoint = load_legacy(std::move(folder), options);
  give_all_states(checkpoint);
  Catalog catalog;
  catalog.kind = "megatron";
  catalog.description = "Megatron-LM checkpoint, a file for each rank";
  catalog.path = target.path;
  const ModelFile& model = *checkpoint.first().model;
  catalog.iteration = model.iteration ? model.iteration : checkpoint.folder.iteration;
  catalog.spec_folder = "megatron";
  hand_over(model.arguments, catalog);
  const std::vector<int64_t> layers = count_layers(checkpoint);
  leave_unplaced(checkpoint, catalog);
  add_rank_sets(checkpoint, options.allow_expand, catalog);
  add_loose(checkpoint, options.allow_expand, catalog);
  add_facts(checkpoint, layers, catalog);
  add_objects(checkpoint, catalog);
  catalog.warnings = checkpoint.warnings;
  warn_of_other_files(checkpoint, catalog);
  catalog.warn_of_unknown_classes();
  set_remainders_apart(catalog);
  add_settings_of_names(catalog);
  settle(checkpoint, catalog);
  check_layers_of_experts(catalog);
  return catalog;
}

}  // namespace uckpt::megatron
