#include "lib/convert/convert.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <memory>
#include <optional>

#include "lib/base/phases.h"
#include "lib/base/text.h"
#include "lib/convert/device.h"
#include "lib/convert/manifest.h"
#include "lib/convert/plan_document.h"
#include "lib/convert/prepare.h"
#include "lib/convert/replaced.h"
#include "lib/convert/resume.h"
#include "lib/convert/written_sums.h"
#include "lib/exec/executor.h"
#include "lib/exec/late_fields.h"
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
  exec::require_device(asked.device);
  const ConvertOptions options = with_convert_block(asked);
  Catalog catalog = open_for_conversion(in, out, options);
  const uint32_t first_object = catalog.add_object_tensors();
  const Prepared p = prepare(catalog, first_object, out, options);
  PlanSummary summary = summarise(catalog, p);
  tell_device(catalog, p, out, options, summary);
  if (options.kept) {
    options.kept->check_source(source_files(catalog, in));
    options.kept->check_same(document_of(catalog, p, summary, in, options));
  }
  if (document) *document = document_of(catalog, p, summary, in, options);
  return summary;
}

namespace {

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

// A manifest takes the place of another one, and of nothing else.
void refuse_foreign_manifest(const ConvertOptions& options) {
  if (options.manifest.empty() || options.force || !path_exists(options.manifest)) return;
  if (!is_manifest(options.manifest)) throw exists_error(options.manifest);
}

// One conversion on its way; each step is a line of `convert` below.
class Conversion {
 public:
  Conversion(const std::string& in, const std::string& out, const ConvertOptions& options, Progress& progress,
             const StopFlag& stop)
      : in_(in), out_(out), options_(with_convert_block(options)), progress_(progress), stop_(stop) {}

  void open();
  void claim_output();
  void plan();
  bool was_finished();
  bool copy_and_commit();
  ConvertReport report;

 private:
  void keep(const KeptModuleWeight& kept);
  void forget_left_over(std::string_view why);
  std::unique_ptr<Output> preallocate();
  bool settle_differences(const exec::Outcome& outcome);
  void commit(Output& output, const exec::Outcome& outcome);
  bool carry_out(Output& output);
  exec::Outcome copy(Output& output, exec::RunOptions how);

  const std::string in_, out_;
  const ConvertOptions options_;
  Progress& progress_;
  const StopFlag& stop_;
  Catalog catalog_;
  uint32_t first_object_ = 0;
  std::optional<Claim> claim_;
  std::optional<exec::Journal> journal_;
  std::vector<std::string> request_, run_;  // the lines that tell what is run: without the plan, and all
  std::vector<KeptModuleWeight> kept_;
  Prepared prepared_;
  StagedPath staged_;
  std::optional<exec::Picked> picked_;  // what computes
};

void Conversion::open() {
  exec::require_device(options_.device);
  catalog_ = open_for_conversion(in_, out_, options_);
  if (options_.kept) options_.kept->check_source(source_files(catalog_, in_));
  for (const std::string& w : catalog_.warnings) progress_.warn(w);
  request_ = lines_of_request(catalog_, options_);
  first_object_ = catalog_.add_object_tensors();
}

// From here on nobody else writes this output. What an interrupted run left of it is taken up, or forgotten
// and said why.
void Conversion::claim_output() {
  refuse_output_among_inputs(catalog_, out_);
  if (options_.force) refuse_to_take_strangers(out_);
  refuse_foreign_manifest(options_);
  claim_.emplace(out_);
  journal_.emplace(*claim_);
  claim_->keep(journal_->has_finished_tasks());
  if (journal_->run().empty()) return;
  if (options_.restart) return journal_->forget();
  if (const auto changed = what_changed(journal_->run(), request_)) return forget_left_over(*changed);
  if (!options_.sync && claim_->is_after_restart())
    return forget_left_over("the machine was started anew since, and nothing was synced");
  for (const KeptModuleWeight& k : kept_in(journal_->run())) keep(k);
}

void Conversion::forget_left_over(std::string_view why) {
  if (journal_->has_finished_tasks())
    progress_.warn(cat("an interrupted run of this output is not continued: ", why));
  journal_->forget();
}

void Conversion::keep(const KeptModuleWeight& k) {
  if (k.tensor >= catalog_.tensors.size() || k.copy >= catalog_.tensors[k.tensor].copies.size()) return;
  report.kept_module_weights.push_back(catalog_.tensors[k.tensor].name);
  keep_module_weight(catalog_, k.tensor, k.copy);
  kept_.push_back(k);
}

void Conversion::plan() {
  prepared_ = prepare(catalog_, first_object_, out_, options_);
  report.plan = total_up(catalog_, prepared_);
  if (options_.kept)
    options_.kept->check_same(
        document_of(catalog_, prepared_, summarise(catalog_, prepared_), in_, options_));
  for (const std::string& note : prepared_.layout.notes) progress_.warn(note);
  staged_ = stage(out_, prepared_.layout.is_folder() ? "folder" : "file");
  run_ = request_;
  std::ranges::move(lines_of_plan(catalog_, prepared_.layout, prepared_.plan, prepared_.buffers, kept_),
                    std::back_inserter(run_));
}

// By an earlier run that was interrupted after it had given the output its name: only tidying up is left.
bool Conversion::was_finished() {
  if (journal_->run() != run_ || !journal_->was_committed_to(staged_.path)) return false;
  remove_tree(staged_.temporary);
  claim_->keep(false);
  report.continued = report.plan.bytes_out;
  for (const TargetFile& file : prepared_.layout.files) report.file_size += file.size;
  for (const auto& [file, made] : journal_->made()) report.file_size += made.size;
  return true;
}

// The output's files at their full size: new ones, or those that an interrupted run left.
std::unique_ptr<Output> Conversion::preallocate() {
  const bool is_folder = prepared_.layout.is_folder(), is_same = journal_->run() == run_;
  if (is_same && exec::can_continue(prepared_.layout, *journal_, staged_.temporary)) {
    auto output = make_output(*claim_, is_folder, options_.force, LeftOver::kContinued, options_.direct);
    exec::reopen(prepared_.layout, *output, journal_->made());
    return output;
  }
  if (!journal_->run().empty())
    forget_left_over(is_same ? "its files are not as it left them" : "its plan was another one");
  auto output = make_output(*claim_, is_folder, options_.force, LeftOver::kDiscarded, options_.direct);
  check_free_space(staged_, prepared_.plan.bytes_out);
  journal_->begin(run_, exec::preallocate(prepared_.layout, *output, prepared_.buffers.threads));
  return output;
}

// False: module weights differ from their masters, so that all has to be laid out again with room for both.
bool Conversion::copy_and_commit() {
  const std::unique_ptr<Output> output = preallocate();
  if (options_.direct && !output->is_direct())
    progress_.warn("--direct: the output's file system cannot do that; it is written through the page cache");
  try {
    return carry_out(*output);
  } catch (const Error& error) {
    const bool is_kept = error.kind() != ErrorKind::kRefused && journal_->has_finished_tasks();
    output->keep(is_kept);
    claim_->keep(is_kept);
    rethrow_with_way_out(error, is_kept);
  }
}

bool Conversion::carry_out(Output& output) {
  const auto digests = exec::digest_places(prepared_.layout, journal_->made());
  exec::RunOptions how;
  how.start_writeback = options_.sync;
  how.digests = options_.digests || options_.verify || !digests.empty();
  how.tensor_digests = !options_.manifest.empty();
  how.journal = &*journal_;
  const exec::Outcome outcome = copy(output, how);  // copy
  if (!settle_differences(outcome)) return false;   // verify
  exec::write_late_fields(prepared_.layout, digests, outcome, output);
  if (options_.verify)
    exec::verify(catalog_, prepared_.layout, outcome, output, prepared_.buffers, progress_, stop_);
  commit(output, outcome);
  return true;
}

exec::Outcome Conversion::copy(Output& output, exec::RunOptions how) {
  if (!picked_) picked_ = pick_device(catalog_, prepared_, out_, options_, &stop_);
  const auto device = use_of_device(*picked_, catalog_, prepared_, options_);
  if (device) how.device = &*device;
  exec::Outcome outcome =
      exec::run(catalog_, prepared_.layout, prepared_.plan, output, prepared_.buffers, how, progress_, stop_);
  if (!outcome.device_failure.empty())
    progress_.warn(cat("the CPU did without the device: ", outcome.device_failure));
  if (!outcome.direct_failure.empty())
    progress_.warn(cat("GPUDirect Storage was given up: ", outcome.direct_failure));
  report.device = picked_->name;
  report.on_device = outcome.on_device;
  report.direct = outcome.direct;
  return outcome;
}

bool Conversion::settle_differences(const exec::Outcome& outcome) {
  const auto differing = judge_copies(catalog_, prepared_.plan, outcome, progress_);
  if (differing.empty()) return true;
  if (options_.kept) refuse_another_plan(catalog_, differing.front());
  for (const plan::Compared& c : differing) keep({c.tensor, c.copy});
  journal_->forget();
  return false;
}

void Conversion::commit(Output& output, const exec::Outcome& outcome) {
  enter_phase("commit");
  if (!options_.manifest.empty())
    write_text_file(options_.manifest,
                    manifest_text(written_sums(catalog_, prepared_, outcome, staged_.temporary,
                                               options_.rules, progress_, stop_)),
                    true, options_.sync);
  journal_->append_commit(exec::identity_of(staged_.temporary));
  output.commit(options_.sync);
  claim_->keep(false);
  report.continued = outcome.continued;
  report.checksums_checked = outcome.checksums_checked;
  for (const TargetFile& file : prepared_.layout.files) report.file_size += file.size;
}

}  // namespace

ConvertReport convert(const std::string& in, const std::string& out, const ConvertOptions& options,
                      Progress& progress, const StopFlag& stop) {
  const auto started = std::chrono::steady_clock::now();
  Conversion conversion(in, out, options, progress, stop);
  conversion.open();          // open → catalog → check
  conversion.claim_output();  // and take up what an interrupted run left of it
  do {
    conversion.plan();  // layout → plan
  } while (!conversion.was_finished() &&
           !conversion.copy_and_commit());  // preallocate → copy → verify → commit
  conversion.report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return conversion.report;
}

}  // namespace uckpt
