#include "lib/convert/prepare.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <unordered_map>

#include "lib/base/phases.h"
#include "lib/base/text.h"
#include "lib/convert/cut.h"
#include "lib/convert/select.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/elements.h"
#include "lib/tensor/quantized.h"

namespace uckpt {

void keep_module_weight(Catalog& catalog, uint32_t tensor, uint32_t copy) {
  auto& copies = catalog.tensors[tensor].copies;
  const Copy module = copies[copy];
  const auto first = copies.begin() + copy + 1;
  const auto last = std::find_if(first, copies.end(), [](const Copy& c) { return !c.is_replica; });
  std::vector<Copy> replicas(first, last);
  for (Copy& replica : replicas) replica.is_module = replica.is_replica = false;
  copies.erase(first - 1, last);
  const auto kept_index = static_cast<uint32_t>(catalog.tensors.size());
  const auto add = [&](const Tensor& master, PieceRange pieces, std::optional<uint32_t> alias) {
    Tensor kept = master;
    kept.state = state::kParam;
    kept.dtype = module.dtype;
    kept.module_dtype.reset();
    kept.digest.reset();
    kept.pieces = pieces;
    kept.copies.clear();
    kept.alias = alias;
    catalog.tensors.push_back(std::move(kept));
  };
  add(catalog.tensors[tensor], module.pieces, std::nullopt);
  catalog.tensors.back().copies = std::move(replicas);
  for (uint32_t i = 0; i < kept_index; ++i)
    if (catalog.tensors[i].alias == tensor) add(catalog.tensors[i], {}, kept_index);
}

namespace {

// Copies of a type that cannot be compared with the tensor's: a module weight is kept as it is, else refused.
void settle_incomparable_copies(Catalog& catalog, const ConvertOptions& options) {
  const auto count = static_cast<uint32_t>(catalog.tensors.size());
  for (uint32_t i = 0; i < count; ++i) {
    for (const Copy& copy : catalog.tensors[i].copies)
      if (copy.is_module) catalog.tensors[i].module_dtype = copy.dtype;
    if (options.trust_copies) catalog.tensors[i].copies.clear();
    for (auto c = static_cast<uint32_t>(catalog.tensors[i].copies.size()); c-- > 0;) {
      const Tensor& t = catalog.tensors[i];
      const Copy& copy = t.copies[c];
      if (copy.is_replica || kernels::comparable(t.dtype, copy.dtype)) continue;
      if (!copy.is_module) {
        throw refused("copies.dtype", cat("expected every copy to be ", name_of(t.dtype), ", found ",
                                          copy.what, " of ", name_of(copy.dtype)))
            .in_file(catalog.path)
            .in_tensor(t.path());
      }
      keep_module_weight(catalog, i, c);
    }
  }
}

// The names of each tensor that has several among the chosen ones.
using TiedNames = std::unordered_map<uint32_t, std::vector<std::string_view>>;

TiedNames tied_names(const Catalog& catalog, std::span<const uint32_t> chosen) {
  TiedNames out;
  for (const uint32_t t : chosen) {
    const Tensor& tensor = catalog.tensors[t];
    if (!tensor.alias) continue;
    std::vector<std::string_view>& names = out[*tensor.alias];
    if (names.empty()) names.push_back(catalog.tensors[*tensor.alias].name);
    names.push_back(tensor.name);
  }
  return out;
}

// The type that is asked for, which may be the tensor's own: a module weight beside it may have another.
std::optional<DType> wanted_dtype(const Catalog& catalog, uint32_t tensor, const TiedNames& tied,
                                  const Scales& scales, const DTypeRules& rules) {
  const Tensor& t = catalog.tensors[tensor];
  const auto names = tied.find(t.alias.value_or(tensor));
  const std::optional<DType> wanted = names == tied.end() ? rules.wanted(t) : rules.wanted(t, names->second);
  if (!wanted || *wanted == t.dtype) return wanted;
  if (scales.contains(t.name))
    throw quantized(catalog, t, scales, *wanted)
        .hint("--dtype keep:PATTERN before it, or no --dtype, keeps such weights as they are");
  if (!kernels::can_cast(t.dtype, *wanted))
    throw refused("dtype.cast", cat("it cannot be cast from ", name_of(t.dtype), " to ", name_of(*wanted)))
        .in_file(catalog.path)
        .in_tensor(t.path());
  return wanted;
}

// A folder is replaced whole, so it must be what this tool writes, and hold none of the input.
void check_replaced_folder(const Catalog& catalog, const std::string& out) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::canonical(out, error);
  if (error || !std::filesystem::is_directory(folder, error)) return;
  for (const auto& file : catalog.files) {
    const std::string inside = std::filesystem::weakly_canonical(file->name(), error).string();
    if (inside.starts_with(folder.string() + "/"))
      throw trouble("output.is_input", "the output is a folder that holds the input").in_file(out);
  }
  if (!std::filesystem::is_empty(folder, error) && !looks_like_checkpoint(out))
    throw trouble("output.folder", "the output is a folder that holds something else than a checkpoint")
        .in_file(out)
        .hint("-f replaces checkpoints alone: remove the folder, or give another name");
}

}  // namespace

Catalog open_for_conversion(const std::string& in, const std::string& out, const ConvertOptions& options) {
  OpenOptions open = options.open;
  RuleOptions rules = options.rules;
  // Its errors come first: with them its `convert` says nothing, not even the kind of output.
  if (!rules.spec.empty() && rules.read().diagnostics.has_errors())
    throw first_problem(rules.read().diagnostics, in, rules);
  rules.target_folder = writer_for(options.to, out).spec_folder;
  open.allow_expand |= options.allow_expand;
  open.check_crc &= options.check_crc;
  Catalog catalog = open_whole(in, open, rules, false);
  if (catalog.refusal) throw *catalog.refusal;
  settle_incomparable_copies(catalog, options);
  return catalog;
}

Prepared prepare(Catalog& catalog, uint32_t first_object, const std::string& out,
                 const ConvertOptions& options) {
  enter_phase("lay out");
  Prepared p;
  p.writer = &writer_for(options.to, out);
  check_patterns_match(catalog, options.selection, options.dtypes);
  p.request.tensors = select_tensors(catalog, options.selection);
  std::vector<std::string> notes;
  if (p.writer->complete) {
    p.writer->complete(catalog, p.request.tensors, options.missing_zero, notes);
  } else if (options.missing_zero) {
    throw trouble("usage.missing", cat("--missing: ", p.writer->name,
                                       " output holds what the input has: nothing is made up for it"));
  }
  p.request.first_object = first_object;
  p.request.created_by = options.created_by;
  p.request.path = out;
  p.request.mesh = options.layout;
  p.request.stage_sizes = options.stage_sizes;
  p.request.shard_size = options.shard_size;
  if (options.shard_size > 0 && !p.writer->takes_shard_size)
    throw trouble("usage.shard_size",
                  cat("--shard-size: ", p.writer->name, " output is not cut into files by size"));
  p.request.states_chosen = !options.selection.states.empty();
  const TiedNames tied = tied_names(catalog, p.request.tensors);
  const Scales scales = options.dtypes.rules.empty() ? Scales() : scales_of_quantized(catalog);
  for (const uint32_t t : p.request.tensors)
    p.request.dtypes.push_back(wanted_dtype(catalog, t, tied, scales, options.dtypes));
  if (p.writer->takes_mesh) {
    p.request.shards = cut_for_target(catalog, p.request.tensors, *p.writer, options);
  } else if (!options.layout.empty() || !options.stage_sizes.empty()) {
    throw trouble("usage.layout", cat(options.layout.empty() ? "--stages: " : "--layout: ", p.writer->name,
                                      " output is not cut over a mesh"));
  }
  p.layout = p.writer->lay_out(catalog, p.request);
  p.layout.notes.insert(p.layout.notes.begin(), notes.begin(), notes.end());
  enter_phase("plan");
  p.plan = plan::make_plan(catalog, p.layout,
                           {.check_crc = options.check_crc, .compare_copies = !options.trust_copies});
  exec::Budget budget = exec::budget_for(catalog, p.layout, p.plan);
  budget.threads = options.threads;
  budget.max_mem = options.max_mem;
  budget.direct = options.direct;
  p.held_bytes = budget.held;
  p.buffers = exec::size_buffers(budget);
  return p;
}

namespace {

void add_request(const Prepared& p, PlanTotals& totals) {
  totals.to = p.writer->name;
  totals.peak_memory = p.buffers.total() + p.held_bytes;
}

}  // namespace

PlanTotals total_up(const Catalog& catalog, const Prepared& p) {
  PlanTotals totals = total_up(catalog, p.request.tensors, p.layout, p.plan);
  add_request(p, totals);
  return totals;
}

PlanSummary summarise(const Catalog& catalog, const Prepared& p) {
  PlanSummary summary = summarise(catalog, p.request.tensors, p.layout, p.plan);
  add_request(p, summary);
  return summary;
}

void refuse_output_among_inputs(const Catalog& catalog, const std::string& out) {
  check_replaced_folder(catalog, out);
  struct stat target {
  }, input{};
  if (::stat(out.c_str(), &target) != 0) return;
  for (const auto& file : catalog.files) {
    if (::stat(file->name().c_str(), &input) == 0 && input.st_dev == target.st_dev &&
        input.st_ino == target.st_ino) {
      throw trouble("output.is_input", "the output is one of the input's files").in_file(out);
    }
  }
}

}  // namespace uckpt
