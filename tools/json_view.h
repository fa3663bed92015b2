// Pretty-printing of JSON text of any size and depth, without building a tree of it.
#pragma once

#include <cstdint>
#include <string_view>

#include "tools/output.h"

namespace uckpt::cli {

// Prints valid JSON text, a value a line, at most `max_lines` lines; returns the number of lines it has
// printed, or max_lines + 1 if it stopped early. Lines are escaped and, unless `whole_lines`, cut as all text
// from files is.
int64_t print_json(Out& out, std::string_view json, int64_t max_lines, bool whole_lines);

}  // namespace uckpt::cli
