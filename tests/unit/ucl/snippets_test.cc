// Every snippet of the grammar's folder: valid ones give no message and print well; invalid ones give exactly
// the text beside them. With UCKPT_REWRITE set, the expected texts are written anew (look at the
// difference!).
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "lib/ucl/dump.h"
#include "lib/ucl/printer.h"
#include "tests/unit/ucl/testing.h"

using namespace uckpt::ucl;
using namespace uckpt::ucl::testing;
namespace fs = std::filesystem;

namespace {

// The programs of a folder; those whose name begins with `_` are only imported by others.
std::vector<fs::path> programs(const std::string& folder) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator(kGrammar / folder))
    if (entry.path().extension() == ".ucl" && entry.path().filename().string()[0] != '_')
      out.push_back(entry);
  std::sort(out.begin(), out.end());
  return out;
}

std::string check_file(const fs::path& path) {
  TestImporter importer(path.parent_path());
  Diagnostics diagnostics;
  const Spec spec = read_spec(Source(path.filename().string(), read_file(path)), importer, diagnostics);
  check(spec, diagnostics);
  return diagnostics.text();
}

void check_printing(const std::string& text) {
  Diagnostics diagnostics;
  const Program program = parse(Source("before", text), diagnostics);
  const std::string printed = print(program);
  const Program again = parse(Source("printed", printed), diagnostics);
  CHECK(diagnostics.text() == "");
  CHECK(dump(again) == dump(program));
  CHECK(print(again) == printed);
  CHECK(std::count(printed.begin(), printed.end(), '#') == std::count(text.begin(), text.end(), '#'));
}

}  // namespace

TEST_CASE("valid snippets give no message, and print") {
  for (const fs::path& path : programs("valid")) {
    CAPTURE(path.filename().string());
    CHECK(check_file(path) == "");
    check_printing(read_file(path));
  }
}

TEST_CASE("printed snippets look as the ones beside them") {
  for (const fs::path& path : programs("valid")) {
    fs::path expected = path;
    expected.replace_extension(".printed");
    if (!fs::exists(expected)) continue;
    CAPTURE(path.filename().string());
    Diagnostics diagnostics;
    const std::string printed = print(parse(Source("", read_file(path)), diagnostics));
    if (std::getenv("UCKPT_REWRITE")) std::ofstream(expected) << printed;
    CHECK(printed == read_file(expected));
  }
}

TEST_CASE("invalid snippets give the messages beside them") {
  const std::vector<fs::path> all = programs("invalid");
  CHECK(all.size() >= 60);
  for (const fs::path& path : all) {
    CAPTURE(path.filename().string());
    fs::path expected = path;
    expected.replace_extension(".expected");
    const std::string found = check_file(path);
    if (std::getenv("UCKPT_REWRITE")) std::ofstream(expected) << found;
    CHECK(found != "");
    CHECK(found == read_file(expected));
  }
}
