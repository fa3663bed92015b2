#include "lib/io/mapping.h"

#include <sys/mman.h>

#include <csetjmp>
#include <csignal>
#include <cstring>
#include <mutex>

namespace uckpt {

namespace {

// Where a thread goes on if a page that it copies from cannot be read; null: nowhere.
thread_local sigjmp_buf* way_out = nullptr;

// Of a fault elsewhere the signal does what it always does, once the faulting access is made again.
void leave_copy(int) {
  if (way_out != nullptr) siglongjmp(*way_out, 1);
  std::signal(SIGBUS, SIG_DFL);
}

void catch_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = leave_copy;
    action.sa_flags = SA_NODEFER;  // the handler is left by a jump
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, nullptr);
  });
}

}  // namespace

std::unique_ptr<Mapping> Mapping::of(int fd, int64_t size) {
  if (size <= 0) return nullptr;
  catch_faults();
  void* const data = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return nullptr;
  return std::unique_ptr<Mapping>(new Mapping(static_cast<const uint8_t*>(data), static_cast<size_t>(size)));
}

Mapping::~Mapping() { ::munmap(const_cast<uint8_t*>(data_), size_); }

bool Mapping::copy_runs(int64_t offset, int64_t stride, int64_t length, std::span<uint8_t> out) const {
  sigjmp_buf here;
  way_out = &here;
  const bool is_whole = sigsetjmp(here, 0) == 0;
  if (is_whole) {
    const uint8_t* from = data_ + offset;
    for (uint8_t *to = out.data(), *end = to + out.size(); to < end; to += length, from += stride)
      std::memcpy(to, from, static_cast<size_t>(length));
  }
  way_out = nullptr;
  return is_whole;
}

}  // namespace uckpt
