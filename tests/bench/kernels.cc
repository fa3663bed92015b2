// How fast each kernel is beside a memcpy that moves as many bytes. Usage: kernel_bench [--json FILE]
// [PART_OF_A_NAME]
//
// "far": a working set far beyond the last cache, in calls of 1 MiB of destination, as the executor makes
// them (a transpose in one call). "near": one such call over and over, its buffers in the caches. Rates are
// of bytes touched, read and written both, as a memcpy of n bytes touches 2n; the two take turns in one
// process, medians of both.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/kernels/arithmetic.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/crc.h"
#include "lib/kernels/differences.h"
#include "lib/kernels/elements.h"
#include "lib/kernels/numbers.h"
#include "lib/kernels/statistics.h"

using namespace uckpt;
using kernels::CopyLoop;

namespace {

constexpr int64_t kWindow = 1 << 20, kFar = 128 << 20;  // of the larger side of a kernel

struct Timed {
  double kernel = 0, copy = 0;  // GB/s
};
struct Row {
  std::string name;
  Timed far, near;
};
// One call on window `w`; `touched` bytes each.
struct Call {
  int64_t touched = 0, windows = 1;
  std::function<void(int64_t w)> run;
};

Bytes a, b, out, numbers_of[kDTypeCount];
Bytes copy_from, copy_to;
volatile uint64_t sink;

// Of this thread's own time, since others may want the machine.
double seconds(const std::function<void()>& work) {
  const auto now = [] {
    timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double begun = now();
  work();
  return now() - begun;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// Both go over as many windows, `repeats` times.
Timed timed(const Call& call, int rounds, int64_t repeats) {
  const int64_t half = call.touched / 2;
  const auto each = [&](const std::function<void(int64_t)>& run) {
    return seconds([&] {
      for (int64_t r = 0; r < repeats; ++r)
        for (int64_t w = 0; w < call.windows; ++w) run(w);
    });
  };
  std::vector<double> kernel, copy;
  for (int i = 0; i < rounds; ++i) {
    kernel.push_back(each(call.run));
    copy.push_back(each([&](int64_t w) {
      std::memcpy(copy_to.data() + w * half, copy_from.data() + w * half, static_cast<size_t>(half));
      sink = copy_to[static_cast<size_t>(w * half)];
    }));
  }
  const double bytes = static_cast<double>(call.touched * call.windows * repeats);
  return {bytes / median(kernel) / 1e9, bytes / median(copy) / 1e9};
}

std::vector<Row> rows;
std::string_view wanted;

void add(const std::string& name, const Call& far, const Call& near) {
  if (name.find(wanted) == std::string::npos) return;
  Row row{name, timed(far, 5, 1), timed(near, 9, std::max<int64_t>(1, (16 << 20) / near.touched))};
  std::printf("%-34s %8.1f %8.1f %6.2f   %8.1f %8.1f %6.2f\n", name.c_str(), row.far.kernel, row.far.copy,
              row.far.kernel / row.far.copy, row.near.kernel, row.near.copy, row.near.kernel / row.near.copy);
  std::fflush(stdout);
  rows.push_back(std::move(row));
}

// A kernel over elements back to back: `run` gets the first element and how many.
void add_flat(const std::string& name, int64_t touched_an_element, int64_t largest,
              const std::function<void(int64_t first, int64_t count)>& run) {
  const int64_t count = kWindow / largest;
  const auto call = [&](int64_t windows) {
    return Call{touched_an_element * count, windows, [=](int64_t w) { run(w * count, count); }};
  };
  add(name, call(kFar / kWindow), call(1));
}

// A nest that reads and writes each byte of its two ranges once, by one call for each value of the outermost
// loop where `by_calls`. `far` of them follow each other.
struct Nest {
  std::vector<CopyLoop> loops;
  size_t item;
  int64_t bytes() const {
    auto n = static_cast<int64_t>(item);
    for (const CopyLoop& l : loops) n *= l.count;
    return n;
  }
};
void add_nest(const std::string& name, const Nest& far, int64_t windows, const Nest& near,
              bool by_calls = false) {
  const auto call = [by_calls](const Nest& nest, int64_t n) {
    return Call{2 * nest.bytes(), n, [nest, by_calls](int64_t w) {
                  const uint8_t* src = a.data() + w * nest.bytes();
                  uint8_t* dst = out.data() + w * nest.bytes();
                  if (!by_calls) return kernels::copy_strided(dst, src, nest.loops, nest.item);
                  const CopyLoop& first = nest.loops[0];
                  for (int64_t i = 0; i < first.count; ++i)
                    kernels::copy_strided(dst + i * first.dst_stride, src + i * first.src_stride,
                                          std::span(nest.loops).subspan(1), nest.item);
                }};
  };
  add(name, call(far, windows), call(near, 1));
}

// dst = src with its axes in the given order; all dense.
Nest permuted(std::vector<int64_t> shape, const std::vector<size_t>& order, size_t item) {
  std::vector<int64_t> strides(shape.size());
  auto stride = static_cast<int64_t>(item);
  for (size_t d = shape.size(); d-- > 0; stride *= shape[d]) strides[d] = stride;
  Nest nest{std::vector<CopyLoop>(shape.size()), item};
  stride = static_cast<int64_t>(item);
  for (size_t d = shape.size(); d-- > 0; stride *= shape[order[d]])
    nest.loops[d] = {shape[order[d]], strides[order[d]], stride};
  // The executor hands them over by falling source stride.
  std::stable_sort(nest.loops.begin(), nest.loops.end(),
                   [](const CopyLoop& x, const CopyLoop& y) { return x.src_stride > y.src_stride; });
  return nest;
}

void casts() {
  const DType types[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};
  for (const DType from : types)
    for (const DType to : types) {
      if (from == to || !kernels::can_cast(from, to)) continue;
      const int64_t m = item_size(from), n = item_size(to);
      const uint8_t* src = numbers_of[static_cast<size_t>(from)].data();
      add_flat("cast " + std::string(name_of(from)) + " to " + std::string(name_of(to)), m + n,
               std::max(m, n), [=](int64_t first, int64_t count) {
                 kernels::cast(src + first * m, from, out.data() + first * n, to, count);
               });
    }
}

void strided() {
  constexpr int64_t kShards = 4;
  for (const int64_t run : {4, 8, 12, 16, 32, 48, 64, 128, 256, 512, 1024, 4096}) {
    const int64_t n = kWindow / (kShards * run);
    const std::string text = std::to_string(run) + " B";
    const Nest join{{{kShards, n * run, run}, {n, run, kShards * run}, {run / 4, 4, 4}}, 4},
        split{{{kShards, run, n * run}, {n, kShards * run, run}, {run / 4, 4, 4}}, 4};
    add_nest("join 4 column shards, " + text, join, kFar / kWindow, join, true);
    add_nest("split 4 column shards, " + text, split, kFar / kWindow, split, true);
  }
  for (const int64_t item : {1, 2, 4, 8}) {
    const auto i = static_cast<size_t>(item);
    const std::string text = " of " + std::to_string(item) + " B";
    const int64_t rows_far = 4096, columns_far = kFar / item / rows_far;
    add_nest("transpose 4096 x " + std::to_string(columns_far) + text,
             permuted({rows_far, columns_far}, {1, 0}, i), 1,
             permuted({512, kWindow / item / 512}, {1, 0}, i));
    add_nest("transpose odd, " + std::to_string(kFar / item / 1021) + " x 1021" + text,
             permuted({kFar / item / 1021, 1021}, {1, 0}, i), 1,
             permuted({kWindow / item / 509, 509}, {1, 0}, i));
    add_nest("transpose tall, 37 wide" + text, permuted({kFar / item / 37, 37}, {1, 0}, i), 1,
             permuted({kWindow / item / 37, 37}, {1, 0}, i));
  }
  for (const int64_t item : {2, 4}) {
    const auto i = static_cast<size_t>(item);
    const std::string text = " of " + std::to_string(item) + " B";
    const int64_t m = kFar / item >> 14, n = kWindow / item >> 12;
    add_nest("permute 0,2,1" + text, permuted({m, 128, 128}, {0, 2, 1}, i), 1,
             permuted({n, 64, 64}, {0, 2, 1}, i));
    add_nest("permute 2,1,0" + text, permuted({m, 128, 128}, {2, 1, 0}, i), 1,
             permuted({n, 64, 64}, {2, 1, 0}, i));
    add_nest("permute 1,0,2" + text, permuted({m, 128, 128}, {1, 0, 2}, i), 1,
             permuted({n, 64, 64}, {1, 0, 2}, i));
    add_nest("permute 2,0,1" + text, permuted({m, 128, 128}, {2, 0, 1}, i), 1,
             permuted({n, 64, 64}, {2, 0, 1}, i));
    // [3, heads, 128] to [heads, 3, 128]: blocks of Q, K and V; SwiGLU's halves by rows.
    const Nest qkv = permuted({3, kWindow / item / 384, 128}, {1, 0, 2}, i);
    add_nest("interleave QKV, 128" + text, qkv, kFar / kWindow, qkv);
    for (const int64_t ways : {2, 3}) {
      const int64_t each = kWindow / item / ways;
      const Nest together = permuted({ways, each}, {1, 0}, i), apart = permuted({each, ways}, {1, 0}, i);
      add_nest("interleave " + std::to_string(ways) + text, together, kFar / kWindow, together);
      add_nest("de-interleave " + std::to_string(ways) + text, apart, kFar / kWindow, apart);
      const Nest one_by_one{{apart.loops[1], apart.loops[0]}, i};
      add_nest("de-interleave " + std::to_string(ways) + text + ", one by one", one_by_one, kFar / kWindow,
               one_by_one, true);
      const Nest back{{together.loops[0], together.loops[1]}, i};
      add_nest("interleave " + std::to_string(ways) + text + ", one by one", back, kFar / kWindow, back,
               true);
    }
  }
}

void arithmetic() {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64}) {
    const int64_t n = item_size(dtype);
    const std::string text = " " + std::string(name_of(dtype));
    const uint8_t* other = numbers_of[static_cast<size_t>(dtype)].data();
    std::memcpy(out.data(), other, out.size());
    add_flat("add" + text, 3 * n, n, [=](int64_t i, int64_t count) {
      kernels::add(out.data() + i * n, other + i * n, dtype, count);
    });
    std::memcpy(out.data(), other, out.size());
    add_flat("divide" + text, 2 * n, n, [=](int64_t i, int64_t count) {
      kernels::divide(out.data() + i * n, 1.0009765625, dtype, count);
    });
    std::memcpy(out.data(), other, out.size());
    add_flat("scale" + text, 2 * n, n, [=](int64_t i, int64_t count) {
      kernels::scale(out.data() + i * n, 0.9990234375, 1e-3, dtype, count);
    });
  }
}

void comparisons() {
  struct Pair {
    DType wide, narrow;
    bool one_differs;
  };
  for (const Pair p : {Pair{DType::kF32, DType::kF32, false}, Pair{DType::kF32, DType::kF32, true},
                       Pair{DType::kBF16, DType::kBF16, true}, Pair{DType::kF64, DType::kF64, true},
                       Pair{DType::kI64, DType::kI64, true}, Pair{DType::kF32, DType::kBF16, false},
                       Pair{DType::kF32, DType::kF16, false}, Pair{DType::kF32, DType::kBF16, true}}) {
    const int64_t m = item_size(p.wide), n = item_size(p.narrow);
    const uint8_t *wide = numbers_of[static_cast<size_t>(p.wide)].data(),
                  *narrow = numbers_of[static_cast<size_t>(p.narrow)].data();
    std::memcpy(b.data(), narrow, b.size());
    if (p.one_differs)
      for (size_t at = 0; at < b.size(); at += static_cast<size_t>(kWindow) / 8) b[at] ^= 1;
    add_flat("compare_rounded " + std::string(name_of(p.wide)) + " " + std::string(name_of(p.narrow)) +
                 (p.one_differs ? ", few differ" : ""),
             m + n, m, [=](int64_t i, int64_t count) {
               sink = static_cast<uint64_t>(
                   kernels::compare_rounded(wide + i * m, p.wide, b.data() + i * n, p.narrow, count).count);
             });
    if (p.wide == DType::kF32 && p.narrow == DType::kF16) continue;
    add_flat("compare_values " + std::string(name_of(p.wide)) + " " + std::string(name_of(p.narrow)) +
                 (p.one_differs ? ", few differ" : ""),
             m + n, m, [=](int64_t i, int64_t count) {
               sink = static_cast<uint64_t>(kernels::compare_values(wide + i * m, p.wide, b.data() + i * n,
                                                                    p.narrow, count, {1e-6, 1e-2})
                                                .within);
             });
  }
}

void sums() {
  add_flat("crc32", 1, 1, [](int64_t i, int64_t count) {
    sink = kernels::crc32_raw({a.data() + i, static_cast<size_t>(count)});
  });
  add_flat("crc64", 1, 1, [](int64_t i, int64_t count) {
    sink = kernels::crc64_raw({a.data() + i, static_cast<size_t>(count)});
  });
  add_flat("crc64, 4 KiB at a time", 1, 1, [](int64_t i, int64_t count) {
    for (int64_t at = i; at < i + count; at += 4096) sink = kernels::crc64_raw({a.data() + at, 4096});
  });
}

void numbers() {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3,
                            DType::kF8E5M2, DType::kI64, DType::kI32, DType::kI8, DType::kBool}) {
    const int64_t n = item_size(dtype);
    const auto d = static_cast<size_t>(dtype);
    const uint8_t* src = numbers_of[d].empty() ? a.data() : numbers_of[d].data();
    const std::string text = " " + std::string(name_of(dtype));
    add_flat("to_doubles" + text, n + 8, 8, [=](int64_t i, int64_t count) {
      kernels::to_doubles(src + i * n, dtype, count, reinterpret_cast<double*>(out.data()) + i);
    });
    add_flat("statistics_of" + text, n, n, [=](int64_t i, int64_t count) {
      for (int64_t at = i; at < i + count; at += kernels::kStatisticsBlock)
        sink = static_cast<uint64_t>(
            kernels::statistics_of(src + at * n, dtype, std::min(kernels::kStatisticsBlock, i + count - at))
                .zeros);
    });
  }
}

// What trained weights are like, in each type; random bytes in `a`.
void fill() {
  constexpr auto kSize = static_cast<size_t>(kFar);
  for (Bytes* bytes : {&a, &b, &out, &copy_from, &copy_to}) bytes->resize(kSize + kSize / 2);
  std::mt19937_64 random(1);
  for (size_t i = 0; i + 8 <= a.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(a.data() + i, &word, 8);
  }
  std::normal_distribution<float> weights(0, 0.02F);
  std::vector<float> some(1 << 20);
  for (float& x : some) x = weights(random);
  for (const DType dtype :
       {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI64}) {
    Bytes& bytes = numbers_of[static_cast<size_t>(dtype)];
    bytes.resize(kSize + kSize / 2);
    const auto part = some.size() * static_cast<size_t>(item_size(dtype));
    if (dtype == DType::kI64)
      std::memcpy(bytes.data(), a.data(), part);
    else
      kernels::cast(reinterpret_cast<const uint8_t*>(some.data()), DType::kF32, bytes.data(), dtype,
                    static_cast<int64_t>(some.size()));
    for (size_t at = part; at < bytes.size(); at += part)
      std::memcpy(bytes.data() + at, bytes.data(), std::min(part, bytes.size() - at));
  }
}

bool write_json(const char* path) {
  std::FILE* file = std::fopen(path, "w");
  if (file == nullptr) return false;
  const char* before = "[\n";
  for (const Row& r : rows) {
    std::fprintf(file, "%s  {\"name\": \"%s\", \"far\": {\"gb_s\": %.2f, \"memcpy_gb_s\": %.2f}, ", before,
                 r.name.c_str(), r.far.kernel, r.far.copy);
    std::fprintf(file, "\"near\": {\"gb_s\": %.2f, \"memcpy_gb_s\": %.2f}}", r.near.kernel, r.near.copy);
    before = ",\n";
  }
  std::fprintf(file, "%s]\n", rows.empty() ? "[" : "\n");
  return std::fclose(file) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* json = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--json" && i + 1 < argc)
      json = argv[++i];
    else
      wanted = argv[i];
  }
  fill();
  std::printf(
      "GB/s of bytes touched, read and written both, as a memcpy of n bytes touches 2n. far: %lld MiB a side "
      "in\n"
      "calls of 1 MiB (transposes and permutes in one call); near: one call of 1 MiB over and over.\n\n",
      static_cast<long long>(kFar >> 20));
  std::printf("%-34s %8s %8s %6s   %8s %8s %6s\n", "", "far", "memcpy", "ratio", "near", "memcpy", "ratio");
  casts();
  strided();
  arithmetic();
  comparisons();
  sums();
  numbers();
  if (json != nullptr && !write_json(json)) {
    std::fprintf(stderr, "%s: cannot be written\n", json);
    return 2;
  }
  return 0;
}
