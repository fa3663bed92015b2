// Files in a checkpoint's folder that are no part of it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt {

// One warning for the entries that look like files of a checkpoint (by the ends of their names) and are not
// `known`: they were not read. Entries that end in '/' are folders, and left alone. `prefix` is put before
// each name.
void warn_of_strangers(const std::vector<std::string>& entries,
                       const std::function<bool(std::string_view)>& known, Catalog& catalog,
                       std::string_view prefix = "");

}  // namespace uckpt
