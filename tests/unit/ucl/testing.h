// What the tests of the language share: texts, files, and an importer with a small shelf.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "lib/ucl/check.h"
#include "lib/ucl/parse.h"

namespace uckpt::ucl::testing {

inline const std::filesystem::path kGrammar = UCKPT_GRAMMAR;  // the manual, and programs

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Shipped specs from a fixed shelf, files beside the program from one folder (or none).
class TestImporter : public Importer {
 public:
  explicit TestImporter(std::filesystem::path folder = {}) : folder_(std::move(folder)) {}

  std::optional<std::string> shipped(std::string_view name) override {
    const auto found = shelf().find(name);
    return found == shelf().end() ? std::nullopt : std::optional(found->second);
  }
  std::optional<std::string> beside(std::string_view file) override {
    if (folder_.empty() || !std::filesystem::exists(folder_ / file)) return std::nullopt;
    return read_file(folder_ / file);
  }
  std::vector<std::string> shipped_names() override {
    std::vector<std::string> out;
    for (const auto& [name, text] : shelf()) out.push_back(name);
    return out;
  }

 private:
  static const std::map<std::string, std::string, std::less<>>& shelf() {
    static const std::map<std::string, std::string, std::less<>> specs = {
        {"test/base",
         "ucl 1\nlayout base over tp { \"base.**\" [o@tp, ...] }\nmap base <-> hf { \"base.{x:**}\" <-> "
         "\"{x}\" }\n"},
        {"test/reaches_out", "ucl 1\nimport \"./mine.ucl\"\n"}};
    return specs;
  }

  std::filesystem::path folder_;
};

// All that is said about a program.
inline std::string messages(std::string text, const std::filesystem::path& folder = {}) {
  TestImporter importer(folder);
  Diagnostics diagnostics;
  const Spec spec = read_spec(Source("test.ucl", std::move(text)), importer, diagnostics);
  check(spec, diagnostics);
  return diagnostics.text();
}

}  // namespace uckpt::ucl::testing
