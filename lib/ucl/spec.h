// A whole program: a file, all that it imports, and what the names in them stand for.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/ucl/diagnostics.h"
#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// Where imports come from. An import names a spec that ships with the tool ("megatron/llama") or a file in
// the folder of the program ("./mine.ucl"); nothing else is ever asked for.
class Importer {
 public:
  virtual ~Importer() = default;
  // The text, or nothing if there is no such spec or file. `file` is a plain file name.
  virtual std::optional<std::string> shipped(std::string_view name) = 0;
  virtual std::optional<std::string> beside(std::string_view file) = 0;
  virtual std::vector<std::string> shipped_names() { return {}; }
};

struct File {
  Source source;
  Program program;
  bool is_shipped = false;
};

// A declaration and the file it stands in.
struct LayoutRef {
  const File* file = nullptr;
  const Layout* layout = nullptr;
  explicit operator bool() const { return layout != nullptr; }
};
struct MapRef {
  const File* file = nullptr;
  const Map* map = nullptr;
  bool reversed = false;  // asked for as `b <-> a`
  explicit operator bool() const { return map != nullptr; }
};
struct ConfigRef {
  const File* file = nullptr;
  const Config* config = nullptr;
  bool reversed = false;  // asked for as `b <-> a`
  explicit operator bool() const { return config != nullptr; }
};
struct GivenRef {
  const File* file = nullptr;
  const GivenVar* var = nullptr;
  explicit operator bool() const { return var != nullptr; }
};

class Spec {
 public:
  // The program's own file first, then what it imports, each once.
  const std::vector<std::unique_ptr<const File>>& files() const { return files_; }
  const File& root() const { return *files_.front(); }
  // False after a syntax error or a failed import: a name that is not found may be in what is missing.
  bool complete() const { return complete_; }

  // The first declaration of a name, in any file.
  LayoutRef layout(std::string_view name) const;
  MapRef map(std::string_view left, std::string_view right) const;
  ConfigRef config(std::string_view left, std::string_view right) const;
  GivenRef given(std::string_view name) const;
  bool is_naming(std::string_view name) const;  // of a layout or a side of a map

  std::vector<std::string> layout_names() const;
  std::vector<std::string> map_names() const;  // `a <-> b`
  std::vector<std::string> namings() const;
  std::vector<std::string> given_names() const;

 private:
  friend class SpecReader;
  void declare(const File& file);

  std::vector<std::unique_ptr<const File>> files_;
  std::map<std::string, LayoutRef, std::less<>> layouts_;
  std::map<std::pair<std::string, std::string>, MapRef> maps_;  // by its two names, the smaller one first
  std::map<std::pair<std::string, std::string>, ConfigRef> configs_;  // as maps_
  std::map<std::string, GivenRef, std::less<>> givens_;
  bool complete_ = true;
};

// Parses the source and, by way of the importer, all that it imports. Nothing is checked but the imports.
Spec read_spec(Source root, Importer& importer, Diagnostics& diagnostics);

}  // namespace uckpt::ucl
