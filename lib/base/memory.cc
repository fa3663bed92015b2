#include "lib/base/memory.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "lib/base/sanitized.h"

namespace uckpt {

namespace {

constexpr int64_t kStackBytes = int64_t{8} << 20;  // as the system reserves for a thread, used or not
constexpr int kOtherThreads = 4;                   // progress, journal, the library's own

int64_t limit_set = 0;

// Of the control group that we see as the root; what is no number is "max".
int64_t control_group_limit(int64_t otherwise) {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t bytes = 0;
  return file >> bytes ? bytes : otherwise;
}

}  // namespace

int64_t default_max_mem() {
  const auto pages = static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)),
             page = static_cast<int64_t>(::sysconf(_SC_PAGE_SIZE));
  const int64_t machine = pages * page;
  return std::min(machine, control_group_limit(machine)) / 4;
}

void limit_memory(int64_t bytes, int threads) {
  if (kSanitized) return;
  limit_set = bytes;
  const int most = std::max(threads, static_cast<int>(std::thread::hardware_concurrency())) + kOtherThreads;
  const auto wanted = static_cast<rlim_t>(bytes + most * kStackBytes);
  rlimit now{};
  if (::getrlimit(RLIMIT_DATA, &now) != 0) return;
  now.rlim_cur = std::min(now.rlim_max, wanted);
  ::setrlimit(RLIMIT_DATA, &now);
}

int64_t memory_limit() { return limit_set; }

void trim_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

}  // namespace uckpt
