#include "lib/kernels/gpu_direct.h"

#include <dlfcn.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lib/base/text.h"

namespace uckpt::kernels {

namespace {

using cufile::Status;

// Those that a user can do something about.
std::string text_of(Status status) {
  switch (status.error) {
    case 5001:
      return "the nvidia-fs driver is not loaded";
    case 5004:
      return "the nvidia-fs driver is of another version";
    case 5007:
      return "this machine cannot do it";
    case 5008:
      return "the file system cannot do it";
    case 5009:
      return "this GPU cannot do it";
    case cufile::kCudaError:
      return cat("CUDA's driver gave error ", status.cuda);
    case 5025:
      return "the nvidia-fs driver or the file may not be used";
    case 5034:
      return "cufile.json does not allow it for this file";
    case 5036:
      return "the GPU's memory could not be pinned";
    default:
      return cat("libcufile gave error ", status.error);
  }
}

std::string text_of_count(ssize_t count, int64_t wanted) {
  if (count >= 0) return cat("it moved ", count, " bytes of ", wanted);
  return count == -1 ? std::strerror(errno) : text_of({static_cast<int>(-count), 0});
}

class GpuDirectFile final : public DirectFile {
 public:
  GpuDirectFile(std::shared_ptr<GpuDirect> library_, cufile::Handle handle_)
      : library(std::move(library_)), handle(handle_) {}
  ~GpuDirectFile() override { library->functions().deregister_handle(handle); }

  const std::shared_ptr<GpuDirect> library;
  const cufile::Handle handle;
};

// Of those that a library gave, and no other kind reaches its memory.
const GpuDirectFile& known(const DirectFile& file) { return static_cast<const GpuDirectFile&>(file); }

}  // namespace

std::shared_ptr<GpuDirect> GpuDirect::load(const std::string& library) {
  auto out = std::make_shared<GpuDirect>();
  if (std::string why = out->set_up(library); !why.empty()) out->stop(std::move(why));
  return out;
}

// What was loaded stays: it has threads, and things to do at the end of the process.
std::string GpuDirect::set_up(const std::string& library) {
  void* const loaded = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (loaded == nullptr) return ::dlerror();
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(loaded, name));
    if (function == nullptr && missing.empty()) missing = name;
  };
  find(functions_.set_bool, "cuFileSetParameterBool");
  find(functions_.get_bool, "cuFileGetParameterBool");
  find(functions_.open_driver, "cuFileDriverOpen");
  find(functions_.register_handle, "cuFileHandleRegister");
  find(functions_.deregister_handle, "cuFileHandleDeregister");
  find(functions_.register_buffer, "cuFileBufRegister");
  find(functions_.deregister_buffer, "cuFileBufDeregister");
  find(functions_.read, "cuFileRead");
  find(functions_.write, "cuFileWrite");
  if (!missing.empty()) return cat(library, " is too old: it has no ", missing);

  ::setenv("CUFILE_LOGFILE_PATH", "/dev/null", 0);
  // Else what cannot be done would be done through the host's memory, slower than we do it.
  Status status = functions_.set_bool(cufile::kAllowCompatMode, false);
  if (status.error == 0) status = functions_.open_driver();
  if (status.error != 0) return text_of(status);
  for (const int mode :
       {cufile::kAllowCompatMode, cufile::kForceCompatMode, cufile::kPosixMode, cufile::kFallback}) {
    bool is_on = false;
    if (functions_.get_bool(mode, &is_on).error == 0 && is_on)
      return "only its compatibility mode is available";
  }
  return {};
}

std::string GpuDirect::why_not() const {
  const std::lock_guard lock(mutex_);
  return why_not_;
}

void GpuDirect::stop(std::string why) {
  const std::lock_guard lock(mutex_);
  if (works_.exchange(false)) why_not_ = std::move(why);
}

std::unique_ptr<DirectFile> GpuDirect::open(int fd, std::string& why_not) {
  why_not = this->why_not();
  if (!why_not.empty()) return nullptr;
  cufile::Descriptor descriptor{};
  descriptor.type = cufile::kDescriptorOfFile;
  descriptor.of.fd = fd;
  cufile::Handle handle = nullptr;
  if (const Status status = functions_.register_handle(&handle, &descriptor); status.error != 0) {
    why_not = text_of(status);
    return nullptr;
  }
  return std::make_unique<GpuDirectFile>(shared_from_this(), handle);
}

DirectMemory::~DirectMemory() {
  if (registered_) registered_->functions().deregister_buffer(base_);
}

bool DirectMemory::is_ready(GpuDirect& library) {
  if (!library.works()) return false;
  if (registered_) return true;
  const Status status = library.functions().register_buffer(base_, static_cast<size_t>(bytes_), 0);
  if (status.error != 0) {
    library.stop(cat("a buffer could not be registered: ", text_of(status)));
    return false;
  }
  registered_ = library.shared_from_this();
  return true;
}

template <class Function>
bool DirectMemory::move(Function cufile::Functions::*how, std::string_view what, const DirectFile& with,
                        int64_t file_offset, int64_t offset, int64_t bytes) {
  const GpuDirectFile& file = known(with);
  if (!is_ready(*file.library)) return false;
  const ssize_t count =
      (file.library->functions().*how)(file.handle, base_, static_cast<size_t>(bytes), file_offset, offset);
  if (count == bytes) return true;
  file.library->stop(cat("a ", what, " failed: ", text_of_count(count, bytes)));
  return false;
}

bool DirectMemory::read(const DirectFile& from, int64_t file_offset, int64_t offset, int64_t bytes) {
  return move(&cufile::Functions::read, "read", from, file_offset, offset, bytes);
}
bool DirectMemory::write(const DirectFile& to, int64_t file_offset, int64_t offset, int64_t bytes) {
  return move(&cufile::Functions::write, "write", to, file_offset, offset, bytes);
}

}  // namespace uckpt::kernels
