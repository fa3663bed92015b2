// GPUs by CUDA's runtime, of which nothing is called before a device is looked for.
#include "lib/kernels/device.h"

#include <cuda_runtime.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "lib/kernels/cuda/lane.h"
#include "lib/kernels/cuda/launch.h"
#include "lib/kernels/gpu_direct.h"

namespace uckpt::kernels {

namespace cuda {
namespace {

constexpr int kLeastMajor = 8;

[[noreturn]] void fail(const DeviceInfo& device, std::string_view what, cudaError_t error) {
  const bool memory = error == cudaErrorMemoryAllocation;
  (void)cudaGetLastError();  // or the next call would report it again
  throw trouble(
      memory ? "device.memory" : "device.failed",
      cat("cuda:", device.number, " (", device.name, ") could not ", what, ": ", cudaGetErrorString(error)))
      .hint(memory
                ? "less --max-mem or fewer threads (-j) take less of its memory; --device cpu does without it"
                : "--device cpu does without it");
}
void check(const DeviceInfo& device, std::string_view what, cudaError_t error) {
  if (error != cudaSuccess) fail(device, what, error);
}

// Memory of a device or, pinned, of the host; of whole vectors.
class Memory {
 public:
  Memory() = default;
  Memory(const DeviceInfo& device, int64_t bytes, bool on_host) : on_host_(on_host) {
    if (bytes <= 0) return;
    const auto size = static_cast<size_t>(round_up(bytes, kVector));
    check(device, cat("set aside ", human_bytes(size), on_host ? " of pinned memory" : " of memory"),
          on_host ? cudaHostAlloc(&at_, size, cudaHostAllocPortable) : cudaMalloc(&at_, size));
  }
  Memory(Memory&& other) noexcept : at_(std::exchange(other.at_, nullptr)), on_host_(other.on_host_) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(on_host_, other.on_host_);
    return *this;
  }
  ~Memory() {
    if (at_ != nullptr) (void)(on_host_ ? cudaFreeHost(at_) : cudaFree(at_));
  }
  uint8_t* bytes() const { return static_cast<uint8_t*>(at_); }
  template <class T>
  T* as() const {
    return static_cast<T*>(at_);
  }

 private:
  void* at_ = nullptr;
  bool on_host_ = false;
};

// What the lanes of a device share.
struct Shared {
  DeviceInfo info;
  Room room;
  Memory crc32, crc64;

  template <class Table>
  Memory table(const Table& table) const {
    Memory out(info, sizeof table, false);
    check(info, "receive a table", cudaMemcpy(out.bytes(), &table, sizeof table, cudaMemcpyHostToDevice));
    return out;
  }
};

class Machine {
 public:
  Machine(std::shared_ptr<const Shared> shared, const LaneSizes& sizes)
      : shared_(std::move(shared)), sizes_(sizes) {}
  // Of what was set up, however far that went.
  ~Machine() {
    (void)cudaSetDevice(shared_->info.number);
    if (stream_ != nullptr) (void)cudaStreamSynchronize(stream_);
    if (done_ != nullptr) (void)cudaEventDestroy(done_);
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void set_up() {
    use();
    ask("make a stream", cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    // A thread that waits leaves its core to others.
    ask("make an event", cudaEventCreateWithFlags(&done_, cudaEventBlockingSync | cudaEventDisableTiming));
    for (int r = 0; r < kRegions; ++r) memory_[r] = Memory(shared_->info, sizes_.of[r], false);
    input_ = Memory(shared_->info, sizes_[Region::kInput], true);
    output_ = Memory(shared_->info, sizes_[Region::kOutput], true);
    results_ = Memory(shared_->info, kMostResults * int64_t{sizeof(Result)}, false);
    found_ = Memory(shared_->info, kMostResults * int64_t{sizeof(Result)}, true);
    clear_results(kMostResults);
    direct_input_.emplace(memory(Region::kInput), sizes_[Region::kInput]);
    direct_output_.emplace(memory(Region::kOutput), sizes_[Region::kOutput]);
  }

  const LaneSizes& sizes() const { return sizes_; }
  uint8_t* memory(Region region) const { return memory_[static_cast<int>(region)].bytes(); }
  std::span<uint8_t> input() const { return {input_.bytes(), static_cast<size_t>(sizes_[Region::kInput])}; }
  std::span<const uint8_t> output() const {
    return {output_.bytes(), static_cast<size_t>(sizes_[Region::kOutput])};
  }
  Result* results() const { return results_.as<Result>(); }
  const Result* found() const { return found_.as<Result>(); }
  Tables tables() const { return {shared_->crc32.as<Crc32Tables>(), shared_->crc64.as<Crc64Tables>()}; }
  const Room& room() const { return shared_->room; }

  void begin() {}
  void upload(uint8_t* to, int64_t offset, int64_t bytes) {
    move("receive bytes", to, input_.bytes() + offset, bytes, cudaMemcpyHostToDevice);
  }
  void download(int64_t offset, const uint8_t* from, int64_t bytes) {
    move("send bytes", output_.bytes() + offset, from, bytes, cudaMemcpyDeviceToHost);
  }
  bool read_direct(const DirectFile& from, int64_t file_offset, int64_t offset, int64_t bytes) {
    use();
    return direct_input_->read(from, file_offset, offset, bytes);
  }
  bool write_direct(const DirectFile& to, int64_t file_offset, int64_t offset, int64_t bytes) {
    use();
    return direct_output_->write(to, file_offset, offset, bytes);
  }
  void clear(uint8_t* to, int64_t bytes) {
    use();
    ask("clear memory", cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_));
  }
  void fetch_results(int count) {
    move("send results", found_.bytes(), results_.bytes(), count * int64_t{sizeof(Result)},
         cudaMemcpyDeviceToHost);
  }
  void clear_results(int count) { clear(results_.bytes(), count * int64_t{sizeof(Result)}); }
  template <class Body>
  void launch(const typename Body::Args& args, int64_t units) {
    use();
    launch_on<Body>(stream_, args, units);
    ask("start a kernel", cudaGetLastError());
  }
  void wait() {
    use();
    ask("do its work", cudaEventRecord(done_, stream_));
    ask("do its work", cudaEventSynchronize(done_));
  }

 private:
  void use() { ask("be chosen", cudaSetDevice(shared_->info.number)); }
  void ask(std::string_view what, cudaError_t error) const { check(shared_->info, what, error); }
  void move(std::string_view what, uint8_t* to, const uint8_t* from, int64_t bytes, cudaMemcpyKind kind) {
    use();
    ask(what, cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream_));
  }

  std::shared_ptr<const Shared> shared_;
  LaneSizes sizes_;
  Memory memory_[kRegions], input_, output_, results_, found_;
  std::optional<DirectMemory> direct_input_, direct_output_;  // of memory_
  cudaStream_t stream_ = nullptr;
  cudaEvent_t done_ = nullptr;
};

class Gpu final : public Device {
 public:
  explicit Gpu(const DeviceInfo& info) {
    auto shared = std::make_shared<Shared>();
    shared->info = info;
    check(info, "be chosen", cudaSetDevice(info.number));
    int processors = 0;
    check(info, "tell its multiprocessors",
          cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, info.number));
    shared->room = {int64_t{processors} * blocks_of<Crc32Body>(),
                    int64_t{processors} * blocks_of<Crc64Body>()};
    shared->crc32 = shared->table(Crc32Tables::make());
    shared->crc64 = shared->table(Crc64Tables::make());
    shared_ = std::move(shared);
  }
  const DeviceInfo& info() const override { return shared_->info; }
  std::unique_ptr<Lane> make_lane(const LaneSizes& sizes) override {
    auto machine = std::make_unique<Machine>(shared_, sizes);
    machine->set_up();
    return std::make_unique<LaneOn<Machine>>(std::move(machine));
  }
  std::string why_not_direct() override { return direct()->why_not(); }
  std::unique_ptr<DirectFile> open_direct(int fd, std::string& why_not) override {
    return direct()->open(fd, why_not);
  }

 private:
  // One for all devices. Does not throw where the device has failed: what comes next tells.
  const std::shared_ptr<GpuDirect>& direct() const {
    (void)cudaSetDevice(info().number);
    static const std::shared_ptr<GpuDirect> loaded = GpuDirect::load("libcufile.so.0");
    return loaded;
  }

  std::shared_ptr<const Shared> shared_;
};

std::string version_text(int version) { return cat(version / 1000, ".", version % 1000 / 10); }

// Why no device can be counted.
std::string why_not(cudaError_t error) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  (void)cudaGetLastError();
  if (driver == 0) return "no NVIDIA driver is loaded";
  if (error == cudaErrorNoDevice) return "the NVIDIA driver finds no GPU";
  if (error == cudaErrorInsufficientDriver)
    return cat("the NVIDIA driver is made for CUDA ", version_text(driver), ", and uckpt needs one for ",
               version_text(CUDART_VERSION));
  return cat("CUDA cannot be started: ", cudaGetErrorString(error));
}

// Appends what can be used to `out.found`; gives why it cannot.
std::string look_at(int number, Devices& out) {
  DeviceInfo info;
  info.number = number;
  cudaDeviceProp properties{};
  size_t free = 0, all = 0;
  cudaError_t error = cudaGetDeviceProperties(&properties, number);
  if (error == cudaSuccess) {
    info.name = properties.name;
    info.major = properties.major;
    info.minor = properties.minor;
    if (info.major < kLeastMajor)
      return cat("cuda:", number, " (", info.name, ") has compute capability ", info.major, ".", info.minor,
                 ", and uckpt needs ", kLeastMajor, ".0");
    error = cudaSetDevice(number);
  }
  if (error == cudaSuccess) error = cudaMemGetInfo(&free, &all);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    return cat("cuda:", number, " cannot be used: ", cudaGetErrorString(error));
  }
  info.memory = static_cast<int64_t>(all);
  info.free_memory = static_cast<int64_t>(free);
  out.found.push_back(std::move(info));
  return {};
}

}  // namespace
}  // namespace cuda

Devices find_devices() {
  Devices out;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess || count == 0) {
    out.why_none = cuda::why_not(error == cudaSuccess ? cudaErrorNoDevice : error);
    return out;
  }
  for (int number = 0; number < count; ++number) {
    const std::string why = cuda::look_at(number, out);
    if (!why.empty()) out.why_none += (out.why_none.empty() ? "" : "; ") + why;
  }
  return out;
}

std::unique_ptr<Device> open_device(int number) {
  // Looking at a device sets aside memory on it: no other is looked at where this one can be used.
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && number >= 0 && number < count) {
    Devices only;
    cuda::look_at(number, only);
    if (!only.found.empty()) return std::make_unique<cuda::Gpu>(only.found[0]);
  }
  const Devices devices = find_devices();
  std::string there_are;
  for (const DeviceInfo& d : devices.found)
    there_are += cat(there_are.empty() ? "" : ", ", "cuda:", d.number, " (", d.name, ")");
  if (!devices.why_none.empty()) there_are += (there_are.empty() ? "" : "; ") + devices.why_none;
  throw trouble("device.missing", cat("there is no device cuda:", number, " to use: ", there_are))
      .hint("--device cpu needs none");
}

}  // namespace uckpt::kernels
