#include "lib/formats/megatron/core/core_format.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/formats/dcp/saved.h"
#include "lib/formats/megatron/core/buckets.h"
#include "lib/formats/megatron/core/common.h"
#include "lib/formats/megatron/core/states.h"
#include "lib/formats/megatron/core/unstacked.h"
#include "lib/formats/megatron/folder.h"
#include "lib/formats/megatron/remainders.h"
#include "lib/formats/megatron/told_by_names.h"

namespace uckpt::megatron {

namespace {

void add_facts(Catalog& catalog, const Common& common, const Parallelism& mesh, bool is_plain) {
  const Arguments& a = common.arguments;
  const auto add = [&](std::string name, std::string value) {
    catalog.facts.emplace_back(std::move(name), std::move(value));
  };
  if (!a.empty()) {
    std::string sizes;
    for (const auto& [what, name] :
         {std::pair("layers", "num_layers"), std::pair("hidden", "hidden_size"),
          std::pair("heads", "num_attention_heads"), std::pair("groups", "num_query_groups"),
          std::pair("ffn", "ffn_hidden_size"), std::pair("experts", "num_experts"),
          std::pair("padded vocabulary", "padded_vocab_size")})
      if (const auto n = a.number(name)) sizes += cat(sizes.empty() ? "" : ", ", *n, " ", what);
    if (!sizes.empty()) add("model", sizes);
    std::string text = cat("tp ", mesh.tp, ", pp ", mesh.pp);
    if (mesh.vp > 1) text += cat(" with ", mesh.vp, " virtual stages each");
    if (mesh.ep > 1 || a.number("num_experts")) text += cat(", ep ", mesh.ep, ", etp ", mesh.etp);
    add("mesh of the run", cat(text, ", ", mesh.world, mesh.world == 1 ? " rank" : " ranks"));
  }
  if (!common.sharding.empty()) add("optimizer sharding", common.sharding);
  if (is_plain) add("written by", "torch itself, for Megatron's FSDP");
}

// What `add_states` names parameter by parameter.
bool is_optimizer_state(std::string_view key) {
  const auto group = parse_group_key(key);
  return group && group->name == "param_state";
}

}  // namespace

bool recognises_core(const Target& target) {
  return looks_like(target, FolderKind::kCore) || looks_like(target, FolderKind::kPlainDcp);
}

Catalog read_core(const Target& target, const OpenOptions& options) {
  const Folder folder = find_folder(target);
  if (folder.kind == FolderKind::kLegacy)
    throw refused("megatron.format", "expected a distributed checkpoint, found one folder a rank")
        .in_file(folder.files.path())
        .hint("--from megatron reads it");
  const bool is_plain = folder.kind == FolderKind::kPlainDcp;
  if (!is_plain && !folder.files.has_file("common.pt"))
    throw refused("megatron.missing_files",
                  "common.pt is missing: the arguments of the run and the optimizer's groups are in it")
        .in_file(folder.files.path())
        .hint("--from dcp reads the tensors without what Megatron says of them");
  Catalog catalog;
  catalog.kind = "megatron-core";
  catalog.path = target.path;
  catalog.description = is_plain ? "Megatron checkpoint (fsdp_dtensor, torch_dcp)"
                                 : "Megatron-core distributed checkpoint (torch_dist)";
  if (!folder.note.empty()) catalog.warnings.push_back(folder.note);
  dcp::Saved saved = dcp::open_saved(folder.files, folder.entries, options);
  Common common = is_plain ? common_of_objects(saved, options) : read_common(folder.files, options);
  const Parallelism mesh = parallelism_of(common.arguments);
  hand_over(common.arguments, catalog);
  catalog.mesh = mesh.mesh();
  catalog.spec_folder = "megatron";
  catalog.iteration = common.iteration ? common.iteration : folder.iteration;
  dcp::CatalogBuilder builder(options, catalog);
  builder.add_saved(saved);
  add_facts(catalog, common, mesh, is_plain);
  add_states({folder.files, options, saved, common, mesh, is_plain}, builder, catalog);
  set_remainders_apart(catalog);
  add_settings_of_names(catalog);
  check_layers_of_experts(catalog);
  if (common.file) add_common(common, options, builder, catalog);
  builder.add_views(folder.files, saved);
  for (const dcp::StoredBytes& b : saved.stored.bytes)
    builder.add_object(b, dcp::open_object(*saved.files, b, options), !is_optimizer_state(b.key));
  dcp::warn_of_other_files(folder.files, folder.entries, saved, catalog);
  catalog.warn_of_unknown_classes();
  if (catalog.tensors.empty() && !catalog.refusal)
    catalog.refusal = refused("megatron.no_tensors", "the checkpoint holds no tensors").in_file(catalog.path);
  return catalog;
}

}  // namespace uckpt::megatron
