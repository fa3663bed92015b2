#include "lib/exec/pick_device.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt::exec {

namespace {

// The host's part is measured for 2 % of the time that this much may take a fast machine.
double seconds_for_host(const Work& work, const ProbeOptions& how) {
  constexpr double kFast = 1e9, kShare = 0.02, kLeast = 0.03;  // bytes a second of a thread; seconds
  const Flow all = work.all();
  const double least = static_cast<double>(all.in + all.out) / (kFast * std::max(1, how.threads));
  return std::min(how.seconds, std::max(kLeast, kShare * least));
}

Picked pick_automatically(const kernels::DeviceInfo& first, const Work& work, ProbeOptions how,
                          const DeviceFinder& finder) {
  Picked picked{nullptr, "cpu", "", {}};
  if (const auto why = settled_at_once(work, how.threads)) {
    picked.why = *why;
    return picked;
  }
  const double seconds = how.seconds;
  how.seconds = seconds_for_host(work, how);
  picked.rates.host = probe_host(how);
  if (const auto why = settled_by_host(work, picked.rates.host)) {
    picked.why = *why;
    return picked;
  }
  const std::string name = name_of_device(first.number);
  try {
    OpenedDevice opened = open_timed(first.number, how, finder);
    how.seconds = seconds * kCostOfAsking;
    picked.rates.device = probe_device(*opened.device, how);
    picked.rates.device.start_up = opened.seconds;
    const Verdict verdict = choose(work, picked.rates, name);
    picked.why = verdict.why;
    if (verdict.device) picked.name = name, picked.device = std::move(opened.device);
  } catch (const Error& e) {
    if (!kernels::is_of_device(e)) throw;
    picked.why = cat(name, " does not work: ", e.message());
  }
  return picked;
}

}  // namespace

std::string name_of_device(int number) { return cat("cuda:", number); }

OpenedDevice open_timed(int number, const ProbeOptions& how, const DeviceFinder& finder) {
  const auto now = [&] { return how.now ? how.now() : steady_seconds(); };
  const double begun = now();
  auto device = finder.open(number);
  kernels::LaneSizes smallest;
  smallest[kernels::Region::kInput] = smallest[kernels::Region::kOutput] = 4096;
  device->make_lane(smallest)->wait();
  return {std::move(device), now() - begun};
}

void require_device(const DeviceChoice& asked, const DeviceFinder& finder) {
  if (asked.kind != DeviceChoice::kCuda) return;
  const kernels::Devices devices = finder.find();
  std::string there;
  for (const kernels::DeviceInfo& d : devices.found) {
    if (d.number == asked.number) return;
    there += cat(there.empty() ? "" : ", ", name_of_device(d.number));
  }
  throw trouble("device.missing",
                cat("--device ", name_of_device(asked.number), ": ",
                    there.empty() ? devices.why_none : cat("there is no such device, but ", there),
                    "; use --device cpu or auto"));
}

Picked pick_device(const DeviceChoice& asked, const Flow& all, const std::function<const Work&()>& work,
                   const ProbeOptions& how, const DeviceFinder& finder) {
  if (asked.kind == DeviceChoice::kCpu) return {nullptr, "cpu", "", {}};
  if (asked.kind == DeviceChoice::kCuda) {
    OpenedDevice opened = open_timed(asked.number, how, finder);
    Picked picked{std::move(opened.device), name_of_device(asked.number), "asked for", {}};
    picked.rates.device.start_up = opened.seconds;
    return picked;
  }
  if (is_little(all, how.threads)) return {nullptr, "cpu", "", {}};
  const kernels::Devices devices = finder.find();
  if (devices.found.empty()) return {nullptr, "cpu", "", {}};
  return pick_automatically(devices.found.front(), work(), how, finder);
}

}  // namespace uckpt::exec
