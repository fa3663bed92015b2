// SIGINT, SIGTERM and a time that is up as a flag, so that a conversion ends by itself, with exit code 3.
#pragma once

#include "lib/exec/progress.h"

namespace uckpt::cli {

// Installs the handlers. The first signal sets the flag; a second one ends the process as usual.
const StopFlag& stop_on_signals();
// Sets the flag after so many seconds.
void stop_after(int64_t seconds);

}  // namespace uckpt::cli
