// GPUDirect Storage: files that a GPU's memory is read from and written to without the host's, by NVIDIA's
// libcufile, which is looked for at run time and never linked. Needs nothing of CUDA's.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "lib/kernels/lane.h"

namespace uckpt::kernels {

// What is used of libcufile.so.0: compared with the cufile.h of 1.14.1 (CUDA 12.9) and 1.20.0 (CUDA 13). An
// enum of theirs is an int here.
namespace cufile {

struct Status {  // CUfileError_t
  int error;     // CUfileOpError, 0 or above 5000
  int cuda;      // CUresult, where that is kCudaError
};
inline constexpr int kCudaError = 5011;

struct Descriptor {  // CUfileDescr_t
  int type;          // kDescriptorOfFile
  union {
    int fd;
    void* handle;
  } of;
  const void* operations;  // none
};
inline constexpr int kDescriptorOfFile = 1;  // CU_FILE_HANDLE_TYPE_OPAQUE_FD
using Handle = void*;                        // CUfileHandle_t

// CUFileBoolConfigParameter_t: the ways to do without what it is for. Older versions know the first two.
inline constexpr int kAllowCompatMode = 1, kForceCompatMode = 2, kPosixMode = 12, kFallback = 13;

struct Functions {
  Status (*set_bool)(int parameter, bool value);
  Status (*get_bool)(int parameter, bool* value);
  Status (*open_driver)();
  Status (*register_handle)(Handle*, Descriptor*);
  void (*deregister_handle)(Handle);
  Status (*register_buffer)(const void* base, size_t bytes, int flags);
  Status (*deregister_buffer)(const void* base);
  // Bytes; -1: errno tells; less: -CUfileOpError.
  ssize_t (*read)(Handle, void* base, size_t bytes, off_t of_file, off_t of_base);
  ssize_t (*write)(Handle, const void* base, size_t bytes, off_t of_file, off_t of_base);
};

}  // namespace cufile

// The library, for as long as the process lives: once its driver could not be opened, 1.20 may wait for ever
// in a second try. Thread-safe once it is loaded.
class GpuDirect : public std::enable_shared_from_this<GpuDirect> {
 public:
  // Never throws. While no other thread reads the environment: the library would write a cufile.log into the
  // working folder, unless the environment says where to.
  static std::shared_ptr<GpuDirect> load(const std::string& library);

  // A clause; empty: it is of use.
  std::string why_not() const;
  // Of no use from now on. The first reason stays.
  void stop(std::string why);
  bool works() const { return works_; }
  // `fd` is open past the page cache, and outlives the result. Null: not this file, and why.
  std::unique_ptr<DirectFile> open(int fd, std::string& why_not);
  const cufile::Functions& functions() const { return functions_; }

 private:
  std::string set_up(const std::string& library);

  cufile::Functions functions_{};
  std::atomic<bool> works_{true};
  mutable std::mutex mutex_;
  std::string why_not_;
};

// A region of a lane on its device, which goes after this. Used by the lane's thread.
class DirectMemory {
 public:
  DirectMemory(uint8_t* base, int64_t bytes) : base_(base), bytes_(bytes) {}
  ~DirectMemory();
  DirectMemory(const DirectMemory&) = delete;
  DirectMemory& operator=(const DirectMemory&) = delete;

  // All of it at once, or false: then the library is of no further use.
  bool read(const DirectFile& from, int64_t file_offset, int64_t offset, int64_t bytes);
  bool write(const DirectFile& to, int64_t file_offset, int64_t offset, int64_t bytes);

 private:
  bool is_ready(GpuDirect& library);
  template <class Function>
  bool move(Function cufile::Functions::*how, std::string_view what, const DirectFile& with,
            int64_t file_offset, int64_t offset, int64_t bytes);

  uint8_t* const base_;
  const int64_t bytes_;
  std::shared_ptr<GpuDirect> registered_;  // with this library
};

}  // namespace uckpt::kernels
