// uckpt plan: what `convert` would do.
#include <CLI/CLI.hpp>

#include "lib/base/text.h"
#include "lib/convert/convert.h"
#include "lib/io/output.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/plan_page.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

class Plan final : public Verb {
 public:
  std::string_view name() const override { return "plan"; }
  std::string_view summary() const override { return "Show what convert would do, and write nothing"; }
  std::string_view usage() const override { return "IN OUT"; }
  std::string_view examples() const override {
    return "  uckpt plan checkpoints/global_step1000 model.h5      where each tensor comes from, bytes, "
           "memory\n"
           "  uckpt plan ckpt/ new/ --to deepspeed --layout dp=3,zero=3   and which file gets what\n"
           "  uckpt plan -o plan.json ckpt/ model.h5                      keep it, for `uckpt convert "
           "--plan plan.json`\n";
  }
  void add_flags(CLI::App& app) override {
    flags_.add(app);
    app.add_flag("-a,-v,--all", all_, "Each tensor, file and part on a line of its own");
    app.add_flag("--json", json_, "Answer in JSON, which has everything");
    app.add_option("-o,--output", output_,
                   "Keep the plan in a file, as JSON, for `convert --plan`; - is standard output")
        ->type_name("FILE");
  }
  int run(Out& out) override {
    flags_.resources.hold_to();
    if (!output_.empty()) refuse_to_lose_bytes();
    const bool to_stdout = is_stdout(output_);
    std::string document;
    const PlanSummary summary = plan_conversion(flags_.in, flags_.out, flags_.checked(),
                                                json_ || !output_.empty() ? &document : nullptr);
    if (!output_.empty() && !to_stdout) write_text_file(output_, document, flags_.force, !flags_.no_sync);
    json_ || to_stdout ? out.print(document) : print_plan(summary, all_, out);
    return 0;
  }

 private:
  // JSON holds no such text: what is read back would be another path.
  void refuse_to_lose_bytes() const {
    for (const std::string& argument : flags_.request())
      if (!valid_utf8(argument))
        throw trouble("usage.plan",
                      cat("`", escape(argument, 100), "` is not UTF-8: no plan of it can be kept"))
            .hint("give the folder another name, or `convert` without a kept plan");
  }

  ConvertFlags flags_;
  std::string output_;
  bool all_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_plan() { return std::make_unique<Plan>(); }

}  // namespace uckpt::cli
