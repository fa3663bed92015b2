#include "lib/convert/convert.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "lib/base/text.h"
#include "lib/convert/cut.h"
#include "lib/convert/plan_document.h"
#include "lib/convert/select.h"
#include "lib/exec/executor.h"
#include "lib/exec/workers.h"
#include "lib/formats/writer.h"
#include "lib/io/output.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/elements.h"
#include "lib/plan/plan.h"

namespace uckpt {

namespace {

int64_t default_max_mem() {
  const auto pages = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)),
             page = static_cast<int64_t>(::sysconf(_SC_PAGE_SIZE));
  return pages * page / 4;
}

// A conversion as far as it is decided before anything is written.
struct Prepared {
  TargetLayout layout;
  plan::Plan plan;
  exec::Buffers buffers;
  const Writer* writer = nullptr;
  WriteRequest request;
};

// A module weight that is stored beside its master, because it differs from it. Tied names follow, and its
// replicas are compared with it.
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

Catalog open_for_conversion(const std::string& in, const std::string& out, const ConvertOptions& options) {
  OpenOptions open = options.open;
  RuleOptions rules = options.rules;
  rules.target_folder = writer_for(options.to, out).spec_folder;
  open.allow_expand |= options.allow_expand;
  open.check_crc &= options.check_crc;
  Catalog catalog = open_whole(in, open, rules, false);
  if (catalog.refusal) throw *catalog.refusal;
  settle_incomparable_copies(catalog, options);
  return catalog;
}

// The type that is asked for, which may be the tensor's own: a module weight beside it may have another.
std::optional<DType> wanted_dtype(const Catalog& catalog, uint32_t tensor, const DTypeRules& rules) {
  const Tensor& t = catalog.tensors[tensor];
  const std::optional<DType> wanted = rules.wanted(t);
  if (!wanted || *wanted == t.dtype) return wanted;
  if (!kernels::can_cast(t.dtype, *wanted))
    throw refused("dtype.cast", cat("it cannot be cast from ", name_of(t.dtype), " to ", name_of(*wanted)))
        .in_file(catalog.path)
        .in_tensor(t.path());
  return wanted;
}

Prepared prepare(Catalog& catalog, uint32_t first_object, const std::string& out,
                 const ConvertOptions& options) {
  Prepared p;
  p.writer = &writer_for(options.to, out);
  p.request.tensors = select_tensors(catalog, options.selection);
  std::vector<std::string> notes;
  if (p.writer->complete) {
    p.writer->complete(catalog, p.request.tensors, options.missing_zero, notes);
  } else if (options.missing_zero) {
    throw trouble("usage.missing", cat("--missing: ", p.writer->name, " output lacks nothing"));
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
  for (const uint32_t t : p.request.tensors)
    p.request.dtypes.push_back(wanted_dtype(catalog, t, options.dtypes));
  if (p.writer->takes_mesh) {
    p.request.shards = cut_for_target(catalog, p.request.tensors, *p.writer, options);
  } else if (!options.layout.empty() || !options.stage_sizes.empty()) {
    throw trouble("usage.layout", cat(options.layout.empty() ? "--stages: " : "--layout: ", p.writer->name,
                                      " output is not cut over a mesh"));
  }
  p.layout = p.writer->lay_out(catalog, p.request);
  p.layout.notes.insert(p.layout.notes.begin(), notes.begin(), notes.end());
  p.plan = plan::make_plan(catalog, p.layout, {options.check_crc, !options.trust_copies});
  const int threads = options.threads > 0 ? options.threads : exec::default_threads();
  p.buffers = exec::size_buffers(threads, options.max_mem > 0 ? options.max_mem : default_max_mem());
  return p;
}

PlanSummary summarise(const Catalog& catalog, const Prepared& p) {
  PlanSummary s = summarise(catalog, p.request.tensors, p.layout, p.plan);
  s.to = p.writer->name;
  s.peak_memory = p.buffers.total() + p.plan.metadata_bytes();
  return s;
}

std::string document_of(const Catalog& catalog, const Prepared& p, const PlanSummary& summary,
                        const std::string& in, const ConvertOptions& options) {
  return plan_document(catalog, p.layout, p.plan, summary, {in, options.created_by, options.request});
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

std::string difference_text(const Catalog& catalog, const plan::Compared& compared,
                            const exec::Difference& found) {
  const Tensor& t = catalog.tensors[compared.tensor];
  return cat(t.copies[compared.copy].what, " differs in ", human_count(static_cast<uint64_t>(found.count)),
             " of ", human_count(static_cast<uint64_t>(numel_of(t.shape))), " elements, first at element ",
             found.first);
}

// Does the module weight that a compared copy is a replica of differ from its master? The copies of a tensor
// are compared one after another.
bool module_differs(const Catalog& catalog, const plan::Plan& plan, const exec::Outcome& outcome, size_t at) {
  const auto& copies = catalog.tensors[plan.compared[at].tensor].copies;
  for (uint32_t copy = plan.compared[at].copy; copies[copy].is_replica; --copy) --at;
  return outcome.differences[at].count > 0;
}

// Judges what was compared: replicas must agree (buffers may drift apart, that is said); tells which module
// weights differ from their masters, last copy of a tensor first.
std::vector<plan::Compared> judge_copies(const Catalog& catalog, const plan::Plan& plan,
                                         const exec::Outcome& outcome, Progress& progress) {
  std::vector<plan::Compared> differing;
  for (size_t i = plan.compared.size(); i-- > 0;) {
    const exec::Difference& found = outcome.differences[i];
    if (found.count == 0) continue;
    const plan::Compared& compared = plan.compared[i];
    const Tensor& t = catalog.tensors[compared.tensor];
    const std::string text = difference_text(catalog, compared, found);
    const Copy& copy = t.copies[compared.copy];
    if (copy.is_replica && module_differs(catalog, plan, outcome, i)) continue;  // it is kept: then compared
    if (copy.is_module && !copy.is_replica) {
      progress.warn(cat(escape(t.name), ": the ", text, "; both are stored"));
      differing.push_back(compared);
    } else if (t.state == state::kBuffer) {
      progress.warn(cat(escape(t.path()), ": the ", text, "; the first rank's is taken"));
    } else {
      throw refused("copies.differ", cat("copies of one tensor differ: the ", text))
          .in_file(catalog.path)
          .in_tensor(t.path())
          .hint("--trust-copies takes the first one without comparing");
    }
  }
  return differing;
}

[[noreturn]] void refuse_another_plan(const Catalog& catalog, const plan::Compared& differing) {
  throw refused("plan.copies",
                "its module weight differs from its master, and the plan has no place for both")
      .in_file(catalog.path)
      .in_tensor(catalog.tensors[differing.tensor].path())
      .hint("without --plan both are stored; a plan with --trust-copies leaves out the module weight");
}

}  // namespace

PlanSummary plan_conversion(const std::string& in, const std::string& out, const ConvertOptions& asked,
                            std::string* document) {
  const ConvertOptions options = with_convert_block(asked);
  Catalog catalog = open_for_conversion(in, out, options);
  const uint32_t first_object = catalog.add_object_tensors();
  const Prepared p = prepare(catalog, first_object, out, options);
  PlanSummary summary = summarise(catalog, p);
  if (options.kept) {
    options.kept->check_source(source_files(catalog, in));
    options.kept->check_same(document_of(catalog, p, summary, in, options));
  }
  if (document) *document = document_of(catalog, p, summary, in, options);
  return summary;
}

ConvertReport convert(const std::string& in, const std::string& out, const ConvertOptions& asked,
                      Progress& progress, const StopFlag& stop) {
  const auto started = std::chrono::steady_clock::now();
  const ConvertOptions options = with_convert_block(asked);
  Catalog catalog = open_for_conversion(in, out, options);  // open → catalog → check
  if (options.kept) options.kept->check_source(source_files(catalog, in));
  for (const std::string& w : catalog.warnings) progress.warn(w);
  refuse_output_among_inputs(catalog, out);
  const uint32_t first_object = catalog.add_object_tensors();
  ConvertReport report;
  for (;;) {
    Prepared p = prepare(catalog, first_object, out, options);  // layout → plan
    if (options.kept) options.kept->check_same(document_of(catalog, p, summarise(catalog, p), in, options));
    for (const std::string& note : p.layout.notes) progress.warn(note);
    const auto output = make_output(out, p.layout.is_folder(), options.force);
    const auto digests = exec::preallocate(p.layout, *output);  // preallocate
    const exec::Outcome outcome = exec::run(catalog, p.layout, p.plan, *output, p.buffers,
                                            {options.sync, options.verify || !digests.empty()}, progress,
                                            stop);                            // copy
    const auto differing = judge_copies(catalog, p.plan, outcome, progress);  // verify
    if (!differing.empty()) {  // rare: lay out again with room for both
      if (options.kept) refuse_another_plan(catalog, differing.front());
      for (const plan::Compared& c : differing) {
        report.kept_module_weights.push_back(catalog.tensors[c.tensor].name);
        keep_module_weight(catalog, c.tensor, c.copy);
      }
      continue;
    }
    exec::write_late_fields(p.layout, digests, outcome, *output);
    if (options.verify) exec::verify(catalog, p.layout, outcome, *output, p.buffers, progress, stop);
    output->commit(options.sync);  // commit
    report.plan = summarise(catalog, p);
    for (const TargetFile& file : p.layout.files) report.file_size += file.size;
    report.checksums_checked = outcome.checksums_checked;
    break;
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return report;
}

}  // namespace uckpt
