// What the libcufile of tests does, and did.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "lib/kernels/gpu_direct.h"

namespace uckpt::kernels::testing {

struct FakeCufile {
  enum How : uint8_t { kErrno, kCode, kShort };  // a transfer that fails
  bool has_driver = true;
  bool forces_compatibility = false;
  bool refuses_files = false;
  int64_t fails_after = -1;  // so many registrations and transfers are done before it; negative: none fails
  How how = kErrno;
};

// The library beside the tests' program; `fake_cufile_old` lacks what old ones lack.
inline std::string fake_cufile_path(const std::string& name = "fake_cufile") {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / ("lib" + name + ".so")).string();
}
template <class Function>
Function* fake_cufile_function(const char* name) {
  return reinterpret_cast<Function*>(
      ::dlsym(::dlopen(fake_cufile_path().c_str(), RTLD_NOW | RTLD_LOCAL), name));
}
// Files and buffers.
inline int64_t fake_cufile_registered() {
  return fake_cufile_function<int64_t()>("fake_cufile_registered")();
}
// Did what `fails_after` asks for happen?
inline bool fake_cufile_failed() { return fake_cufile_function<bool()>("fake_cufile_failed")(); }
// As a new process would load it.
inline std::shared_ptr<GpuDirect> load_fake_cufile(const FakeCufile& state) {
  *fake_cufile_function<FakeCufile*()>("fake_cufile")() = state;
  return GpuDirect::load(fake_cufile_path());
}

}  // namespace uckpt::kernels::testing
