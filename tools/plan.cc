// uckpt plan: what `convert` would do.
#include <CLI/CLI.hpp>

#include "lib/convert/convert.h"
#include "tools/options.h"
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
           "  uckpt plan --json ckpt/ model.h5 > plan.json\n";
  }
  void add_flags(CLI::App& app) override {
    flags_.add(app);
    app.add_flag("-a,--all", all_, "Each tensor on a line of its own");
    app.add_flag("--json", json_, "Answer in JSON; lists each tensor");
  }
  int run(Out& out) override {
    const PlanSummary summary = plan_conversion(flags_.in, flags_.out, flags_.checked());
    json_ ? print_plan_json(summary, out) : print_plan(summary, all_, out);
    return 0;
  }

 private:
  ConvertFlags flags_;
  bool all_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_plan() { return std::make_unique<Plan>(); }

}  // namespace uckpt::cli
