// uckpt fmt: programs of the language in their one canonical form.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "lib/base/bytes.h"
#include "lib/base/text.h"
#include "lib/io/output.h"
#include "lib/ucl/importer.h"
#include "lib/ucl/parse.h"
#include "lib/ucl/printer.h"
#include "tools/output.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

constexpr std::string_view kStdin = "-";

// All of stdin, or as much as shows that it is too long to be a program.
std::string read_stdin() {
  std::string text;
  char buffer[1 << 14];
  while (text.size() <= ucl::kMaxSourceBytes) {
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw system_trouble("cannot read standard input", "");
    if (n == 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

// The file under a link is replaced, not the link, and keeps its permissions.
void replace_file(const std::string& path, std::string_view text) {
  namespace fs = std::filesystem;
  OutputFile file(fs::canonical(path).string(), true);
  file.write_at(0, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  fs::permissions(file.temporary(), fs::status(path).permissions());
  file.commit(true);
}

class Fmt final : public Verb {
 public:
  std::string_view name() const override { return "fmt"; }
  std::string_view summary() const override { return "Write UCL programs in their canonical form"; }
  std::string_view usage() const override { return "FILE…"; }
  std::string_view examples() const override {
    return "  uckpt fmt mine.ucl              rewrite the file, print its name if that changed it\n"
           "  uckpt fmt --check *.ucl         change nothing, print the names of what would change\n"
           "  uckpt fmt - < mine.ucl          print the canonical form\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("FILE", files_, "A .ucl file, or `-` for standard input")->type_name("");
    app.add_flag("--check", check_, "Write nothing; exit with 1 if a file is not in its canonical form");
  }
  // Every file gets its turn, whatever is wrong with those before it.
  int run(Out& out) override {
    if (files_.empty()) throw trouble("usage.missing", "FILE is missing");
    int code = 0;
    for (const std::string& file : files_) {
      try {
        code = std::max(code, format(file, out));
      } catch (const Error& e) {
        print_error(e, false);
        code = std::max(code, e.exit_code());
      }
    }
    return code;
  }

 private:
  int format(const std::string& file, Out& out) const {
    const bool is_stdin = file == kStdin;
    const ucl::Source source(is_stdin ? "<stdin>" : file, is_stdin ? read_stdin() : ucl::read_source(file));
    ucl::Diagnostics diagnostics;
    const ucl::Program program = ucl::parse(source, diagnostics);
    if (diagnostics.has_errors()) {
      write_stderr(diagnostics.text());
      return 1;
    }
    const std::string text = ucl::print(program);
    if (is_stdin && !check_) out.print(text);
    if (text == source.text() || (is_stdin && !check_)) return 0;
    if (!check_) replace_file(file, text);
    out.line(escape(source.name(), 4096));
    return check_ ? 1 : 0;
  }

  std::vector<std::string> files_;
  bool check_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_fmt() { return std::make_unique<Fmt>(); }

}  // namespace uckpt::cli
