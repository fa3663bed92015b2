// SIGINT and SIGTERM as a flag, so that a conversion ends by itself: its temporary file removed, exit code 3.
#pragma once

#include "lib/exec/progress.h"

namespace uckpt::cli {

// Installs the handlers. The first signal sets the flag; a second one ends the process as usual.
const StopFlag& stop_on_signals();

}  // namespace uckpt::cli
