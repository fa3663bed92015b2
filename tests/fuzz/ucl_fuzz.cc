// The language: scanner, parser, checks, printer and messages on any text.
#include <cstdlib>
#include <string>

#include "lib/ucl/check.h"
#include "lib/ucl/dump.h"
#include "lib/ucl/parse.h"
#include "lib/ucl/printer.h"

using namespace uckpt::ucl;

namespace {

// A shelf with one spec, which is the program again when it is asked for as a file.
class FuzzImporter : public Importer {
 public:
  explicit FuzzImporter(std::string text) : text_(std::move(text)) {}
  std::optional<std::string> shipped(std::string_view name) override {
    if (name != "a") return std::nullopt;
    return "ucl 1\ngiven n\nlayout a over tp { \"**\" [n@tp, ...] }\nmap a <-> b { \"{x:**}\" <-> \"{x}\" "
           "}\n";
  }
  std::optional<std::string> beside(std::string_view) override { return text_; }

 private:
  std::string text_;
};

// Canonical text means the same and is its own canonical text.
void check_printing(const Program& program) {
  const std::string printed = print(program);
  Diagnostics diagnostics;
  const Program again = parse(Source("printed", printed), diagnostics);
  if (diagnostics.has_errors() || dump(again) != dump(program) || print(again) != printed) std::abort();
}

// What a program says reaches a terminal: nothing in it may move the cursor.
void check_is_plain(const std::string& text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 ? c != '\n' : c == 0x7f) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  Diagnostics diagnostics;
  FuzzImporter importer(text);
  const Spec spec = read_spec(Source("fuzz.ucl", text), importer, diagnostics);
  if (!diagnostics.has_errors()) check_printing(spec.root().program);
  check(spec, diagnostics);
  check_is_plain(diagnostics.text());
  check_is_plain(diagnostics.json());
  return 0;
}
