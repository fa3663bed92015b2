// uckpt check: what is wrong with a program of the language, all at once.
#include <CLI/CLI.hpp>

#include "lib/base/text.h"
#include "lib/convert/whole.h"
#include "lib/ucl/importer.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

void print_names(bool json, Out& out) {
  std::vector<std::string> names;
  for (const ucl::Shipped& s : ucl::shipped_specs()) names.emplace_back(s.name);
  if (json) return out.line(cat(R"({"uckpt": 1, "specs": )", json_strings(names), "}"));
  for (const std::string& name : names) out.line(name);
}

// "1 layout, 1 map, 23 rules", of the program and all that it imports.
std::string contents_of(const ucl::Spec& spec) {
  int64_t layouts = 0, maps = 0, rules = 0;
  const auto count_rules = [&rules]<class Rule>(const auto& items, std::type_identity<Rule>) {
    for (const auto& item : items) rules += std::holds_alternative<Rule>(item);
  };
  for (const auto& file : spec.files()) {
    for (const ucl::Statement& s : file->program.statements) {
      if (const auto* layout = std::get_if<ucl::Layout>(&s)) {
        ++layouts;
        count_rules(layout->items, std::type_identity<ucl::Rule>());
      } else if (const auto* map = std::get_if<ucl::Map>(&s)) {
        ++maps;
        count_rules(map->items, std::type_identity<ucl::MapRule>());
      }
    }
  }
  const auto files = static_cast<int64_t>(spec.files().size());
  return cat(counted(layouts, "layout"), ", ", counted(maps, "map"), ", ", counted(rules, "rule"),
             files > 1 ? cat(" in ", counted(files, "file")) : std::string());
}

class Check final : public Verb {
 public:
  std::string_view name() const override { return "check"; }
  std::string_view summary() const override { return "Say what is wrong with a UCL program"; }
  std::string_view usage() const override { return "SPEC [IN]"; }
  std::string_view examples() const override {
    return "  uckpt check mine.ucl            every error, each with its place and the way out\n"
           "  uckpt check mine.ucl ckpt/      and whether the checkpoint's fragments fit it\n"
           "  uckpt check megatron/llama ckpt/ --as hf_llama   and whether its maps lead to those names\n"
           "  uckpt check megatron/llama      a spec that ships with the tool\n"
           "  uckpt check --list              the names of those\n"
           "  uckpt check --json mine.ucl     the same for editors and scripts\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("SPEC", spec_, "A .ucl file, or the name of a shipped spec")->type_name("");
    app.add_option("IN", in_, "A checkpoint to check it against: no tensor data is read")->type_name("");
    app.add_option("--naming", rules_.naming, "Which of the spec's namings (layouts) IN has")
        ->type_name("NAME");
    app.add_option("--as", rules_.as, "Check that IN can be renamed and regrouped into this naming too")
        ->type_name("NAMING");
    app.add_option("--set", rules_.set, "Give a size of the spec's `given` or `where`; may be repeated")
        ->type_name("NAME=N")
        ->type_size(1)
        ->allow_extra_args(false);
    app.add_flag("--list", list_, "Print the names of the shipped specs");
    app.add_flag("--json", json_, "Answer in JSON");
  }
  int run(Out& out) override {
    if (list_) {
      print_names(json_, out);
      return 0;
    }
    require(spec_, "SPEC");
    rules_.spec = spec_;
    const RuleOptions rules = rules_.checked();
    const ReadSpec& read = rules.read();
    ucl::Diagnostics diagnostics = read.diagnostics;
    Trusted trusted;
    if (!diagnostics.has_errors())
      in_.empty() ? check_sizes(*read.spec, rules, diagnostics) : check_against(rules, diagnostics, trusted);
    if (json_) {
      out.line(diagnostics.json());
    } else {
      write_stderr(diagnostics.text());
      if (!diagnostics.has_errors()) out.line(cat(escape(spec_), " is valid: ", contents_of(*read.spec)));
      for (const std::string& t : trusted) out.line(cat("taken on trust: ", t));
    }
    return diagnostics.has_errors() ? 1 : 0;
  }

 private:
  void check_against(const RuleOptions& rules, ucl::Diagnostics& diagnostics, Trusted& trusted) const {
    OpenOptions options;
    options.want_objects = false;
    options.from = input_kind(rules);
    Catalog catalog = open_catalog(in_, options);
    if (catalog.refusal) throw *catalog.refusal;
    join_fragments(catalog, rules, diagnostics, trusted);
  }

  std::string spec_, in_;
  RuleFlags rules_;
  bool list_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_check() { return std::make_unique<Check>(); }

}  // namespace uckpt::cli
