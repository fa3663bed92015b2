#include "lib/io/descriptors.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace uckpt {

namespace {

std::atomic<int64_t> reserved{0};

// Half of the limit: the rest is for whoever opens files beside us.
int64_t budget() {
  static const int64_t budget = [] {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return std::max<int64_t>(16, static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, 1 << 20)) / 2);
  }();
  return budget;
}

}  // namespace

bool reserve_descriptor() {
  if (reserved.fetch_add(1) < budget()) return true;
  --reserved;
  return false;
}

void release_descriptor() { --reserved; }

}  // namespace uckpt
