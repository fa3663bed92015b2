#include "lib/formats/deepspeed/deepspeed_format.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/builder.h"
#include "lib/formats/deepspeed/checkpoint.h"
#include "lib/formats/deepspeed/extras.h"
#include "lib/formats/deepspeed/folder.h"
#include "lib/formats/deepspeed/plain.h"
#include "lib/formats/deepspeed/universal.h"
#include "lib/formats/deepspeed/weights.h"
#include "lib/formats/deepspeed/zero12.h"
#include "lib/formats/deepspeed/zero3.h"

namespace uckpt::deepspeed {

namespace {

constexpr size_t kMostLines = 20;  // of further problems

// Rules that one tensor parallel rank needs; with more of them the tensors are only listed.
void set_vocabulary(Builder& builder, const Checkpoint& checkpoint) {
  if (checkpoint.mesh.tp > 1) return;
  for (const ModelFile& f : checkpoint.models) {
    if (f.damage || !f.has_universal_info) continue;
    if (f.vocabulary.has_affine_map) {
      builder.problems.push_back(
          refused("deepspeed.affine_map",
                  "the checkpoint describes its parameters by affine maps, which this version does not read")
              .in_file(f.source.bytes()->name()));
    }
    return builder.vocabulary.set(f.vocabulary.patterns, f.vocabulary.original_size);
  }
}

void warn_unused_patterns(Builder& builder) {
  for (const std::string& text : builder.vocabulary.unused()) {
    builder.catalog.warnings.push_back(
        cat("the vocabulary pattern \"", escape(text, 80), "\" matches no parameter"));
  }
}

void add_masters(Builder& builder, Checkpoint& checkpoint, bool universal) {
  // With tensor parallelism the first rank of each stage stands for the others, which are only listed.
  for (int64_t m = 0; m < checkpoint.model_ranks(); m += checkpoint.mesh.tp) {
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

std::string shard_text(const Checkpoint& c, const std::string& name, const Shape& own) {
  std::string shapes;
  bool differ = false;
  for (const ModelFile& f : c.models) {
    if (!f.param_shapes) continue;
    for (const ParamList& group : *f.param_shapes) {
      for (const Param& p : group) {
        if (p.name != name) continue;
        differ |= p.shape != own;
        shapes += cat(shapes.empty() ? "" : " ", shape_text(p.shape));
      }
    }
  }
  return cat(c.mesh.tp, " tp shards", differ ? cat(": ", shapes) : std::string());
}

bool is_number(const Catalog& catalog, const Tensor& t) {
  const auto pieces = catalog.pieces_of(t.pieces);
  return !pieces.empty() && pieces[0].file == kLiteral;
}

// Shards of one rank are no tensors: they are listed with the shape they have there, and refused.
void refuse_shards(Builder& builder, const Checkpoint& checkpoint, bool only_weights) {
  const std::string why = cat("tensor parallel degree ", checkpoint.mesh.tp,
                              " needs layout rules, which this version does not read yet");
  bool any = false;
  for (Tensor& t : builder.catalog.tensors) {
    if (t.state == state::kOther || is_number(builder.catalog, t)) continue;
    if (only_weights && t.state != state::kParam) continue;
    if (t.refusal.empty()) t.refusal = why;
    if (!t.alias) t.layout = shard_text(checkpoint, t.name, t.shape);
    t.pieces = {};
    t.copies.clear();
    any = true;
  }
  if (any) {
    builder.problems.push_back(
        refused("deepspeed.tensor_parallel", why).in_file(checkpoint.folder.files.path()));
  }
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
    if (std::any_of(files.begin(), files.end(), [r](const WeightFile& f) { return f.file.data == r; }))
      continue;
    checkpoint.missing.push_back(cat("expp_rank_", r, "_mp_rank_00_optim_states.pt"));
  }
}

void build(Builder& builder, Checkpoint& checkpoint, UniversalFolder* universal) {
  builder.guard([&] { set_vocabulary(builder, checkpoint); });
  if (universal) builder.guard([&] { add_universal(builder, checkpoint, *universal); });
  add_masters(builder, checkpoint, universal != nullptr);
  const Weights weights = collect_weights(builder, checkpoint);
  const auto trained = add_plain_optimizers(builder, checkpoint, weights);
  const bool shards_only = universal && checkpoint.mesh.tp > 1;
  builder.guard([&] { add_weights(builder, checkpoint, weights, trained, !shards_only); });
  if (checkpoint.mesh.tp > 1) refuse_shards(builder, checkpoint, shards_only);
  note_missing_weight_files(builder, checkpoint, weights);
  if (!universal) warn_unused_patterns(builder);  // there the rows are cut already
  warn_weights_only(builder, checkpoint);
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
