// A checkpoint format: how to recognise it and how to read its catalog. The one list of them is formats.cc.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/input.h"
#include "lib/pickle/value.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

struct OpenOptions {
  std::string from;  // --from KIND: skip recognition
  pickle::Limits limits;
  bool check_crc = true;      // of what is read at open
  bool allow_expand = false;  // views far larger than their bytes in the input are fine
  bool want_objects = true;   // build the JSON views of non-tensor state (convert, inspect --metadata)
};

// What the user named, opened as far as recognition needs.
struct Target {
  std::string path;                     // as given
  std::unique_ptr<InputFolder> folder;  // set for folders
  std::shared_ptr<InputFile> file;      // set for files
  Bytes head;                           // the first 512 bytes of a file
  std::vector<std::string> entries;     // of a folder, naturally sorted; folders end in '/'
};

struct Format {
  std::string_view name;                     // "deepspeed"
  std::string_view what;                     // one line for --help and README
  bool (*recognises)(const Target& target);  // cheap, never throws for foreign files
  Catalog (*read)(const Target& target, const OpenOptions& options);
};

std::span<const Format> formats();
Target open_target(const std::string& path);
// Does any format recognise it? Never throws for foreign files.
bool looks_like_checkpoint(const std::string& path);
// Recognises and reads. Throws `format.unknown` with what was looked for.
Catalog open_catalog(const std::string& path, const OpenOptions& options);

}  // namespace uckpt
