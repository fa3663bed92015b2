#include "lib/convert/device.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "lib/base/memory.h"
#include "lib/base/phases.h"

namespace uckpt {

namespace {

std::string folder_of(const std::filesystem::path& out) {
  const std::string folder = (out.has_filename() ? out : out.parent_path()).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace

exec::Picked pick_device(const Catalog& catalog, const Prepared& p, const std::string& out,
                         const ConvertOptions& options, const StopFlag* stop) {
  exec::ProbeOptions how;
  how.threads = p.buffers.threads;
  how.memory = std::min(how.memory, p.buffers.total());  // which are not there yet
  how.inputs = catalog.files;
  how.folder = folder_of(out);
  how.files = static_cast<int>(std::min<size_t>(p.layout.files.size(), static_cast<size_t>(how.threads)));
  how.sync = options.sync;
  how.stop = stop;
  std::optional<exec::Reshapings> reshapings;
  const auto work = [&]() -> const exec::Work& {
    enter_phase("pick a device");
    return reshapings.emplace(catalog, p.layout, p.plan).work();
  };
  return exec::pick_device(options.device, {p.plan.bytes_in, p.plan.bytes_out}, work, how);
}

std::optional<exec::DeviceUse> use_of_device(const exec::Picked& picked, const Catalog& catalog,
                                             const Prepared& p, const ConvertOptions& options) {
  if (!picked.device) return std::nullopt;
  const exec::Reshapings reshapings(catalog, p.layout, p.plan);
  exec::DeviceUse use{picked.device, std::vector<bool>(p.layout.holes.size()), 0};
  for (uint32_t h = 0; h < p.layout.holes.size(); ++h) use.holes[h] = reshapings.suits_device(h);
  const int64_t max_mem = options.max_mem != 0 ? options.max_mem : default_max_mem();
  use.host_room = max_mem - p.held_bytes - p.buffers.total();
  return use;
}

void tell_device(const Catalog& catalog, const Prepared& p, const std::string& out,
                 const ConvertOptions& options, PlanTotals& totals) {
  if (options.device.kind == exec::DeviceChoice::kCuda) {
    totals.device = exec::name_of_device(options.device.number);
    totals.device_why = "asked for";
    return;
  }
  const exec::Picked picked = pick_device(catalog, p, out, options, nullptr);
  if (picked.why.empty()) return;
  totals.device = picked.name;
  totals.device_why = picked.why;
}

}  // namespace uckpt
