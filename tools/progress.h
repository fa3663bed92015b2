// What a running conversion tells on stderr.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "lib/exec/progress.h"

namespace uckpt::cli {

enum class ProgressMode : uint8_t {
  kAuto,   // a bar on a terminal, plain elsewhere
  kBar,    // one line, redrawn, with rate and time left
  kPlain,  // one line each 30 s
  kJson,   // one JSON object a line, each second
  kNone,
};

std::optional<ProgressMode> progress_mode(std::string_view name);

// `quiet`: warnings are left out as well.
std::unique_ptr<Progress> make_progress(ProgressMode mode, bool quiet);

}  // namespace uckpt::cli
