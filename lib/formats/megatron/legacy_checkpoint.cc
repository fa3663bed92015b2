#include "lib/formats/megatron/legacy_checkpoint.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/text.h"

namespace uckpt::megatron {

namespace {

// Before 2023 the distributed optimizer had files of their own for weights and, of each data parallel rank,
// for its share of the states.
constexpr std::string_view kOldModelFile = "model_rng.pt", kOldOptimFile = "optim.pt";

// What the folders hold, by name.
struct Listing {
  std::vector<std::string> ranks;       // with a model file
  std::vector<std::string> old_shares;  // with an old optimizer's share and no model
  std::string model_file{kModelFile};
};

Listing list_ranks(const Folder& folder) {
  Listing out;
  bool old = false, current = false;
  for (std::string name : folder.entries) {
    if (!name.ends_with('/') || !name.starts_with("mp_rank_")) continue;
    name.pop_back();
    const bool has_model = folder.files.has_file(cat(name, "/", kModelFile));
    const bool has_old_model = folder.files.has_file(cat(name, "/", kOldModelFile));
    const bool only_share =
        !has_model && !has_old_model && folder.files.has_file(cat(name, "/", kOldOptimFile));
    current |= has_model;
    old |= has_old_model && !has_model;
    (only_share ? out.old_shares : out.ranks).push_back(name);
  }
  if (old && !current) out.model_file = kOldModelFile;
  return out;
}

ModelFile read_first(const Folder& folder, const Listing& listing, const OpenOptions& options) {
  std::optional<Error> damage;
  for (const std::string& name : listing.ranks) {
    if (!folder.files.has_file(cat(name, "/", listing.model_file))) continue;
    try {
      return read_model_file(folder.files, cat(name, "/", listing.model_file), options);
    } catch (Error& e) {
      if (e.kind() != ErrorKind::kRefused) throw;
      if (!damage) damage = e;
    }
  }
  if (damage) throw *damage;
  throw refused("megatron.missing_files",
                cat("expected ", listing.model_file, " in the mp_rank_* folders, found none"))
      .in_file(folder.files.path());
}

// Without `args` the names have to tell: their second number was that of a stage, before there were experts.
Parallelism by_names(const Listing& listing) {
  Parallelism p;
  size_t numbers = 0;
  for (const std::string& name : listing.ranks) {
    const std::vector<int64_t> n = rank_numbers(name);
    numbers = std::max(numbers, n.size());
    if (!n.empty()) p.tp = std::max(p.tp, n[0] + 1);
    if (n.size() > 1) p.pp = std::max(p.pp, n[1] + 1);
  }
  constexpr int64_t kMost = 1 << 16;
  if (numbers > 2 || p.tp > kMost || p.pp > kMost) {
    throw refused("megatron.arguments",
                  "the files have no `args`: the degrees of parallelism are not to be told from the names");
  }
  p.etp = p.tp;
  p.world = p.tp * p.pp;
  return p;
}

std::vector<Rank> full_grid(const Parallelism& p) {
  std::vector<Rank> out;
  for (int64_t pp = 0; pp < p.pp; ++pp)
    for (int64_t ep = 0; ep < p.ep; ++ep)
      for (int64_t tp = 0; tp < p.tp; ++tp) out.push_back({tp, pp, ep, tp % p.etp, ep == 0});
  return out;
}

std::set<std::string> names_of(const std::vector<Rank>& ranks, const Parallelism& p) {
  std::set<std::string> out;
  for (const Rank& rank : ranks) out.insert(rank_folder_name(rank, p));
  return out;
}

// The ranks that there must be. Tools that make checkpoints without running one write a folder for each
// combination, more than a run does; they are taken where they are all there.
std::vector<Rank> expected_ranks(const Listing& listing, const Parallelism& p) {
  constexpr int64_t kMost = 1 << 20;
  const std::set<std::string> here(listing.ranks.begin(), listing.ranks.end());
  const bool may_be_grid =
      p.tp * p.pp <= kMost / p.ep && p.tp * p.pp * p.ep == static_cast<int64_t>(here.size());
  if (may_be_grid && p.tp % p.etp == 0) {
    std::vector<Rank> grid = full_grid(p);
    if (names_of(grid, p) == here) return grid;
  }
  return ranks_of(p);
}

void check_foreign(const Listing& listing, const std::set<std::string>& expected, const Parallelism& p,
                   LegacyCheckpoint& out) {
  std::vector<std::string> foreign;
  for (const std::string& name : listing.ranks)
    if (!expected.contains(name)) foreign.push_back(name);
  if (foreign.empty()) return;
  const bool by_data = p.pp == 1 && p.ep == 1 && std::ranges::all_of(foreign, [](const std::string& name) {
                         return rank_numbers(name).size() == 2;
                       });
  if (by_data && foreign.size() == listing.ranks.size()) {
    throw refused("megatron.old_layout", cat("the folders are numbered by data parallel rank (",
                                             some_of(foreign), "), as before 2023: this layout is not read"))
        .in_file(out.folder.files.path());
  }
  out.problems.push_back(
      refused("megatron.foreign_ranks", cat(some_of(foreign), foreign.size() == 1 ? " is" : " are",
                                            " not of the ranks that args speaks of (tp ", p.tp, ", pp ", p.pp,
                                            ", ep ", p.ep, "): two checkpoints lie in one folder"))
          .in_file(out.folder.files.path()));
}

// Arguments that all files of one save have alike.
constexpr std::string_view kShared[] = {"tensor_model_parallel_size",
                                        "pipeline_model_parallel_size",
                                        "virtual_pipeline_model_parallel_size",
                                        "expert_model_parallel_size",
                                        "expert_tensor_parallel_size",
                                        "num_layers",
                                        "hidden_size",
                                        "ffn_hidden_size",
                                        "num_attention_heads",
                                        "num_query_groups",
                                        "kv_channels",
                                        "padded_vocab_size",
                                        "num_experts",
                                        "world_size",
                                        "use_distributed_optimizer",
                                        "untie_embeddings_and_output_weights"};

std::string text_of(const ModelSettings& settings, std::string_view key) {
  const auto at = settings.find(key);
  if (at == settings.end()) return "none";
  if (const auto* n = std::get_if<int64_t>(&at->second)) return cat(*n);
  if (const auto* b = std::get_if<bool>(&at->second)) return *b ? "True" : "False";
  if (const auto* t = std::get_if<std::string>(&at->second)) return escape(*t, 40);
  return cat(std::get<double>(at->second));
}

// In words how a file is not of the same save as another.
std::optional<std::string> difference(const ModelFile& a, const ModelFile& b) {
  for (const std::string_view key : kShared) {
    const std::string x = text_of(a.arguments.settings(), key), y = text_of(b.arguments.settings(), key);
    if (x != y) return cat("args.", key, ": expected ", x, ", found ", y);
  }
  const auto number = [](const auto& n) { return n ? cat(*n) : std::string("none"); };
  if (a.iteration != b.iteration)
    return cat("iteration: expected ", number(a.iteration), ", found ", number(b.iteration));
  if (a.version != b.version)
    return cat("checkpoint_version: expected ", number(a.version), ", found ", number(b.version));
  if (a.chunks.size() != b.chunks.size())
    return cat("virtual chunks: expected ", a.chunks.size(), ", found ", b.chunks.size());
  if (a.has_optimizer != b.has_optimizer)
    return cat("expected ", a.has_optimizer ? "an" : "no", " optimizer, found ",
               b.has_optimizer ? "one" : "none");
  return std::nullopt;
}

void read_all(LegacyCheckpoint& out, const std::string& model_file, const OpenOptions& options) {
  std::vector<std::optional<Error>> damage(out.ranks.size());
  tbb::parallel_for(size_t{0}, out.ranks.size(), [&](size_t i) {
    LoadedRank& rank = out.ranks[i];
    try {
      const std::string model = cat(rank.name, "/", model_file), optim = cat(rank.name, "/", kOptimFile);
      if (!out.folder.files.has_file(model)) return;
      rank.model = read_model_file(out.folder.files, model, options);
      rank.states.resize(rank.model->chunks.size());
      for (size_t c = 0; c < rank.states.size(); ++c) rank.states[c].resize(rank.model->chunks[c].size());
      if (out.folder.files.has_file(optim)) rank.optim = read_optim_file(out.folder.files, optim, options);
    } catch (Error& e) {
      if (e.kind() != ErrorKind::kRefused) throw;
      damage[i] = e;
    }
  });
  for (size_t i = 0; i < damage.size(); ++i) {
    if (damage[i]) out.problems.push_back(*damage[i]);
  }
}

void find_missing(LegacyCheckpoint& out, const Listing& listing) {
  std::vector<std::string> here;
  for (const LoadedRank& rank : out.ranks) {
    const bool is_here = std::ranges::find(listing.ranks, rank.name) != listing.ranks.end();
    if (!is_here) {
      out.missing.push_back(rank.name);
    } else if (!out.folder.files.has_file(cat(rank.name, "/", listing.model_file))) {
      out.missing.push_back(cat(rank.name, "/", listing.model_file));
    } else {
      here.push_back(rank.name);
    }
  }
  out.here = cat(some_of(here), here.size() == 1 ? " is here" : " are here");
}

void check_consistency(LegacyCheckpoint& out, const ModelFile& reference) {
  for (const LoadedRank& rank : out.ranks) {
    if (!rank.model) continue;
    if (rank.model->refusal)
      out.problems.push_back(Error(*rank.model->refusal).in_file(rank.model->source.bytes()->name()));
    if (rank.optim && rank.optim->refusal)
      out.problems.push_back(Error(*rank.optim->refusal).in_file(rank.optim->source.bytes()->name()));
    if (const auto text = difference(reference, *rank.model)) {
      out.problems.push_back(refused("megatron.mixed_runs", cat(*text, ", as in ", reference.source.name(),
                                                                ": the files come from different saves"))
                                 .in_file(rank.model->source.bytes()->name()));
    }
  }
}

// Before version 2 the rows of a fused query_key_value lay in another order, by whole matrices or by parts of
// heads; what Megatron does to them on loading depends on the number of heads of each rank.
void check_version(LegacyCheckpoint& out, const ModelFile& reference) {
  const double version = reference.version.value_or(0);
  if (version >= 2) return;
  for (const Chunk& chunk : reference.chunks) {
    for (const ModelTensor& t : chunk) {
      if (t.name.find("query_key_value") == t.name.npos) continue;
      out.problems.push_back(
          refused("megatron.old_version", cat("checkpoint_version ", version,
                                              ": expected 2 or more: the rows of query_key_value lie in "
                                              "an order that is not read"))
              .in_file(reference.source.bytes()->name())
              .in_tensor(t.name)
              .hint("load it with Megatron-LM and save it again"));
      return;
    }
  }
}

void check_chunks(const ModelFile& reference, const Parallelism& p, LegacyCheckpoint& out) {
  const auto stated = reference.arguments.number("virtual_pipeline_model_parallel_size");
  if (!stated || static_cast<size_t>(*stated) == reference.chunks.size()) return;
  out.problems.push_back(
      refused("megatron.chunks", cat("args speaks of ", p.vp, " virtual chunks a stage, found ",
                                     reference.chunks.size(), " in the file"))
          .in_file(reference.source.bytes()->name()));
}

// What is in the folders and not read.
void warn_unread(const Listing& listing, LegacyCheckpoint& out) {
  if (listing.model_file == kOldModelFile || !listing.old_shares.empty()) {
    out.warnings.push_back(
        "the optimizer's states lie in optim.pt files, one for each data parallel rank, as before 2023: they "
        "are "
        "not read, only the model's weights are");
  }
  const std::string& name = out.first().name;
  if (out.folder.files.has_file(cat(name, "/layer_wise_optimizer_0.pt"))) {
    out.warnings.push_back(
        "the optimizer's states lie in layer_wise_optimizer_*.pt files, which are not read: only the model's "
        "weights are");
  }
  const auto iteration = out.first().model->iteration;
  if (iteration && out.folder.iteration && *iteration != *out.folder.iteration) {
    out.warnings.push_back(cat("the files are of iteration ", *iteration, ", the folder's name is ",
                               escape(out.folder.name, 60)));
  }
}

}  // namespace

const LoadedRank& LegacyCheckpoint::first() const {
  return *std::ranges::find_if(ranks, [](const LoadedRank& r) { return r.model.has_value(); });
}

LegacyCheckpoint load_legacy(Folder folder, const OpenOptions& options) {
  LegacyCheckpoint out(std::move(folder));
  if (!out.folder.note.empty()) out.warnings.push_back(out.folder.note);
  const Listing listing = list_ranks(out.folder);
  const ModelFile reference = read_first(out.folder, listing, options);
  Parallelism& p = out.parallelism;
  try {
    p = reference.arguments.empty() ? by_names(listing) : parallelism_of(reference.arguments);
    check_chunks(reference, p, out);
    p.vp = static_cast<int64_t>(reference.chunks.size());
    const std::vector<Rank> ranks = expected_ranks(listing, p);
    check_foreign(listing, names_of(ranks, p), p, out);
    for (const Rank& rank : ranks) {
      LoadedRank& loaded = out.ranks.emplace_back();
      loaded.rank = rank;
      loaded.name = rank_folder_name(rank, p);
    }
  } catch (Error& e) {
    throw e.in_file(reference.source.bytes()->name());
  }
  find_missing(out, listing);
  read_all(out, listing.model_file, options);
  const bool any = std::ranges::any_of(out.ranks, [](const LoadedRank& r) { return r.model.has_value(); });
  if (!any && !out.problems.empty()) throw out.problems.front();
  check_consistency(out, *out.first().model);
  check_version(out, *out.first().model);
  warn_unread(listing, out);
  return out;
}

}  // namespace uckpt::megatron
