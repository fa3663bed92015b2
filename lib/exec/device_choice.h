// Is a device worth it? Arithmetic on what there is to do and on what the machine was found to do; nothing is
// measured or opened here.
//
// On the CPU each thread reads, computes and writes in turn, all threads at once, and the disk is shared: the
// slower of the disk's time and a thread's counts. With a device the threads read and write; both ways to it,
// and its kernels, go on meanwhile: the slowest counts, and its start-up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lib/exec/reshaping.h"

namespace uckpt::exec {

// What was asked for.
struct DeviceChoice {
  enum Kind : uint8_t { kAuto, kCpu, kCuda };
  Kind kind = kAuto;
  int number = 0;  // of kCuda
  bool operator==(const DeviceChoice&) const = default;
};

// Rates are bytes a second, 0 where none is known: then it takes for ever.
struct FileRate {
  double one = 0;  // a thread's, of bytes that are, or stay, in memory
  double all = 0;  // of all threads at once: what the disk lets through
};
struct HostRates {
  int threads = 1;
  double copy = 0;               // a thread's memcpy
  double strided = 0, cast = 0;  // a thread's kernels, by the wider side
  FileRate read, write;
};
struct DeviceRates {
  double upload = 0, download = 0;
  double strided = 0, cast = 0;  // by the wider side
  double start_up = 0;           // seconds: to open it, and for its first lane
};
struct Rates {
  HostRates host;
  DeviceRates device;
};

enum class Bound : uint8_t { kDisk, kThreads, kUpload, kDownload, kKernels };
struct Estimate {
  double seconds = 0;
  Bound bound = Bound::kDisk;  // what takes longest
};
Estimate on_cpu(const Work& work, const HostRates& rates);
Estimate with_device(const Work& work, const Rates& rates);

// A device must win by so much. What the estimates leave out (digests, reading short runs) is done with it
// and without: the device then wins by less than they say, not more.
inline constexpr double kMargin = 0.9;
// Fewer bytes, of those that suit a device and of all that a thread reads and writes, are done before
// anything is found out.
inline constexpr int64_t kLeastForDevice = int64_t{256} << 20, kLeastOfThread = int64_t{1} << 30;
// What opening and measuring a device may cost, as seconds expected and as a share of the CPU's time.
inline constexpr double kCostOfAsking = 0.5, kMostOfAsking = 0.05;

// Less than that, be it turned or copied?
bool is_little(const Flow& all, int threads);
// Why the CPU it is before anything is measured; nothing: it is not settled.
std::optional<std::string> settled_at_once(const Work& work, int threads);
// The same before the device is opened: not even the fastest one would be worth it.
std::optional<std::string> settled_by_host(const Work& work, const HostRates& rates);

struct Verdict {
  bool device = false;
  std::string why;  // "cuda:0 would take 3.1 s, the CPU 2.0 s: bound by PCIe"
};
Verdict choose(const Work& work, const Rates& rates, std::string_view device);

}  // namespace uckpt::exec
