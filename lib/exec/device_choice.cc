#include "lib/exec/device_choice.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "lib/base/text.h"

namespace uckpt::exec {

namespace {

double seconds_for(int64_t bytes, double rate) {
  if (bytes == 0) return 0;
  return rate > 0 ? static_cast<double>(bytes) / rate : std::numeric_limits<double>::infinity();
}

double disk_seconds(const Work& work, const HostRates& r) {
  const Flow all = work.all();
  return seconds_for(all.in, r.read.all) + seconds_for(all.out, r.write.all);
}

// Of all threads, added up.
double file_seconds(const Work& work, const HostRates& r) {
  const Flow all = work.all();
  return seconds_for(all.in, r.read.one) + seconds_for(all.out, r.write.one);
}

// A mean passes over every part of it, as a cast does.
double kernel_seconds(const Work& work, double strided, double cast) {
  return seconds_for(work[Reshaping::kStrided].wider(), strided) +
         seconds_for(work[Reshaping::kCast].wider(), cast) +
         seconds_for(work[Reshaping::kMean].wider(), cast);
}

Estimate slower(const Estimate& a, const Estimate& b) { return b.seconds > a.seconds ? b : a; }

Estimate files_alone(const Work& work, const HostRates& r) {
  return slower({disk_seconds(work, r), Bound::kDisk},
                {file_seconds(work, r) / std::max(1, r.threads), Bound::kThreads});
}

std::string seconds_text(double seconds) {
  if (!std::isfinite(seconds)) return "for ever";
  char text[32];
  std::snprintf(text, sizeof text, seconds < 9.95 ? "%.1f s" : "%.0f s", seconds);
  return text;
}

std::string_view text_of(Bound bound) {
  switch (bound) {
    case Bound::kDisk:
      return "the disk";
    case Bound::kThreads:
      return "the threads that read and write";
    case Bound::kUpload:
    case Bound::kDownload:
      return "PCIe";
    case Bound::kKernels:
      break;
  }
  return "its kernels";
}

}  // namespace

Estimate on_cpu(const Work& work, const HostRates& r) {
  const double threads = file_seconds(work, r) + kernel_seconds(work, r.strided, r.cast);
  return slower({disk_seconds(work, r), Bound::kDisk}, {threads / std::max(1, r.threads), Bound::kThreads});
}

Estimate with_device(const Work& work, const Rates& r) {
  const Flow there = work.for_device();
  Estimate e = files_alone(work, r.host);
  e = slower(e, {seconds_for(there.in, r.device.upload), Bound::kUpload});
  e = slower(e, {seconds_for(there.out, r.device.download), Bound::kDownload});
  e = slower(e, {kernel_seconds(work, r.device.strided, r.device.cast), Bound::kKernels});
  return {e.seconds + r.device.start_up, e.bound};
}

bool is_little(const Flow& all, int threads) {
  return all.wider() < kLeastForDevice || all.in + all.out < kLeastOfThread * threads;
}

std::optional<std::string> settled_at_once(const Work& work, int threads) {
  const Flow there = work.for_device(), all = work.all();
  const auto size = [](int64_t bytes) { return human_bytes(static_cast<uint64_t>(bytes)); };
  if (there.wider() < kLeastForDevice) return cat("only ", size(there.wider()), " would suit a device");
  if (all.in + all.out < kLeastOfThread * threads)
    return cat(size(all.in + all.out), " to read and write are too few to ask a device");
  return std::nullopt;
}

std::optional<std::string> settled_by_host(const Work& work, const HostRates& rates) {
  const double cpu = on_cpu(work, rates).seconds;
  if (cpu * kMostOfAsking < kCostOfAsking)
    return cat("it takes ", seconds_text(cpu), ": too little to ask a device");
  if (const Estimate least = files_alone(work, rates); !(least.seconds < kMargin * cpu))
    return cat("it takes ", seconds_text(cpu), ", and ", seconds_text(least.seconds),
               " on any device: bound by ", text_of(least.bound));
  return std::nullopt;
}

Verdict choose(const Work& work, const Rates& rates, std::string_view device) {
  const Estimate cpu = on_cpu(work, rates.host), other = with_device(work, rates);
  const bool wins = other.seconds < kMargin * cpu.seconds;
  const std::string both = cat(device, wins ? " takes " : " would take ", seconds_text(other.seconds),
                               ", the CPU ", wins ? "would take " : "", seconds_text(cpu.seconds));
  return {wins, wins ? both : cat(both, ": bound by ", text_of(other.bound))};
}

}  // namespace uckpt::exec
