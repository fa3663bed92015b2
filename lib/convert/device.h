// Which device a conversion uses.
#pragma once

#include <optional>
#include <string>

#include "lib/convert/prepare.h"
#include "lib/exec/device_use.h"
#include "lib/exec/pick_device.h"
#include "lib/exec/reshaping.h"

namespace uckpt {

// Whose turn it is in this conversion: opened, and measured where that is worth it. `stop` may be null.
exec::Picked pick_device(const Catalog& catalog, const Prepared& prepared, const std::string& out,
                         const ConvertOptions& options, const StopFlag* stop);
// What it is to do; nothing where it is the CPU's turn.
std::optional<exec::DeviceUse> use_of_device(const exec::Picked& picked, const Catalog& catalog,
                                             const Prepared& prepared, const ConvertOptions& options);
// Whose turn it would be, for people. A device that was asked for is not opened.
void tell_device(const Catalog& catalog, const Prepared& prepared, const std::string& out,
                 const ConvertOptions& options, PlanTotals& totals);

}  // namespace uckpt
