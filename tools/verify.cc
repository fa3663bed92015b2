// uckpt verify: is it as it was written?
#include "lib/examine/verify.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <random>

#include "lib/base/text.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/signals.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

// "5%", "12.5%"
double parse_percent(std::string_view flag, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || std::string_view(end, text.data() + text.size()) != "%" || !(value > 0) ||
      value > 100)
    throw trouble("usage.percent",
                  cat(flag, ": expected a share such as 5%, found `", escape(text, 60), "`"));
  return value / 100;
}

std::string what_was_checked(const VerifyReport& r, bool against) {
  std::vector<std::string> parts;
  const auto part = [&](int64_t count, std::string_view what) {
    if (count > 0) parts.push_back(counted(count, what));
  };
  part(r.checksums, "checksum");
  part(r.digests, "digest");
  part(r.copies, "replica");
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i)
    text += cat(i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ", parts[i]);
  if (text.empty()) text = "it carries no checksums, only its structure was checked";
  if (against) text += cat("; ", counted(r.against, "tensor"), " compared");
  return text;
}

class Verify final : public Verb {
 public:
  std::string_view name() const override { return "verify"; }
  std::string_view summary() const override {
    return "Check a checkpoint's structure, checksums, digests and copies";
  }
  std::string_view usage() const override { return "PATH [--against MANIFEST|OTHER]"; }
  std::string_view examples() const override {
    return "  uckpt verify model.h5                             every byte against its digest\n"
           "  uckpt verify model.h5 --against ckpt/             the same tensors, in any two formats and "
           "layouts\n"
           "  uckpt verify ckpt/ --against before.txt           as `uckpt sum ckpt/ -o before.txt` saw it\n"
           "  uckpt verify --sample 5% model.h5                 a part, by lot\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("PATH", path_, "A checkpoint: folder or file")->type_name("");
    app.add_option("--against", options_against_,
                   "A manifest of `uckpt sum`, or a checkpoint, to compare with")
        ->type_name("MANIFEST|OTHER");
    app.add_option("--sample", sample_, "Only tensors drawn by lot, until this share of the bytes is read")
        ->type_name("P%");
    app.add_option("--seed", seed_, "Draw the same ones again")->type_name("N");
    app.add_flag("--json", json_, "Answer in JSON");
    read_.add(app);
  }
  int run(Out& out) override {
    require(path_, "PATH");
    VerifyOptions options;
    options.read = read_.checked();
    options.against = options_against_;
    if (!sample_.empty()) options.sample = parse_percent("--sample", sample_);
    options.seed =
        seed_.empty() ? std::random_device()() : static_cast<uint64_t>(parse_count("--seed", seed_, 0));
    const auto progress = read_.start();
    const VerifyReport report = verify_checkpoint(path_, options, *progress, stop_on_signals());
    for (const std::string& w : report.warnings) progress->warn(w);
    json_ ? print_json(report, options, out) : print_report(report, options, out);
    return report.problems.empty() ? 0 : 1;
  }

 private:
  void print_report(const VerifyReport& r, const VerifyOptions& options, Out& out) const {
    if (!r.problems.empty()) {
      if (r.problems.size() > 1)
        for (const Error& problem : r.problems) out.line(escape(problem.line(), 400));
      out.flush();
      if (r.problems.size() == 1) throw r.problems.front();
      throw refused("verify.differs",
                    cat(counted(static_cast<int64_t>(r.problems.size()), "problem"), " found"))
          .in_file(path_);
    }
    if (read_.progress.quiet) return;
    const std::string part =
        r.tensors < r.of_tensors ? cat(" of ", r.of_tensors, " (--seed ", options.seed, ")") : std::string();
    out.line(cat(escape(path_), ": all is right: ", counted(r.tensors, "tensor"), part, ", ",
                 human_bytes(static_cast<uint64_t>(r.bytes)), " read; ",
                 what_was_checked(r, !options.against.empty())));
  }
  void print_json(const VerifyReport& r, const VerifyOptions& options, Out& out) const {
    std::vector<std::string> problems;
    for (const Error& problem : r.problems) problems.push_back(problem.line());
    out.line(cat("{\"uckpt\": 1, \"path\": ", json_string(path_), ", \"right\": ", r.problems.empty(),
                 ", \"tensors\": ", r.tensors, ", \"of_tensors\": ", r.of_tensors,
                 ", \"seed\": ", options.seed, ", \"bytes\": ", r.bytes, ", \"checksums\": ", r.checksums,
                 ", \"digests\": ", r.digests, ", \"copies\": ", r.copies, ", \"against\": ", r.against,
                 ", \"problems\": ", json_strings(problems), ", \"warnings\": ", json_strings(r.warnings),
                 "}"));
  }

  std::string path_, options_against_, sample_, seed_;
  bool json_ = false;
  ReadFlags read_;
};

}  // namespace

std::unique_ptr<Verb> make_verify() { return std::make_unique<Verify>(); }

}  // namespace uckpt::cli
