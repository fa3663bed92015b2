#include "lib/formats/strangers.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt {

void warn_of_strangers(const std::vector<std::string>& entries,
                       const std::function<bool(std::string_view)>& known, Catalog& catalog,
                       std::string_view prefix) {
  constexpr std::string_view kEnds[] = {".pt",          ".pth", ".bin",  ".ckpt",    ".distcp",
                                        ".safetensors", ".h5",  ".hdf5", ".metadata"};
  constexpr size_t kShown = 3;
  std::string names;
  size_t count = 0;
  for (const std::string& name : entries) {
    if (std::ranges::none_of(kEnds, [&](std::string_view end) { return name.ends_with(end); }) || known(name))
      continue;
    if (++count <= kShown) names += cat(count > 1 ? ", " : "", escape(cat(prefix, name), 80));
  }
  if (count == 0) return;
  if (count > kShown) names += cat(" and ", count - kShown, " more");
  catalog.warnings.push_back(
      cat(names, count == 1 ? " is" : " are", " not part of this checkpoint: not read"));
}

}  // namespace uckpt
