// --profile: where the time of a command went.
#pragma once

#include <string>

namespace uckpt::cli {

// A table of the phases that took time, with the rates at which they moved bytes, beside that of this
// machine's memcpy, which is measured for it. Takes a tenth of a second.
std::string profile_page();

}  // namespace uckpt::cli
