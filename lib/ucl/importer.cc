#include "lib/ucl/importer.h"

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/io/input.h"
#include "lib/ucl/check.h"

namespace uckpt::ucl {

namespace {

// Also a folder or a dangling link: what is wrong with it is said when it is read.
bool is_there(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::symlink_status(path, ignored).type() != std::filesystem::file_type::not_found;
}

const Shipped* find_shipped(std::string_view name) {
  const auto specs = shipped_specs();
  const auto found = std::ranges::find(specs, name, &Shipped::name);
  return found == specs.end() ? nullptr : &*found;
}

std::vector<std::string> names_of_shipped() {
  std::vector<std::string> out;
  for (const Shipped& s : shipped_specs()) out.emplace_back(s.name);
  return out;
}

Error no_such_spec(const std::string& typed) {
  Error error =
      trouble("usage.spec", "there is no such file, and no shipped spec is called so").in_file(typed);
  const auto near = nearest(typed, names_of_shipped());
  return error.hint(near ? cat("did you mean `", *near, "`?")
                         : std::string("`uckpt check --list` names the shipped specs"));
}

std::string text_of(const InputFile& file) {
  if (file.size() > static_cast<int64_t>(kMaxSourceBytes)) {
    throw refused("ucl.limit_size",
                  cat("the file has ", human_count(static_cast<uint64_t>(file.size())),
                      " bytes, more than the ", human_count(kMaxSourceBytes), " that a program may have"))
        .in_file(file.name());
  }
  const Bytes bytes = file.read_range(0, file.size());
  return {bytes.begin(), bytes.end()};
}

// "a/b.ucl" stands in "a/", "b.ucl" in "".
std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/') + 1); }

Spec read_and_check(Source root, FileImporter importer, Diagnostics& diagnostics) {
  Spec spec = read_spec(std::move(root), importer, diagnostics);
  check(spec, diagnostics);
  return spec;
}

}  // namespace

std::string read_source(const std::string& path) { return text_of(*InputFile::open(path)); }

std::optional<std::string> FileImporter::shipped(std::string_view name) {
  const Shipped* found = find_shipped(name);
  return found ? std::optional<std::string>(found->text) : std::nullopt;
}

std::optional<std::string> FileImporter::beside(std::string_view file) {
  if (!folder_) return std::nullopt;
  if (!is_there(cat(*folder_, file))) return std::nullopt;
  return text_of(*InputFolder(folder_->empty() ? "." : *folder_).open(file));
}

std::vector<std::string> FileImporter::shipped_names() { return names_of_shipped(); }

Spec open_spec(const std::string& path_or_name, Diagnostics& diagnostics) {
  if (is_there(path_or_name)) {
    return read_and_check(Source(path_or_name, read_source(path_or_name)),
                          FileImporter(folder_of(path_or_name)), diagnostics);
  }
  const Shipped* found = find_shipped(path_or_name);
  if (!found) throw no_such_spec(path_or_name);
  return read_and_check(Source(path_or_name, std::string(found->text)), FileImporter(std::nullopt),
                        diagnostics);
}

}  // namespace uckpt::ucl
