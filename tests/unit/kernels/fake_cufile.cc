// A libcufile.so.0 for tests, with the real one's ABI: what it calls a device's memory is the host's. It does
// as lib/kernels/gpu_direct.h says of the real one, and fails where fake_cufile.h asks for it.
#include "tests/unit/kernels/fake_cufile.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "lib/kernels/gpu_direct.h"

using namespace uckpt::kernels::cufile;
using uckpt::kernels::testing::FakeCufile;

namespace {

enum : int {
  kSuccess = 0,
  kNotInitialized = 5001,
  kNotSupported = 5008,
  kNotDirect = 5020,
  kInvalid = 5022,
  kAlreadyOpen = 5026,
  kInternal = 5030,
  kPinning = 5036,
};
constexpr int64_t kPage = 4096;

Status status(int error) { return {error, 0}; }

std::mutex mutex;
FakeCufile state;
bool is_compatible = true, is_open = false, has_failed = false;
std::map<const void*, size_t> buffers;
std::set<void*> handles;

// Whether this call is the one that fails.
bool fails_now() {
  if (state.fails_after < 0 || state.fails_after-- > 0) return false;
  return has_failed = true;
}

ssize_t move(Handle handle, void* base, size_t size, off_t of_file, off_t of_base, bool reads) {
  const auto bytes = static_cast<int64_t>(size);
  int fd;
  {
    const std::lock_guard lock(mutex);
    if (fails_now()) {
      if (state.how == FakeCufile::kErrno) errno = EIO;
      return state.how == FakeCufile::kErrno ? -1 : state.how == FakeCufile::kCode ? -kInternal : 4096;
    }
    const auto buffer = buffers.find(base);
    if (!handles.contains(handle) || buffer == buffers.end() || of_base < 0 ||
        of_base + bytes > static_cast<int64_t>(buffer->second) || of_file % kPage != 0 || bytes % kPage != 0)
      std::abort();
    fd = *static_cast<int*>(handle);
  }
  auto* const at = static_cast<char*>(base) + of_base;
  void* const pages = std::aligned_alloc(kPage, size);
  if (!reads) std::memcpy(pages, at, size);
  const ssize_t n = reads ? ::pread(fd, pages, size, of_file) : ::pwrite(fd, pages, size, of_file);
  if (reads && n > 0) std::memcpy(at, pages, static_cast<size_t>(n));
  std::free(pages);
  return n;
}

}  // namespace

extern "C" {

// As in a process that has just loaded it.
FakeCufile* fake_cufile() {
  is_compatible = true;
  is_open = has_failed = false;
  return &state;
}
bool fake_cufile_failed() { return has_failed; }
int64_t fake_cufile_registered() { return static_cast<int64_t>(buffers.size() + handles.size()); }

#ifndef FAKE_CUFILE_IS_OLD
Status cuFileSetParameterBool(int parameter, bool value) {
  if (is_open) return status(kAlreadyOpen);
  if (parameter == kAllowCompatMode) is_compatible = value;
  return status(kSuccess);
}
#endif
Status cuFileGetParameterBool(int parameter, bool* value) {
  if (parameter > kForceCompatMode) return status(kInvalid);
  *value = parameter == kAllowCompatMode ? is_compatible : state.forces_compatibility;
  return status(kSuccess);
}
Status cuFileDriverOpen() {
  is_open = state.has_driver || is_compatible;
  return status(is_open ? kSuccess : kNotInitialized);
}
Status cuFileHandleRegister(Handle* handle, Descriptor* descriptor) {
  const std::lock_guard lock(mutex);
  const int fd = descriptor->of.fd;
  if (descriptor->type != kDescriptorOfFile || (::fcntl(fd, F_GETFL) & O_DIRECT) == 0)
    return status(kNotDirect);
  if (state.refuses_files || fails_now()) return status(kNotSupported);
  handles.insert(*handle = new int(fd));
  return status(kSuccess);
}
void cuFileHandleDeregister(Handle handle) {
  const std::lock_guard lock(mutex);
  if (handles.erase(handle) != 1) std::abort();
  delete static_cast<int*>(handle);
}
Status cuFileBufRegister(const void* base, size_t bytes, int) {
  const std::lock_guard lock(mutex);
  if (fails_now()) return status(kPinning);
  return status(buffers.emplace(base, bytes).second ? kSuccess : kInvalid);
}
Status cuFileBufDeregister(const void* base) {
  const std::lock_guard lock(mutex);
  if (buffers.erase(base) != 1) std::abort();
  return status(kSuccess);
}
ssize_t cuFileRead(Handle handle, void* base, size_t bytes, off_t of_file, off_t of_base) {
  return move(handle, base, bytes, of_file, of_base, true);
}
ssize_t cuFileWrite(Handle handle, const void* base, size_t bytes, off_t of_file, off_t of_base) {
  return move(handle, const_cast<void*>(base), bytes, of_file, of_base, false);
}

}  // extern "C"
