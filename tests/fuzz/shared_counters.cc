// For a fuzz target that forks: the children count into the parent's coverage counters, so that what only
// they do leads the search, too. Compiled without coverage, since the instrumentation itself declares the
// ends of the counters.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
extern uint8_t __start___sancov_cntrs[] __attribute__((visibility("hidden")));
extern uint8_t __stop___sancov_cntrs[] __attribute__((visibility("hidden")));

// Whole pages only: what lies beside the counters stays everyone's own.
int LLVMFuzzerInitialize(int*, char***) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(__start___sancov_cntrs) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(__stop___sancov_cntrs) / page * page;
  if (begin >= end) std::abort();
  const std::vector<uint8_t> before(reinterpret_cast<uint8_t*>(begin), reinterpret_cast<uint8_t*>(end));
  void* const at = reinterpret_cast<void*>(begin);
  if (::mmap(at, end - begin, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
    std::abort();
  std::memcpy(at, before.data(), before.size());
  return 0;
}
}
