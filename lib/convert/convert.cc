#include "lib/convert/convert.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <map>

#include "lib/base/text.h"
#include "lib/convert/manifest.h"
#include "lib/convert/plan_document.h"
#include "lib/convert/prepare.h"
#include "lib/convert/resume.h"
#include "lib/exec/executor.h"
#include "lib/io/output.h"

namespace uckpt {

namespace {

std::string document_of(const Catalog& catalog, const Prepared& p, const PlanSummary& summary,
                        const std::string& in, const ConvertOptions& options) {
  return plan_document(catalog, p.layout, p.plan, summary, {in, options.created_by, options.request});
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

namespace {

// What an interrupted run of this output left: taken up, or forgotten and said why.
std::vector<KeptModuleWeight> take_up(exec::Journal& journal, const Claim& claim,
                                      const std::vector<std::string>& request, const ConvertOptions& options,
                                      Progress& progress) {
  if (journal.run().empty()) return {};
  std::optional<std::string> changed = what_changed(journal.run(), request);
  if (!changed && !options.sync && claim.is_after_restart())
    changed = "the machine was started anew since, and nothing was synced";
  if (!changed && !options.restart) return kept_in(journal.run());
  if (!options.restart && journal.has_finished_tasks())
    progress.warn(cat("an interrupted run of this output is not continued: ", *changed));
  journal.forget();
  return {};
}

// What ended a run, with what the user can do now.
[[noreturn]] void rethrow_with_way_out(const Error& error, bool is_kept) {
  if (!is_kept) throw error;
  Error told = error;
  if (error.kind() == ErrorKind::kResumable)
    told = Error(error.kind(), error.code(), "stopped before the end; the same command goes on from there");
  if (error.code() == "io.no_space")
    told = Error(ErrorKind::kResumable, error.code(),
                 "no space left for the output; the same command goes on once there is some");
  throw told.in_file(error.file()).in_tensor(error.tensor()).hint("--restart begins anew");
}

void write_manifest(const Catalog& catalog, const exec::Outcome& outcome, const ConvertOptions& options,
                    uint32_t first_object) {
  std::map<uint32_t, const exec::TensorDigest*> of_tensor;
  for (const exec::TensorDigest& d : outcome.tensor_digests) of_tensor.emplace(d.tensor, &d);
  std::vector<TensorSum> sums;
  for (const auto& [tensor, digest] : of_tensor) {
    const Tensor& t = catalog.tensors[tensor];
    const bool is_object = tensor >= first_object && t.state == state::kObjects;
    if (!is_object) sums.push_back({t.path(), digest->dtype, t.shape, crc64_text(digest->crc64)});
  }
  for (const Tensor& t : catalog.tensors)
    if (const auto source = t.alias ? of_tensor.find(*t.alias) : of_tensor.end(); source != of_tensor.end())
      sums.push_back({t.path(), source->second->dtype, t.shape, crc64_text(source->second->crc64)});
  write_text_file(options.manifest, manifest_text(std::move(sums)), true, options.sync);
}

// A manifest takes the place of another one, and of nothing else.
void refuse_foreign_manifest(const ConvertOptions& options) {
  if (options.manifest.empty() || options.force || !path_exists(options.manifest)) return;
  if (!is_manifest(options.manifest)) throw exists_error(options.manifest);
}

}  // namespace

ConvertReport convert(const std::string& in, const std::string& out, const ConvertOptions& asked,
                      Progress& progress, const StopFlag& stop) {
  const auto started = std::chrono::steady_clock::now();
  const ConvertOptions options = with_convert_block(asked);
  Catalog catalog = open_for_conversion(in, out, options);  // open → catalog → check
  if (options.kept) options.kept->check_source(source_files(catalog, in));
  for (const std::string& w : catalog.warnings) progress.warn(w);
  refuse_output_among_inputs(catalog, out);
  refuse_foreign_manifest(options);
  Claim claim(out);
  exec::Journal journal(claim);
  claim.keep(journal.has_finished_tasks());
  const std::vector<std::string> request = lines_of_request(catalog, options);
  std::vector<KeptModuleWeight> kept = take_up(journal, claim, request, options, progress);
  const uint32_t first_object = catalog.add_object_tensors();
  ConvertReport report;
  const auto keep = [&](const KeptModuleWeight& k) {
    report.kept_module_weights.push_back(catalog.tensors[k.tensor].name);
    keep_module_weight(catalog, k.tensor, k.copy);
  };
  for (const KeptModuleWeight& k : kept) keep(k);
  for (;;) {
    Prepared p = prepare(catalog, first_object, out, options);  // layout → plan
    if (options.kept) options.kept->check_same(document_of(catalog, p, summarise(catalog, p), in, options));
    for (const std::string& note : p.layout.notes) progress.warn(note);
    report.plan = summarise(catalog, p);
    std::vector<std::string> run = request;
    std::ranges::move(lines_of_plan(catalog, p.layout, p.plan, p.buffers, kept), std::back_inserter(run));
    const StagedPath staged = stage(out, p.layout.is_folder() ? "folder" : "file");
    const bool is_same = journal.run() == run;
    if (is_same && journal.was_committed_to(staged.path)) {  // but for the tidying up
      remove_tree(staged.temporary);
      claim.keep(false);
      report.continued = report.plan.bytes_out;
      for (const TargetFile& file : p.layout.files) report.file_size += file.size;
      for (const auto& [file, made] : journal.made()) report.file_size += made.size;
      break;
    }
    const bool continues = is_same && exec::can_continue(p.layout, journal, staged.temporary);
    const auto output = make_output(claim, p.layout.is_folder(), options.force,
                                    continues ? LeftOver::kContinued : LeftOver::kDiscarded);
    try {
      if (continues) {
        exec::reopen(p.layout, *output, journal.made());
      } else {
        check_free_space(staged, p.plan.bytes_out);
        journal.begin(run, exec::preallocate(p.layout, *output));  // preallocate
      }
      const auto digests = exec::digest_places(p.layout, journal.made());
      exec::RunOptions how;
      how.start_writeback = options.sync;
      how.digests = options.digests || options.verify || !digests.empty();
      how.tensor_digests = !options.manifest.empty();
      how.journal = &journal;
      const exec::Outcome outcome =
          exec::run(catalog, p.layout, p.plan, *output, p.buffers, how, progress, stop);  // copy
      report.continued = outcome.continued;
      const auto differing = judge_copies(catalog, p.plan, outcome, progress);  // verify
      if (!differing.empty()) {  // rare: lay out again with room for both
        if (options.kept) refuse_another_plan(catalog, differing.front());
        for (const plan::Compared& c : differing) {
          kept.push_back({c.tensor, c.copy});
          keep(kept.back());
        }
        continue;
      }
      exec::write_late_fields(p.layout, digests, outcome, *output);
      if (options.verify) exec::verify(catalog, p.layout, outcome, *output, p.buffers, progress, stop);
      if (!options.manifest.empty()) write_manifest(catalog, outcome, options, first_object);
      journal.append_commit(exec::identity_of(staged.temporary));
      output->commit(options.sync);  // commit
      claim.keep(false);
      report.checksums_checked = outcome.checksums_checked;
      for (const TargetFile& file : p.layout.files) report.file_size += file.size;
      break;
    } catch (const Error& error) {
      const bool is_kept = error.kind() != ErrorKind::kRefused && journal.has_finished_tasks();
      output->keep(is_kept);
      claim.keep(is_kept);
      rethrow_with_way_out(error, is_kept);
    }
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return report;
}

}  // namespace uckpt
