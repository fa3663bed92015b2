#include "lib/formats/deepspeed/deepspeed_format.h"

#include <algorithm>
#include <map>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"
#include "lib/formats/deepspeed/extras.h"
#include "lib/formats/deepspeed/folder.h"
#include "lib/formats/deepspeed/plain.h"
#include "lib/formats/deepspeed/rules.h"
#include "lib/formats/deepspeed/universal.h"
#include "lib/formats/deepspeed/weights.h"
#include "lib/formats/deepspeed/zero12.h"
#include "lib/formats/deepspeed/zero3.h"
#include "lib/formats/strangers.h"

namespace uckpt::deepspeed {

namespace {

constexpr size_t kMostLines = 20;  // of further problems

// What the checkpoint says of itself, from the first file that does.
const ModelFile* describing_file(const Checkpoint& checkpoint) {
  for (const ModelFile& f : checkpoint.models)
    if (!f.damage && f.universal) return &f;
  return nullptr;
}

// Of a single tensor parallel rank only the vocabulary's filler has to go.
void set_vocabulary(Builder& builder, const Checkpoint& checkpoint) {
  const ModelFile* file = describing_file(checkpoint);
  if (checkpoint.mesh.tp > 1 || !file) return;
  const bool scaled =
      std::any_of(file->universal->affine.begin(), file->universal->affine.end(), [](const AffineMap& m) {
        return std::any_of(m.ranks.begin(), m.ranks.end(), [](const auto& rank) {
          return std::any_of(rank.second.begin(), rank.second.end(),
                             [](const AffinePiece& p) { return p.scale != 1; });
        });
      });
  if (scaled) {
    builder.problems.push_back(refused("deepspeed.affine_map",
                                       "an affine map of a single rank scales a parameter, which is not read")
                                   .in_file(file->source.bytes()->name()));
  }
  builder.vocabulary.set(file->universal->vocabulary, file->universal->original_vocabulary);
}

void warn_unused_patterns(Builder& builder) {
  for (const std::string& text : builder.vocabulary.unused()) {
    builder.catalog.warnings.push_back(
        cat("the vocabulary pattern \"", escape(text, 80), "\" matches no parameter"));
  }
}

void add_masters(Builder& builder, Checkpoint& checkpoint, bool universal) {
  for (int64_t m = builder.tp_rank; m < checkpoint.model_ranks(); m += checkpoint.mesh.tp) {
    builder.guard([&] {
      if (universal) return;
      if (checkpoint.stage == 3) {
        add_zero3(builder, checkpoint, m);
      } else if (!checkpoint.optimizers.empty()) {
        name_partitions(checkpoint, m);
        add_zero12(builder, checkpoint, m);
      }
    });
    if (checkpoint.stage == 3) builder.guard([&] { add_frozen3(builder, checkpoint, m); });
  }
}

// Every parameter of a checkpoint without ZeRO optimizer files that has names but no states.
void warn_weights_only(Builder& builder, const Checkpoint& checkpoint) {
  const bool zero = std::any_of(checkpoint.models.begin(), checkpoint.models.end(),
                                [](const ModelFile& f) { return f.param_shapes.has_value(); });
  if (zero && checkpoint.optimizers.empty() && checkpoint.stage != 3 && !checkpoint.folder.universal) {
    builder.catalog.warnings.push_back(
        "there are no optimizer files here: only the module's weights can be read");
  }
}

// The weights beside a universal folder's whole parameters are shards of one rank: those that are nowhere
// else are listed with the shape they have there, and refused.
void refuse_shards(Builder& builder, const Checkpoint& checkpoint) {
  const std::string why = cat("it lies in ", checkpoint.mesh.tp,
                              " tensor parallel shards, which a universal checkpoint does not describe");
  bool any = false;
  for (Tensor& t : builder.catalog.tensors) {
    if (t.state != state::kParam) continue;
    if (t.refusal.empty()) t.refusal = why;
    t.pieces = {};
    t.copies.clear();
    any = true;
  }
  if (any)
    builder.problems.push_back(
        refused("deepspeed.tensor_parallel", why).in_file(checkpoint.folder.files.path()));
}

std::optional<Error> missing_error(const Builder& builder, const Checkpoint& c) {
  if (c.missing.empty()) return std::nullopt;
  std::string text = c.missing.front();
  if (c.missing.size() > 1) text += cat(" and ", c.missing.size() - 1, " more files are missing");
  if (c.missing.size() == 1) text += " is missing";
  if (!c.missing_note.empty()) text += cat(" (", c.missing_note, ")");
  if (builder.incomplete > 0) {
    text += cat("; ", human_count(builder.incomplete), builder.incomplete == 1 ? " tensor" : " tensors",
                " cannot be rebuilt");
  }
  Error e = refused("deepspeed.missing_files", text).in_file(c.folder.files.path());
  if (c.missing.size() > 1) {
    std::string names;
    for (size_t i = 0; i < c.missing.size() && i < 8; ++i) names += cat(i ? ", " : "", c.missing[i]);
    e.hint(cat("missing: ", names, c.missing.size() > 8 ? ", …" : ""));
  }
  return e;
}

// The gravest problem stops a conversion, the others are said.
void settle_problems(Builder& builder, const Checkpoint& checkpoint) {
  std::vector<Error> all;
  if (auto missing = missing_error(builder, checkpoint)) all.push_back(std::move(*missing));
  all.insert(all.end(), checkpoint.problems.begin(), checkpoint.problems.end());
  all.insert(all.end(), builder.problems.begin(), builder.problems.end());
  if (all.empty()) return;
  if (checkpoint.missing.empty() && builder.incomplete > 0 && all[0].hint_text().empty()) {
    all[0].hint(cat(human_count(builder.incomplete), builder.incomplete == 1 ? " tensor" : " tensors",
                    " cannot be rebuilt without it"));
  }
  builder.catalog.refusal = all[0];
  for (size_t i = 1; i < all.size() && i <= kMostLines; ++i)
    builder.catalog.warnings.push_back(all[i].line());
  if (all.size() > kMostLines + 1) {
    builder.catalog.warnings.push_back(cat("… and ", all.size() - kMostLines - 1, " more problems"));
  }
}

void note_missing_weight_files(Builder& builder, Checkpoint& checkpoint, const Weights& weights) {
  if (checkpoint.folder.universal) return;
  for (std::string& name : missing_weight_files(builder, checkpoint, weights))
    checkpoint.missing.push_back(std::move(name));
  const auto ranks = static_cast<int64_t>(checkpoint.expert_optimizers.size());
  for (int64_t r = 0; ranks > 0 && r < builder.catalog.mesh.ep; ++r) {
    const auto& files = checkpoint.expert_optimizers;
    if (std::any_of(files.begin(), files.end(), [&](const WeightFile& f) {
          return f.file.data == r && f.file.model % checkpoint.mesh.tp == builder.tp_rank;
        }))
      continue;
    checkpoint.missing.push_back(cat("expp_rank_", r, "_mp_rank_", builder.tp_rank < 10 ? "0" : "",
                                     builder.tp_rank, "_optim_states.pt"));
  }
}

// A pipeline's layer that no optimizer knows is frozen, or left from a run with more layers: nothing tells
// which.
void warn_untrained_layers(Builder& builder, const Checkpoint& checkpoint, const Weights& weights) {
  if (checkpoint.layers.empty() || checkpoint.optimizers.empty() || builder.tp_rank != 0) return;
  std::map<std::string_view, bool> is_trained;
  for (const Weight& w : weights.all) {
    if (w.file->role != Role::kLayer) continue;
    is_trained[w.file->name] |= builder.find(state::kMaster, w.name) || weights.is_buffer(w.name);
  }
  for (const auto& [name, trained] : is_trained)
    if (!trained)
      builder.catalog.warnings.push_back(cat(
          name, " holds no parameter that the optimizer has: taken as frozen, unless another run left it"));
}

// All that the ranks of one tensor parallel rank hold.
Weights add_model(Builder& builder, Checkpoint& checkpoint, UniversalFolder* universal) {
  if (universal) builder.guard([&] { add_universal(builder, checkpoint, *universal); });
  add_masters(builder, checkpoint, universal != nullptr);
  Weights weights = collect_weights(builder, checkpoint);
  const auto trained = add_plain_optimizers(builder, checkpoint, weights);
  const bool shards_only = universal && checkpoint.mesh.tp > 1;
  builder.guard([&] { add_weights(builder, checkpoint, weights, trained, !shards_only); });
  if (universal && !shards_only) add_universal_copies(builder, checkpoint, *universal);
  if (shards_only) refuse_shards(builder, checkpoint);
  note_missing_weight_files(builder, checkpoint, weights);
  if (!universal) warn_untrained_layers(builder, checkpoint, weights);
  return weights;
}

// A rank whose share of a parameter is empty has no master of it, only a weight without elements.
void name_empty_masters(std::vector<RankSet>& ranks) {
  std::map<std::string_view, DType> masters;
  for (const RankSet& set : ranks)
    for (const Tensor& t : set.tensors)
      if (t.state == state::kMaster) masters.emplace(t.name, t.dtype);
  for (RankSet& set : ranks) {
    for (Tensor& t : set.tensors) {
      const auto master = masters.find(t.name);
      if (t.state != state::kParam || t.alias || numel_of(t.shape) != 0 || master == masters.end()) continue;
      t.state = state::kMaster;
      t.dtype = master->second;
    }
  }
}

// One set of fragments a tensor parallel rank, and the rules to join them.
Weights add_rank_sets(Builder& builder, Checkpoint& checkpoint) {
  Catalog& catalog = builder.catalog;
  std::optional<Weights> first;
  for (int64_t t = 0; t < checkpoint.mesh.tp; ++t) {
    Builder own(catalog);
    own.allow_expand = builder.allow_expand;
    own.tp_rank = t;
    Weights weights = add_model(own, checkpoint, nullptr);
    if (!first) first = std::move(weights);
    catalog.ranks.push_back({{{"tp", t}}, std::move(catalog.tensors)});
    catalog.tensors.clear();
    builder.incomplete += own.incomplete;
    builder.problems.insert(builder.problems.end(), own.problems.begin(), own.problems.end());
  }
  name_empty_masters(catalog.ranks);
  const ModelFile* file = describing_file(checkpoint);
  if (file) builder.guard([&] { catalog.rules = rules_of(*file->universal, catalog); });
  return std::move(*first);
}

void build(Builder& builder, Checkpoint& checkpoint, UniversalFolder* universal) {
  builder.guard([&] { set_vocabulary(builder, checkpoint); });
  const bool fragments = checkpoint.mesh.tp > 1 && !universal;
  const Weights weights =
      fragments ? add_rank_sets(builder, checkpoint) : add_model(builder, checkpoint, universal);
  for (const ModelFile& f : checkpoint.models)
    if (!f.damage) builder.catalog.arguments.insert(f.arguments.begin(), f.arguments.end());
  // For whoever writes it anew: the tensors are whole, and come without padding.
  if (!universal && !fragments)
    builder.catalog.rules = rules_of_padding(builder.catalog, builder.vocabulary.padded());
  if (!universal) warn_unused_patterns(builder);  // there the rows are cut already
  warn_weights_only(builder, checkpoint);
  warn_of_strangers(
      checkpoint.folder.files.list(), [](std::string_view name) { return parse_name(name).has_value(); },
      builder.catalog);
  builder.guard([&] { add_loose(builder, checkpoint, universal); });
  add_objects(builder.catalog, checkpoint, universal);
  add_facts(builder.catalog, checkpoint, weights, universal);
}

}  // namespace

bool recognises(const Target& target) { return looks_like_deepspeed(target); }

Catalog read(const Target& target, const OpenOptions& options) {
  Folder folder = find_folder(target);
  const bool is_universal = folder.universal;
  std::optional<UniversalFolder> universal;
  if (is_universal) universal = read_universal_folder(folder, options);
  Checkpoint checkpoint =
      load_checkpoint(std::move(folder), options, universal ? universal->state.zero_stage : std::nullopt);
  Catalog catalog;
  catalog.kind = is_universal ? "deepspeed-universal" : "deepspeed";
  catalog.path = target.path;
  catalog.mesh = checkpoint.mesh;
  catalog.warnings = checkpoint.warnings;
  if (!checkpoint.folder.note.empty()) catalog.warnings.push_back(checkpoint.folder.note);
  Builder builder(catalog);
  builder.allow_expand = options.allow_expand;
  build(builder, checkpoint, universal ? &*universal : nullptr);
  settle_problems(builder, checkpoint);
  return catalog;
}

}  // namespace uckpt::deepspeed
