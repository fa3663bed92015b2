// Where the tool finds specs: those that ship with it, held by the program itself, and files.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/ucl/spec.h"

namespace uckpt::ucl {

// A spec of samples/specs, by its name: "megatron/llama".
struct Shipped {
  std::string_view name, text;
};
std::span<const Shipped> shipped_specs();  // sorted by name

// The text of a file. Throws trouble if it cannot be read, and `ucl.limit_size` if it is too long to be a
// program.
std::string read_source(const std::string& path);

// The one Importer of the command line. Files stand in the folder of the program, and no link leads out of
// it; a program that ships with the tool has no folder.
class FileImporter final : public Importer {
 public:
  explicit FileImporter(std::optional<std::string> folder) : folder_(std::move(folder)) {}
  std::optional<std::string> shipped(std::string_view name) override;
  // Throws if there is such a file, but it cannot be read.
  std::optional<std::string> beside(std::string_view file) override;
  std::vector<std::string> shipped_names() override;

 private:
  std::optional<std::string> folder_;
};

// The program that the command line names: a path or, where there is no such file, a shipped spec. Read with
// its imports, and checked; what is wrong with it goes to `diagnostics`. Throws if there is neither.
Spec open_spec(const std::string& path_or_name, Diagnostics& diagnostics);

}  // namespace uckpt::ucl
