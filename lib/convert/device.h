// Which device a conversion uses.
#pragma once

#include <string>

#include "lib/convert/prepare.h"
#include "lib/exec/pick_device.h"
#include "lib/exec/reshaping.h"

namespace uckpt {

// Whose turn it is in this conversion: opened, and measured where that is worth it. `stop` may be null.
exec::Picked pick_device(const Catalog& catalog, const Prepared& prepared, const std::string& out,
                         const ConvertOptions& options, const StopFlag* stop);
// The same for people. One that was asked for is not opened.
void tell_device(const Catalog& catalog, const Prepared& prepared, const std::string& out,
                 const ConvertOptions& options, PlanSummary& summary);

}  // namespace uckpt
