// Compares each kernel of a GPU with the same bodies on the host, bit for bit, and times it beside the
// device's own copy. Usage: gpu_check [--only PART_OF_A_NAME]. Needs no package; built and run by
// scripts/gpu-check. Exits 1 where a comparison fails, 2 without a GPU.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/base/error.h"
#include "lib/kernels/device.h"
#include "lib/tensor/catalog.h"
#include "tests/unit/kernels/emulated_device.h"

using namespace uckpt;
using namespace uckpt::kernels;

namespace {

constexpr DType kFloats[] = {DType::kF64,  DType::kF32,    DType::kF16,
                             DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};
constexpr DType kArithmetic[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16};
constexpr At kSource{Region::kFilled, 0}, kTarget{Region::kOther, 0};

std::string_view wanted;
int64_t failures = 0, comparisons = 0;

std::string text(const char* format, auto... values) {
  char out[160];
  std::snprintf(out, sizeof out, format, values...);
  return out;
}
std::string name(DType dtype) { return std::string(name_of(dtype)); }
At after(At at, int64_t bytes) { return {at.region, at.offset + bytes}; }

// dst = src with its axes in the given order; both dense.
std::vector<CopyLoop> permuted(const std::vector<int64_t>& shape, const std::vector<size_t>& order,
                               int64_t src_item, int64_t dst_item) {
  std::vector<CopyLoop> loops(shape.size());
  std::vector<int64_t> strides(shape.size());
  int64_t stride = src_item;
  for (size_t d = shape.size(); d-- > 0; stride *= shape[d]) strides[d] = stride;
  stride = dst_item;
  for (size_t d = shape.size(); d-- > 0; stride *= shape[order[d]])
    loops[d] = {shape[order[d]], strides[order[d]], stride};
  return loops;
}

// ---- The same work on both devices.

// Random bits, and in the first part every code of 16 bits, in the first half of a word and in the second.
Bytes source_bytes(int64_t count, uint32_t seed) {
  Bytes out(static_cast<size_t>(count));
  std::mt19937 random(seed);
  for (uint8_t& b : out) b = static_cast<uint8_t>(random());
  for (size_t i = 0; i < 65'536 && 2 * i + 2 <= out.size(); ++i)
    store_le(out.data() + 2 * i, static_cast<uint16_t>(i));
  // Floats of all kinds of exponents, specials among them.
  for (size_t i = 0; i < 65'536 && 131'072 + 4 * i + 4 <= out.size(); ++i)
    store_le(out.data() + 131'072 + 4 * i,
             static_cast<uint32_t>(i << 16 | (i % 5 == 0   ? 0x8000
                                              : i % 5 == 1 ? 0x7fff
                                              : i % 5 == 2 ? 0x8001
                                                           : random() & 0xffff)));
  for (size_t i = 0; i < 65'536 && 393'216 + 8 * i + 8 <= out.size(); ++i)
    store_le(out.data() + 393'216 + 8 * i,
             static_cast<uint64_t>(i) << 48 | (i % 3 == 0 ? 0 : uint64_t{random()} << 16));
  return out;
}

using Work = std::function<void(Lane&, std::vector<int>& results)>;
constexpr int64_t kCheckBytes = 1 << 20;
Bytes check_source;

struct Found {
  Bytes output;
  std::vector<uint64_t> results;
};
Found run_on(Lane& lane, const Work& work) {
  std::vector<int> results;
  std::copy(check_source.begin(), check_source.end(), lane.input().begin());
  lane.upload(0, kCheckBytes);
  lane.copy_strided(kSource, {Region::kInput, 0}, {}, kCheckBytes);
  lane.clear(kTarget, 2 * kCheckBytes);
  work(lane, results);
  lane.copy_strided({Region::kOutput, 0}, kTarget, {}, 2 * kCheckBytes);
  lane.download(0, 2 * kCheckBytes);
  lane.wait();
  Found out;
  out.output.assign(lane.output().begin(), lane.output().end());
  for (const int r : results) {
    out.results.push_back(lane.crc(r));
    out.results.push_back(static_cast<uint64_t>(lane.differences(r).first));
  }
  return out;
}

std::unique_ptr<Lane> host_lane, gpu_lane;

void check(const std::string& what, const Work& work) {
  if (what.find(wanted) == std::string::npos) return;
  const Found host = run_on(*host_lane, work), gpu = run_on(*gpu_lane, work);
  ++comparisons;
  if (host.output == gpu.output && host.results == gpu.results) return;
  ++failures;
  const auto at =
      std::mismatch(host.output.begin(), host.output.end(), gpu.output.begin()).first - host.output.begin();
  std::printf("DIFFERS %s: %s\n", what.c_str(),
              host.output == gpu.output ? "in its results"
                                        : text("from byte %lld on", static_cast<long long>(at)).c_str());
}

void check_copies() {
  std::mt19937 random(3);
  for (const int64_t bytes : {1, 15, 16, 17, 100, 4096, 70'001, 1'000'000})
    for (const int64_t src : {0, 1, 4, 7, 8})
      for (const int64_t dst : {0, 2, 3, 4, 8})
        check(text("copy %lld bytes, %lld to %lld", bytes, src, dst), [=](Lane& lane, auto&) {
          lane.copy_strided(after(kTarget, dst), after(kSource, src), {}, bytes);
        });
  for (const int64_t item : {1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 33, 40, 64, 100, 256}) {
    for (const auto& shape :
         {std::vector<int64_t>{130, 67}, {64, 64}, {33, 34}, {2, 1001}, {1001, 3}, {17, 16}, {4, 700}}) {
      if (shape[0] * shape[1] * item + 16 > kCheckBytes) continue;
      for (const int64_t align : {int64_t{0}, item, int64_t{1}})
        check(text("transpose %lld x %lld of %lld, at %lld", shape[0], shape[1], item, align),
              [=](Lane& lane, auto&) {
                if (align + shape[0] * shape[1] * item > kCheckBytes) return;
                lane.copy_strided(after(kTarget, align), after(kSource, align),
                                  permuted(shape, {1, 0}, item, item), item);
              });
    }
    std::vector<size_t> order = {0, 1, 2, 3};
    do {
      const std::vector<int64_t> shape =
          item < 8 ? std::vector<int64_t>{5, 18, 9, 33} : std::vector<int64_t>{3, 17, 4, 19};
      if (shape[0] * shape[1] * shape[2] * shape[3] * item > kCheckBytes) continue;
      check(text("permute to %d%d%d%d of %lld", static_cast<int>(order[0]), static_cast<int>(order[1]),
                 static_cast<int>(order[2]), static_cast<int>(order[3]), item),
            [=](Lane& lane, auto&) {
              lane.copy_strided(kTarget, kSource, permuted(shape, order, item, item), item);
            });
    } while (std::next_permutation(order.begin(), order.end()));
    check(text("rows with gaps of %lld", item), [=](Lane& lane, auto&) {
      const CopyLoop loops[] = {{50, 7 * (item + 3), 60 * (item + 5)}, {7, item + 3, item + 5}};
      if (50 * 60 * (item + 5) <= 2 * kCheckBytes) lane.copy_strided(kTarget, kSource, loops, item);
    });
  }
  check("many boxes", [](Lane& lane, auto&) {
    for (int64_t i = 0; i < 1000; ++i)
      lane.copy_strided(after(kTarget, i * 700), after(kSource, (999 - i) * 600), {}, 1 + i % 599);
  });
}

void check_numbers() {
  for (const DType from : kFloats)
    for (const DType to : kFloats) {
      const int64_t a = item_size(from), b = item_size(to),
                    all = std::min(kCheckBytes / a, 2 * kCheckBytes / b) - 4;
      for (const int64_t src : {int64_t{0}, a, int64_t{1}})
        for (const int64_t dst : {int64_t{0}, b, int64_t{1}})
          check(
              text("cast %s to %s, %lld to %lld", name(from).c_str(), name(to).c_str(), src, dst),
              [=](Lane& lane, auto&) { lane.cast(after(kTarget, dst), to, after(kSource, src), from, all); });
      for (const int64_t row : {1, 3, 64, 101})
        check(text("strided cast %s to %s, rows of %lld", name(from).c_str(), name(to).c_str(), row),
              [=](Lane& lane, auto&) {
                lane.cast_strided(kTarget, to, kSource, from, permuted({3, 11, row}, {1, 0, 2}, a, b));
              });
    }
  for (const DType dtype : kArithmetic) {
    const int64_t item = item_size(dtype), half = kCheckBytes / 2, count = half / item - 3;
    for (const int64_t at : {int64_t{0}, item, int64_t{1}}) {
      const auto each = [&](const char* what, auto&& act) {
        check(text("%s %s, at %lld", what, name(dtype).c_str(), at), [=](Lane& lane, auto&) {
          lane.copy_strided(after(kTarget, at), kSource, {}, half);
          act(lane);
        });
      };
      each("add", [=](Lane& lane) { lane.add(after(kTarget, at), after(kSource, 131'072), dtype, count); });
      each("divide", [=](Lane& lane) { lane.divide(after(kTarget, at), 3, dtype, count); });
      each("scale", [=](Lane& lane) { lane.scale(after(kTarget, at), 1.7, -0.3, dtype, count); });
      each("only multiply", [=](Lane& lane) { lane.scale(after(kTarget, at), 0.001, 0, dtype, count); });
    }
  }
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const int64_t item = std::max(1, item_size(dtype));
    for (int flags = 1; flags < 8; ++flags)
      for (const int64_t at : {int64_t{0}, item, int64_t{1}})
        check(text("flags %d of %s, at %lld", flags, name(dtype).c_str(), at), [=](Lane& lane, auto&) {
          lane.copy_strided(after(kTarget, at), kSource, {}, kCheckBytes);
          lane.apply_flags(after(kTarget, at), kCheckBytes / item - 1, dtype, static_cast<uint8_t>(flags));
        });
    for (const bool differ : {false, true})
      for (const int64_t at : {int64_t{0}, int64_t{1}})
        check(text("compare %s, at %lld", name(dtype).c_str(), at),
              [=](Lane& lane, std::vector<int>& results) {
                lane.copy_strided(after(kTarget, at), kSource, {}, kCheckBytes);
                if (differ) lane.clear(after(kTarget, 300'000), 77);
                results.push_back(
                    lane.compare_rounded(kSource, dtype, after(kTarget, at), dtype, kCheckBytes / item - 5));
              });
  }
  for (const DType narrow : {DType::kF16, DType::kBF16})
    for (const bool differ : {false, true})
      check(text("compare fp32 with %s", name(narrow).c_str()), [=](Lane& lane, std::vector<int>& results) {
        lane.cast(kTarget, narrow, kSource, DType::kF32, kCheckBytes / 4);
        if (differ) lane.clear(after(kTarget, 200'000), 77);
        results.push_back(lane.compare_rounded(kSource, DType::kF32, kTarget, narrow, kCheckBytes / 4));
      });
}

void check_crcs() {
  check("crcs", [](Lane& lane, std::vector<int>& results) {
    for (int64_t size = 0; size < 300; ++size) {
      results.push_back(lane.crc32_raw(after(kSource, size % 19), size));
      results.push_back(lane.crc64_raw(after(kSource, size % 17), size));
    }
    for (const int64_t size : {4096, 4097, 65'536, 300'001, 1'000'000}) {
      results.push_back(lane.crc32_raw(after(kSource, size % 19), size));
      results.push_back(lane.crc64_raw(after(kSource, size % 17), size));
    }
  });
}

// ---- Rates.

constexpr int64_t kLarge = int64_t{512} << 20;  // of a kernel's larger side
constexpr double kGoal = 0.85;
std::unique_ptr<Lane> lane;  // its kFilled and kOther are of 2 * kLarge
void *copy_from = nullptr, *copy_to = nullptr;
int missed = 0;

double seconds(const std::function<void()>& work) {
  const auto begun = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

// `bytes` read and written; beside the device's copy of half of them.
void rate(const std::string& what, int64_t bytes, const std::function<void()>& work) {
  if (what.find(wanted) == std::string::npos) return;
  const int repeats = static_cast<int>(std::clamp<int64_t>((int64_t{4} << 30) / bytes, 2, 200));
  double kernel = 1e9, copy = 1e9;
  for (int round = 0; round < 4; ++round) {  // the first one warms up
    const double k = seconds([&] {
      for (int i = 0; i < repeats; ++i) work();
      lane->wait();
    });
    const double c = seconds([&] {
      for (int i = 0; i < repeats; ++i)
        cudaMemcpyAsync(copy_to, copy_from, static_cast<size_t>(bytes / 2), cudaMemcpyDeviceToDevice,
                        nullptr);
      cudaStreamSynchronize(nullptr);
    });
    if (round > 0) kernel = std::min(kernel, k), copy = std::min(copy, c);
  }
  const double all = static_cast<double>(bytes) * repeats * 1e-9, ratio = copy / kernel;
  missed += ratio < kGoal;
  std::printf("%-44s %8.0f %8.0f %6.2f%s\n", what.c_str(), all / kernel, all / copy, ratio,
              ratio < kGoal ? "  <" : "");
  std::fflush(stdout);
}

void rate_copies() {
  for (const int64_t align : {0, 4, 1})
    rate(text("copy, from a place at %lld", align), 2 * kLarge,
         [=] { lane->copy_strided(kTarget, after(kSource, align), {}, kLarge); });
  rate("copy, to a place at 2", 2 * kLarge,
       [] { lane->copy_strided(after(kTarget, 2), kSource, {}, kLarge); });
  for (const int64_t run : {8, 16, 32, 33, 64, 100, 128, 256, 1024, 4096}) {
    const int64_t n = kLarge / run / 4;
    const CopyLoop join[] = {{4, n * run, run}, {n, run, 4 * run}};
    rate(text("join 4 column shards, %lld B", run), 8 * n * run,
         [=] { lane->copy_strided(kTarget, kSource, join, run); });
  }
  for (const int64_t item : {1, 2, 4, 8, 16}) {
    const int64_t columns = kLarge / item / 8192;
    rate(text("transpose 8192 x %lld of %lld B", columns, item), 2 * kLarge, [=] {
      lane->copy_strided(kTarget, kSource, permuted({8192, columns}, {1, 0}, item, item), item);
    });
    const int64_t odd = kLarge / item / 8191;
    rate(text("transpose odd, 8191 x %lld of %lld B", odd, item), 2 * 8191 * odd * item, [=] {
      lane->copy_strided(kTarget, kSource, permuted({8191, odd}, {1, 0}, item, item), item);
    });
  }
  for (const int64_t item : {2, 4}) {
    const int64_t m = kLarge / item >> 14;
    rate(text("permute 0,2,1 of 128 x 128 of %lld B", item), 2 * kLarge, [=] {
      lane->copy_strided(kTarget, kSource, permuted({m, 128, 128}, {0, 2, 1}, item, item), item);
    });
    rate(text("permute 2,1,0 of %lld B", item), 2 * kLarge, [=] {
      lane->copy_strided(kTarget, kSource, permuted({m, 128, 128}, {2, 1, 0}, item, item), item);
    });
  }
  for (const int64_t item : {1, 2, 4, 8})
    for (const int64_t ways : {2, 3, 4}) {
      const int64_t n = kLarge / item / ways / 4 * 4;
      rate(text("take apart %lld ways of %lld B", ways, item), 2 * n * ways * item, [=] {
        lane->copy_strided(kTarget, kSource, permuted({n, ways}, {1, 0}, item, item), item);
      });
      rate(text("put together %lld ways of %lld B", ways, item), 2 * n * ways * item, [=] {
        lane->copy_strided(kTarget, kSource, permuted({ways, n}, {1, 0}, item, item), item);
      });
    }
  for (const int64_t bytes : {4096, 65'536, 1 << 20})
    rate(text("boxes of %lld KiB", bytes >> 10), 2 * 1024 * bytes / 4, [=] {
      for (int64_t i = 0; i < 256; ++i)
        lane->copy_strided(after(kTarget, i * bytes), after(kSource, (255 - i) * bytes), {}, bytes);
    });
}

void rate_numbers() {
  for (const DType from : kFloats)
    for (const DType to : kFloats) {
      if (from == to) continue;
      const int64_t a = item_size(from), b = item_size(to), n = kLarge / std::max(a, b);
      rate("cast " + name(from) + " to " + name(to), n * (a + b),
           [=] { lane->cast(kTarget, to, kSource, from, n); });
    }
  for (const DType to : {DType::kF32, DType::kF16}) {
    const int64_t b = item_size(to), heads = kLarge / 4 / 384 / 128;
    rate("cast bf16 to " + name(to) + ", blocks of Q, K, V", heads * 384 * 128 * (2 + b), [=] {
      lane->cast_strided(kTarget, to, kSource, DType::kBF16,
                         permuted({3, heads, 128 * 128}, {1, 0, 2}, 2, b));
    });
  }
  for (const DType dtype : kArithmetic) {
    const int64_t item = item_size(dtype), n = kLarge / item;
    rate("add " + name(dtype), 3 * kLarge, [=] { lane->add(kTarget, kSource, dtype, n); });
    rate("divide " + name(dtype), 2 * kLarge, [=] { lane->divide(kTarget, 1.0009765625, dtype, n); });
    rate("scale " + name(dtype), 2 * kLarge, [=] { lane->scale(kTarget, 0.999, 1e-3, dtype, n); });
  }
  for (const DType dtype : {DType::kF16, DType::kF32, DType::kF64}) {
    const int64_t n = kLarge / item_size(dtype);
    rate("swap bytes of " + name(dtype), 2 * kLarge,
         [=] { lane->apply_flags(kTarget, n, dtype, kByteSwapped); });
  }
  rate("negate fp32", 2 * kLarge, [] { lane->apply_flags(kTarget, kLarge / 4, DType::kF32, kNegated); });
  for (const DType dtype : {DType::kU8, DType::kBF16, DType::kF32, DType::kF64}) {
    const int64_t n = kLarge / item_size(dtype);
    rate("compare " + name(dtype), 2 * kLarge,
         [=] { (void)lane->compare_rounded(kSource, dtype, kTarget, dtype, n); });
  }
  for (const DType dtype : {DType::kBF16, DType::kF16})
    rate("compare fp32 with " + name(dtype), kLarge / 4 * 6,
         [=] { (void)lane->compare_rounded(kSource, DType::kF32, kTarget, dtype, kLarge / 4); });
}

void rate_crcs() {
  for (const int64_t bytes : {kLarge, kLarge / 16, kLarge / 128}) {
    rate(text("crc32 of %lld MiB", bytes >> 20), bytes, [=] { (void)lane->crc32_raw(kSource, bytes); });
    rate(text("crc64 of %lld MiB", bytes >> 20), bytes, [=] { (void)lane->crc64_raw(kSource, bytes); });
  }
}

void rate_transfers() {
  const auto one = [](const char* what, auto&& work) {
    double best = 1e9;
    for (int i = 0; i < 4; ++i) best = std::min(best, seconds([&] { work(), lane->wait(); }));
    std::printf("%-44s %8.1f\n", what, static_cast<double>(kLarge) * 1e-9 / best);
  };
  one("host to device", [] { lane->upload(0, kLarge); });
  one("device to host", [] { lane->download(0, kLarge); });
}

// ---- A file that the device writes and reads itself, in pieces as a conversion's.

void check_direct(Device& gpu, Lane& on, int64_t bytes) {
  constexpr int64_t kPiece = 1 << 20, kPages = 4096;
  const int fd = ::open(".", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
  std::string why_not = fd < 0 ? "the file system here has no way past the page cache" : "";
  std::unique_ptr<DirectFile> file;
  if (fd >= 0) file = gpu.open_direct(fd, why_not);
  bool works = file != nullptr;
  if (works) {
    const auto in_pieces = [&](const std::function<bool(int64_t)>& move) {
      return seconds([&] {
        for (int64_t at = 0; works && at < bytes; at += kPiece) works = move(at);
      });
    };
    const auto tell = [&](const char* what, double took, bool is_same) {
      ++comparisons;
      if (!is_same) ++failures, std::printf("DIFFERS %s\n", what);
      std::printf("%-44s %8.1f\n", what, static_cast<double>(bytes) * 1e-9 / took);
    };
    const auto fetched = [&] {
      on.copy_strided({Region::kOutput, 0}, {Region::kInput, 0}, {}, bytes);
      on.download(0, bytes);
      on.wait();
      return Bytes(on.output().begin(), on.output().begin() + bytes);
    };
    on.upload(0, bytes);
    const Bytes expected = fetched();
    const double wrote = in_pieces([&](int64_t at) { return on.write_direct(*file, at, at, kPiece); });
    if (works) {
      auto* const found = static_cast<uint8_t*>(std::aligned_alloc(kPages, kPiece));
      bool is_same = true;
      for (int64_t at = 0; at < bytes; at += kPiece)
        is_same &= ::pread(fd, found, kPiece, at) == kPiece &&
                   std::equal(found, found + kPiece, expected.begin() + at);
      std::free(found);
      tell("GPUDirect Storage, device to file", wrote, is_same);
      on.clear({Region::kInput, 0}, bytes);
      on.wait();
      const double read = in_pieces([&](int64_t at) { return on.read_direct(*file, at, at, kPiece); });
      if (works) tell("GPUDirect Storage, file to device", read, fetched() == expected);
    }
    if (!works) why_not = gpu.why_not_direct();
  }
  if (!works) std::printf("GPUDirect Storage is not used here, because %s\n", why_not.c_str());
  file.reset();
  if (fd >= 0) ::close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--only") wanted = argv[2];
  const Devices devices = find_devices();
  if (devices.found.empty()) {
    std::printf("gpu-check: no GPU: %s\n", devices.why_none.c_str());
    return 2;
  }
  try {
    const std::unique_ptr<Device> gpu = open_device(devices.found[0].number);
    const DeviceInfo& info = gpu->info();
    std::printf("cuda:%d %s, capability %d.%d, %.1f GB\n", info.number, info.name.c_str(), info.major,
                info.minor, static_cast<double>(info.memory) * 1e-9);
    kernels::testing::EmulatedDevice host;
    const LaneSizes sizes{{kCheckBytes, 2 * kCheckBytes, 2 * kCheckBytes + 4096, 2 * kCheckBytes}};
    host_lane = host.make_lane(sizes);
    gpu_lane = gpu->make_lane(sizes);
    check_source = source_bytes(kCheckBytes, 1);
    const double took = seconds([] {
      check_copies();
      check_numbers();
      check_crcs();
    });
    std::printf("%lld comparisons with the host, %lld differ, %.0f s\n\n",
                static_cast<long long>(comparisons), static_cast<long long>(failures), took);
    gpu_lane.reset();

    cudaMalloc(&copy_from, 3 * kLarge / 2);
    cudaMalloc(&copy_to, 3 * kLarge / 2);
    lane = gpu->make_lane({{kLarge, 2 * kLarge, 2 * kLarge, kLarge}});
    const Bytes some = source_bytes(16 << 20, 2);
    for (int64_t at = 0; at < kLarge; at += 16 << 20)
      std::copy(some.begin(), some.end(), lane->input().begin() + at);
    lane->upload(0, kLarge);
    for (const Region region : {Region::kFilled, Region::kOther})
      for (int64_t half = 0; half < 2; ++half)
        lane->copy_strided({region, half * kLarge}, {Region::kInput, 0}, {}, kLarge);
    lane->wait();
    std::printf("%-44s %8s %8s %6s   (GB/s read and written; the goal is %.2f)\n", "", "kernel", "memcpy",
                "ratio", kGoal);
    rate_transfers();
    check_direct(*gpu, *lane, kLarge);
    rate_copies();
    rate_numbers();
    rate_crcs();
    std::printf("\n%d under the goal\n", missed);
    lane.reset();
    cudaFree(copy_from);
    cudaFree(copy_to);
  } catch (const Error& e) {
    std::printf("gpu-check: %s\n", e.line().c_str());
    return 1;
  }
  return failures == 0 ? 0 : 1;
}
