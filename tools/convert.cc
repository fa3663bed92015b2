// uckpt convert: do it.
#include "lib/convert/convert.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "lib/base/text.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/plan_page.h"
#include "tools/signals.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, seconds < 10 ? "%.2f s" : "%.0f s", seconds);
  return text;
}

void print_report(const ConvertReport& r, const std::string& path, Out& out) {
  const PlanTotals& p = r.plan;
  constexpr double kShortest = 0.2;  // seconds; the rate of less tells nothing
  const auto rate =
      static_cast<uint64_t>(static_cast<double>(p.bytes_out - r.continued) / std::max(r.seconds, kShortest));
  out.line(cat("wrote ", escape(path), ": ", counted(p.tensors, "tensor"),
               p.links > 0 ? cat(" and ", counted(p.links, "link")) : std::string(), ", ",
               human_bytes(static_cast<uint64_t>(r.file_size)), " in ", seconds_text(r.seconds),
               r.seconds > kShortest ? cat(" (", human_bytes(rate), "/s)") : std::string(),
               r.on_device > 0
                   ? cat(", ", human_bytes(static_cast<uint64_t>(r.on_device)), " of it on ", r.device)
                   : std::string(),
               r.direct > 0 ? cat(", which read and wrote ", human_bytes(static_cast<uint64_t>(r.direct)),
                                  " past the memory here")
                            : std::string(),
               r.continued > 0 ? cat(", ", human_bytes(static_cast<uint64_t>(r.continued)),
                                     " of it by an earlier run that was interrupted")
                               : std::string()));
}

void print_report_json(const ConvertReport& r, const std::string& path, Out& out) {
  const PlanTotals& p = r.plan;
  std::string kept;
  for (const std::string& name : r.kept_module_weights)
    kept += cat(kept.empty() ? "" : ", ", json_string(name));
  out.line(cat(R"({"uckpt": 1, "out": )", json_string(path), R"(, "kind": )", json_string(p.kind),
               R"(, "to": )", json_string(p.to), R"(, "tensors": )", p.tensors, R"(, "links": )", p.links,
               R"(, "objects": )", p.objects, R"(, "bytes_in": )", p.bytes_in, R"(, "bytes_out": )",
               p.bytes_out, R"(, "bytes_compared": )", p.bytes_compared, R"(, "file_size": )", r.file_size,
               R"(, "seconds": )", r.seconds, R"(, "checksums_checked": )", r.checksums_checked,
               R"(, "continued": )", r.continued, R"(, "device": )", json_string(r.device),
               R"(, "on_device": )", r.on_device, R"(, "gpu_direct": )", r.direct,
               R"(, "kept_module_weights": [)", kept, R"(], "warnings": )", json_strings(p.warnings), "}"));
}

class Convert final : public Verb {
 public:
  std::string_view name() const override { return "convert"; }
  std::string_view summary() const override { return "Make one file or another checkpoint of a checkpoint"; }
  std::string_view usage() const override { return "IN OUT"; }
  std::string_view examples() const override {
    return "  uckpt convert checkpoints/global_step1000 model.h5     everything: weights, optimizer, other "
           "state\n"
           "  uckpt convert --states fp32,param ckpt/ weights.h5     no optimizer states\n"
           "  uckpt convert --select 'layers.0.*' ckpt/ layer0.h5\n"
           "  uckpt convert -j 4 --max-mem 2G ckpt/ model.h5         with less of the machine\n"
           "  uckpt convert --spec megatron/llama --as hf_llama ckpt/ model.h5   under the names of Hugging "
           "Face\n"
           "  uckpt convert -n ckpt/ model.h5                        only show the plan\n"
           "  uckpt convert --plan plan.json                         exactly what `uckpt plan -o plan.json` "
           "said\n";
  }
  void add_flags(CLI::App& app) override {
    flags_.add(app);
    progress_.add(app);
    app.add_flag("-n,--dry-run", dry_run_, "Write nothing, show the plan (as `uckpt plan`)");
    app.add_flag("--json", json_, "Answer in JSON");
    app.add_option("--max-duration", max_duration_,
                   "Stop after so long with exit code 3; the same command goes on from there")
        ->type_name("TIME");
    app.add_option("--plan", plan_,
                   "Do what this file of `uckpt plan -o` says, or nothing; IN and OUT are in it, and may be "
                   "given anew")
        ->type_name("FILE");
  }
  int run(Out& out) override {
    if (!plan_.empty()) take_kept_plan();
    ConvertOptions options = flags_.checked();
    options.kept = kept_;
    const ProgressMode mode = progress_.checked();
    if (dry_run_) {
      std::string document;
      const PlanSummary summary =
          plan_conversion(flags_.in, flags_.out, options, json_ ? &document : nullptr);
      json_ ? out.print(document) : print_plan(summary, false, out);
      return 0;
    }
    flags_.resources.hold_to();
    const std::unique_ptr<Progress> progress = make_progress(mode, progress_.quiet);
    const StopFlag& stop = stop_on_signals();
    if (!max_duration_.empty()) stop_after(parse_duration("--max-duration", max_duration_));
    const ConvertReport report = convert(flags_.in, flags_.out, options, *progress, stop);
    if (json_) {
      print_report_json(report, flags_.out, out);
    } else if (!progress_.quiet) {
      print_report(report, flags_.out, out);
    }
    return 0;
  }

 private:
  // The plan's request takes the place of the flags, but for the paths where they are given.
  void take_kept_plan() {
    if (!flags_.is_only_paths())
      throw trouble("usage.plan", cat("--plan says what is to be done: `", escape(flags_.request().front()),
                                      "` cannot be asked for beside it"));
    kept_ = KeptPlan::read(plan_);
    PlanFlags planned;
    try {
      planned = PlanFlags::from_request(kept_->request());
    } catch (Error& e) {
      throw e.in_file(plan_);
    }
    if (flags_.in.empty() != flags_.out.empty())
      throw trouble("usage.plan", "--plan has IN and OUT: expected both of them anew, or none");
    if (!flags_.in.empty()) planned.in = flags_.in, planned.out = flags_.out;
    static_cast<PlanFlags&>(flags_) = std::move(planned);
  }

  ConvertFlags flags_;
  ProgressFlags progress_;
  std::string plan_, max_duration_;
  std::shared_ptr<const KeptPlan> kept_;
  bool dry_run_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_convert() { return std::make_unique<Convert>(); }

}  // namespace uckpt::cli
