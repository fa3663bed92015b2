// Which sizes of tasks and reads move each shape of copy fastest: what the table in lib/exec/copy_rules.h
// rests on. Usage: copy_shapes FOLDER [MIB [ROUNDS [SHAPE]]]
//
// Inputs of MIB mebibytes (default 512) are made in FOLDER and stay in the page cache; every shape is copied
// with every size in turn, between copies of the same bytes by `cp`, memory touched and freed before each
// round. Prints medians and their ratio to cp's.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "lib/base/text.h"
#include "lib/exec/executor.h"
#include "lib/io/input.h"
#include "tests/unit/exec/quiet_progress.h"

using namespace uckpt;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kParts = 8;

struct Job {
  std::string name;
  Catalog catalog;
  TargetLayout target;
  plan::Plan plan;
};

class Maker {
 public:
  Maker(fs::path folder, int64_t mib) : folder_(std::move(folder)), bytes_(mib << 20) {
    fs::create_directories(folder_ / "in");
    for (int64_t i = 0; i < kParts; ++i) make_part(i);
  }

  // Every part holds that many columns of the tensor.
  Job columns(int64_t run) const {
    Job job{cat("columns of ", human_bytes(static_cast<uint64_t>(run))), parts(), {}, {}};
    const int64_t width = run / 4, rows = bytes_ / kParts / run;
    add_tensor(job, {rows, width * kParts}, [&] {
      for (int64_t i = 0; i < kParts; ++i) {
        const Axis box[] = {{rows, 0, rows, width}, {width * kParts, i * width, width, 1}};
        job.catalog.add_piece(static_cast<FileId>(i), kNoRecord, 0, box);
      }
    });
    return into(std::move(job), 1, DType::kF32);
  }
  // Every part holds columns, and the whole is stored transposed.
  Job transposed(int64_t rows) const {
    Job job{cat("transposed, rows of ", human_bytes(static_cast<uint64_t>(bytes_ / rows))), parts(), {}, {}};
    const int64_t width = bytes_ / 4 / rows / kParts;
    add_tensor(job, {rows, width * kParts}, [&] {
      for (int64_t i = 0; i < kParts; ++i) {
        const Axis box[] = {{rows, 0, rows, 1}, {width * kParts, i * width, width, rows}};
        job.catalog.add_piece(static_cast<FileId>(i), kNoRecord, 0, box);
      }
    });
    return into(std::move(job), 1, DType::kF32);
  }
  Job runs(std::string name, int64_t files, DType written) const {
    Job job{std::move(name), parts(), {}, {}};
    const int64_t part = bytes_ / kParts / 4;
    add_tensor(job, {part * kParts}, [&] {
      for (int64_t i = 0; i < kParts; ++i)
        job.catalog.add_flat(static_cast<FileId>(i), kNoRecord, 0, part * kParts, i * part, part);
    });
    return into(std::move(job), files, written);
  }
  Job small(int64_t size) const {
    Job job{cat("tensors of ", human_bytes(static_cast<uint64_t>(size))), parts(), {}, {}};
    const int64_t each = bytes_ / kParts / size;
    for (int64_t i = 0; i < each * kParts; ++i) {
      add_tensor(job, {size / 4}, [&] {
        job.catalog.add_flat(static_cast<FileId>(i / each), kNoRecord, i % each * size, size / 4, 0,
                             size / 4);
      });
    }
    return into(std::move(job), 1, DType::kF32);
  }

  fs::path input() const { return folder_ / "in"; }
  fs::path output() const { return folder_ / "out"; }

 private:
  void make_part(int64_t i) const {
    const fs::path path = part_path(i);
    const int64_t size = bytes_ / kParts;
    if (fs::exists(path) && fs::file_size(path) == static_cast<uintmax_t>(size)) return;
    std::mt19937_64 random(static_cast<uint64_t>(i));
    std::vector<uint64_t> block(1 << 17);
    std::ofstream out(path, std::ios::binary);
    for (int64_t at = 0; at < size; at += static_cast<int64_t>(block.size() * 8)) {
      for (uint64_t& word : block) word = random() & 0xBFFFFFFFBFFFFFFF;  // finite as floats
      out.write(reinterpret_cast<const char*>(block.data()),
                std::min<int64_t>(size - at, static_cast<int64_t>(block.size() * 8)));
    }
  }
  fs::path part_path(int64_t i) const { return folder_ / "in" / cat("part", i); }
  Catalog parts() const {
    Catalog c;
    for (int64_t i = 0; i < kParts; ++i) c.add_file(InputFile::open(part_path(i)));
    return c;
  }
  static void add_tensor(Job& job, Shape shape, const std::function<void()>& pieces) {
    Tensor t{};
    t.name = cat("t", job.catalog.tensors.size());
    t.state = "param";
    t.dtype = DType::kF32;
    t.shape = std::move(shape);
    const uint32_t mark = job.catalog.piece_mark();
    pieces();
    t.pieces = job.catalog.pieces_since(mark);
    job.catalog.tensors.push_back(std::move(t));
  }
  // All tensors one behind the other, over that many files.
  static Job into(Job job, int64_t files, DType written) {
    for (int64_t f = 0; f < files; ++f) job.target.files.push_back({cat("f", f), 0, {}, {}});
    for (uint32_t t = 0; t < job.catalog.tensors.size(); ++t) {
      const uint32_t shard = job.target.add_whole_shard(job.catalog, t);
      const int64_t numel = job.target.shards[shard].numel, share = numel / files;
      for (int64_t f = 0; f < files; ++f) {
        int64_t& size = job.target.files[static_cast<size_t>(f)].size;
        const int64_t count = f + 1 == files ? numel - f * share : share;
        job.target.holes.push_back({shard, static_cast<uint32_t>(f), size, f * share, count, written});
        size += job.target.holes.back().bytes();
      }
    }
    job.plan = plan::make_plan(job.catalog, job.target, {});
    return job;
  }

  fs::path folder_;
  int64_t bytes_;
};

double seconds_of(const std::function<void()>& work) {
  const auto begun = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

void copy(const Job& job, const fs::path& out, exec::Buffers buffers) {
  test::Quiet quiet;
  const StopFlag stop{false};
  TargetLayout target = job.target;
  const Claim claim(out);
  const auto output = make_output(claim, true, false, LeftOver::kDiscarded);
  exec::preallocate(target, *output, buffers.threads);
  exec::run(job.catalog, target, job.plan, *output, buffers, {}, quiet, stop);
}

void run_cp(const Maker& maker) {
  const std::string command = cat("cp -r ", maker.input().string(), " ", maker.output().string());
  if (std::system(command.c_str()) != 0) std::exit(1);
  fs::remove_all(maker.output());
}

void warm_memory() {
  std::vector<char> block(size_t{1} << 30);
  for (size_t at = 0; at < block.size(); at += 4096) block[at] = 1;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

struct Sizes {
  int64_t task, staging;  // KiB
};

void measure(const Maker& maker, const Job& job, int rounds) {
  constexpr Sizes kSizes[] = {{256, 256},   {512, 512},   {1024, 256},  {1024, 1024}, {2048, 512},
                              {2048, 1024}, {4096, 1024}, {8192, 1024}, {8192, 4096}, {16384, 2048}};
  std::vector<double> of_cp;
  std::vector<std::vector<double>> seconds(std::size(kSizes));
  for (int round = 0; round < rounds; ++round) {
    warm_memory();
    of_cp.push_back(seconds_of([&] { run_cp(maker); }));
    for (size_t i = 0; i < std::size(kSizes); ++i) {
      const size_t s = (i + static_cast<size_t>(round)) % std::size(kSizes);
      exec::Buffers buffers = exec::size_buffers({});
      buffers.task_bytes = buffers.strided_bytes = kSizes[s].task << 10;
      buffers.staging_bytes = kSizes[s].staging << 10;
      seconds[s].push_back(seconds_of([&] { copy(job, maker.output(), buffers); }));
    }
  }
  std::printf("%s: cp %.3f s\n", job.name.c_str(), median(of_cp));
  for (size_t s = 0; s < std::size(kSizes); ++s)
    std::printf("  tasks of %5lld KiB, reads of %5lld KiB: %.2f x cp\n",
                static_cast<long long>(kSizes[s].task), static_cast<long long>(kSizes[s].staging),
                median(seconds[s]) / median(of_cp));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: copy_shapes FOLDER [MIB [ROUNDS [SHAPE]]]\n", stderr), 2;
  const Maker maker(argv[1], argc > 2 ? std::atoll(argv[2]) : 512);
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 5;
  const std::string_view only = argc > 4 ? argv[4] : "";
  const std::pair<const char*, std::function<Job()>> shapes[] = {
      {"runs", [&] { return maker.runs("runs", 1, DType::kF32); }},
      {"split", [&] { return maker.runs("runs into 8 files", 8, DType::kF32); }},
      {"cast", [&] { return maker.runs("cast to bf16", 1, DType::kBF16); }},
      {"small", [&] { return maker.small(1 << 14); }},
      {"columns64", [&] { return maker.columns(64); }},
      {"columns1k", [&] { return maker.columns(1 << 10); }},
      {"columns16k", [&] { return maker.columns(1 << 14); }},
      {"transposed4k", [&] { return maker.transposed(1 << 12); }},
      {"transposed16k", [&] { return maker.transposed(1 << 14); }},
  };
  for (const auto& [name, make] : shapes)
    if (only.empty() || only == name) measure(maker, make(), rounds);
  return 0;
}
