#include "lib/formats/strangers.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt {

void warn_of_strangers(const std::vector<std::string>& entries,
                       const std::function<bool(std::string_view)>& known, Catalog& catalog,
                       std::string_view prefix) {
  constexpr std::string_view kEnds[] = {".pt",          ".pth", ".bin",  ".ckpt",    ".distcp",
                                        ".safetensors", ".h5",  ".hdf5", ".metadata"};
  std::vector<std::string> names;
  for (const std::string& name : entries) {
    if (std::ranges::none_of(kEnds, [&](std::string_view end) { return name.ends_with(end); }) || known(name))
      continue;
    names.push_back(cat(prefix, name));
  }
  if (names.empty()) return;
  catalog.warnings.push_back(
      cat(some_of(names), names.size() == 1 ? " is" : " are", " not part of this checkpoint: not read"));
}

}  // namespace uckpt
