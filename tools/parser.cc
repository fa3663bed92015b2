#include "tools/parser.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <optional>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/format.h"

namespace uckpt::cli {
namespace {

constexpr std::string_view kFirstSteps =
    "  uckpt inspect checkpoint/               what is this?\n"
    "  uckpt ls checkpoint/                    its tensors\n"
    "  uckpt convert checkpoint/ model.h5      all of it in one HDF5 file\n";

constexpr std::string_view kExitCodes =
    "\nExit codes: 0 done; 1 the input is malformed, incomplete or refused; 2 trouble (usage, disk, "
    "permissions);\n"
    "3 stopped (a signal, --max-duration, a disk that filled up): the same command goes on.\n";

// A page that begins with examples: they answer most questions.
class HelpPage final : public CLI::Formatter {
 public:
  HelpPage(std::string usage, std::string examples)
      : usage_(std::move(usage)), examples_(std::move(examples)) {
    column_width(30);
  }
  std::string make_help(const CLI::App* app, std::string, CLI::AppFormatMode mode) const override {
    return cat(app->get_description(), "\n\nExamples:\n", examples_, "\nUsage: ", usage_, "\n",
               make_positionals(app), make_groups(app, mode), make_subcommands(app, mode), make_footer(app));
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    const std::string type = option->get_type_name();
    return option->get_type_size() == 0 || type.empty() ? "" : " " + type;
  }

 private:
  std::string usage_, examples_;
};

std::string formats_text() {
  std::string text = "\nReads:\n";
  for (const Format& f : formats())
    text += cat("  ", f.name, std::string(13 - std::min<size_t>(12, f.name.size()), ' '), f.what, "\n");
  return text;
}

Error usage(std::string message) { return trouble("usage", std::move(message)); }

void suggest(Error& error, std::string_view typed, const std::vector<std::string>& known,
             std::string_view or_else) {
  if (const auto near = nearest(typed, known)) {
    error.hint(cat("did you mean `", *near, "`?"));
  } else {
    error.hint(std::string(or_else));
  }
}

CLI::App* add_verb(CLI::App& app, Verb& verb, bool& profile) {
  CLI::App* sub = app.add_subcommand(std::string(verb.name()), std::string(verb.summary()));
  sub->formatter(std::make_shared<HelpPage>(cat("uckpt ", verb.name(), " [OPTIONS] ", verb.usage()),
                                            std::string(verb.examples())));
  sub->allow_extras();
  verb.add_flags(*sub);
  sub->add_flag("--profile", profile, "Tell where the time went, on stderr");
  sub->get_help_ptr()->description("Show this page");
  return sub;
}

// An argument that is no flag of the verb, nor one of its places.
void refuse_extras(const CLI::App& app, const std::string& verb) {
  std::vector<std::string> extras = app.remaining();
  std::erase(extras, "--");  // what follows it are places, whatever they begin with
  if (extras.empty()) return;
  const auto flag =
      std::ranges::find_if(extras, [](const std::string& s) { return s.size() > 1 && s[0] == '-'; });
  const std::string help = cat("`uckpt ", verb, verb.empty() ? "" : " ", "--help` lists what there is");
  if (flag == extras.end()) throw usage(cat("unexpected argument `", escape(extras.front()), "`")).hint(help);
  const std::string typed = flag->substr(0, flag->find('='));
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  }
  Error error = usage(cat("unknown flag `", escape(typed), "`"));
  suggest(error, typed, known, help);
  throw error;
}

void check_verb(const std::string& typed, std::span<const std::unique_ptr<Verb>> verbs) {
  std::vector<std::string> names;
  for (const auto& verb : verbs) names.emplace_back(verb->name());
  if (typed.starts_with("-") || std::ranges::find(names, typed) != names.end()) return;
  std::string all;
  for (const std::string& name : names) all += cat(all.empty() ? "" : ", ", name);
  Error error = usage(cat("unknown verb `", escape(typed), "`"));
  suggest(error, typed, names, cat("the verbs are ", all));
  throw error;
}

}  // namespace

Verb* parse(int argc, const char* const* argv, std::span<const std::unique_ptr<Verb>> verbs,
            std::string& answer, bool& profile) {
  CLI::App app("uckpt reads distributed training checkpoints and makes one file of them.", "uckpt");
  app.formatter(std::make_shared<HelpPage>("uckpt VERB [OPTIONS] …", std::string(kFirstSteps)));
  app.footer(formats_text() + std::string(kExitCodes));
  app.set_version_flag("--version", cat("uckpt ", UCKPT_VERSION), "Show the version");
  app.get_help_ptr()->description("Show this page");
  app.allow_extras();
  std::vector<CLI::App*> subs;
  for (const auto& verb : verbs) subs.push_back(add_verb(app, *verb, profile));

  if (argc < 2) throw usage("expected a verb").hint("`uckpt --help` lists what there is");
  check_verb(argv[1], verbs);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    answer = app.help();
    return nullptr;
  } catch (const CLI::CallForVersion& e) {
    answer = cat(e.what(), "\n");
    return nullptr;
  } catch (const CLI::ParseError& e) {
    throw usage(e.what());
  }
  for (size_t i = 0; i < subs.size(); ++i) {
    if (!subs[i]->parsed()) continue;
    refuse_extras(*subs[i], std::string(verbs[i]->name()));
    return verbs[i].get();
  }
  refuse_extras(app, "");
  throw usage("expected a verb").hint("`uckpt --help` lists what there is");
}

}  // namespace uckpt::cli
