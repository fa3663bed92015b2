#include "lib/exec/device_choice.h"

#include <doctest/doctest.h>

using namespace uckpt;
using namespace uckpt::exec;

namespace {

constexpr double kGiga = 1e9;

Work work_of(Reshaping how, int64_t in, int64_t out) {
  Work w;
  w[how] = {in, out};
  return w;
}

// Numbers that are easy to reckon with: every rate 1 GB/s but for those of a test.
Rates even_rates(int threads) {
  Rates r;
  r.host = {threads, kGiga, kGiga, kGiga, {kGiga, kGiga}, {kGiga, kGiga}};
  r.device = {kGiga, kGiga, kGiga, kGiga, 0};
  return r;
}

constexpr int64_t kOneGB = 1'000'000'000;

}  // namespace

TEST_CASE("on the CPU a thread reads, computes and writes in turn, and the disk is shared") {
  // 4 s to read, 2 s to write, and a cast of 4 GB by 1 GB/s: 10 s of threads' time, 6 s of the disk's.
  const Work cast = work_of(Reshaping::kCast, 4 * kOneGB, 2 * kOneGB);
  Rates r = even_rates(1);
  CHECK(on_cpu(cast, r.host).seconds == doctest::Approx(10));
  CHECK(on_cpu(cast, r.host).bound == Bound::kThreads);
  r.host.threads = 2;  // 5 s each: the disk's 6 s count
  CHECK(on_cpu(cast, r.host).seconds == doctest::Approx(6));
  CHECK(on_cpu(cast, r.host).bound == Bound::kDisk);
  r.host.read.all = r.host.write.all = 2 * kGiga;  // the disk takes 3 s
  CHECK(on_cpu(cast, r.host).seconds == doctest::Approx(5));
  CHECK(on_cpu(cast, r.host).bound == Bound::kThreads);
  r.host.read.one = 4 * kGiga;  // 1 + 4 + 2 of the threads
  CHECK(on_cpu(cast, r.host).seconds == doctest::Approx(3.5));
  r.host.cast = 8 * kGiga;  // 1 + 0.5 + 2; the disk's 3 s count
  CHECK(on_cpu(cast, r.host).seconds == doctest::Approx(3));
  CHECK(on_cpu(cast, r.host).bound == Bound::kDisk);
}

TEST_CASE("each kind has its kernel, by the wider side; a copy has none") {
  const HostRates r{1, 0, 2 * kGiga, 4 * kGiga, {kGiga, kGiga}, {kGiga, kGiga}};
  CHECK(on_cpu(work_of(Reshaping::kCopied, kOneGB, kOneGB), r).seconds == doctest::Approx(2));
  CHECK(on_cpu(work_of(Reshaping::kStrided, kOneGB, kOneGB), r).seconds == doctest::Approx(2.5));
  CHECK(on_cpu(work_of(Reshaping::kCast, kOneGB, kOneGB / 2), r).seconds == doctest::Approx(1.75));
  CHECK(on_cpu(work_of(Reshaping::kCast, kOneGB / 2, kOneGB), r).seconds == doctest::Approx(1.75));
  CHECK(on_cpu(work_of(Reshaping::kMean, 4 * kOneGB, kOneGB), r).seconds == doctest::Approx(6));
}

TEST_CASE("with a device the slowest of files, both ways and kernels counts, and the start-up") {
  const Work cast = work_of(Reshaping::kCast, 8 * kOneGB, 4 * kOneGB);
  Rates r = even_rates(4);
  r.host.read = r.host.write = {4 * kGiga, 8 * kGiga};  // disk 1.5 s, threads 3 s of 4
  r.device = {16 * kGiga, 8 * kGiga, kGiga, 16 * kGiga, 0.25};
  CHECK(with_device(cast, r).seconds == doctest::Approx(1.5 + 0.25));
  CHECK(with_device(cast, r).bound == Bound::kDisk);
  r.host.threads = 1;
  CHECK(with_device(cast, r).seconds == doctest::Approx(3 + 0.25));
  CHECK(with_device(cast, r).bound == Bound::kThreads);
  r.device.upload = 2 * kGiga;
  CHECK(with_device(cast, r).seconds == doctest::Approx(4 + 0.25));
  CHECK(with_device(cast, r).bound == Bound::kUpload);
  r.device.download = 0.8 * kGiga;
  CHECK(with_device(cast, r).seconds == doctest::Approx(5 + 0.25));
  CHECK(with_device(cast, r).bound == Bound::kDownload);
  r.device.cast = kGiga;
  CHECK(with_device(cast, r).seconds == doctest::Approx(8 + 0.25));
  CHECK(with_device(cast, r).bound == Bound::kKernels);
}

TEST_CASE("what is only copied does not go to the device") {
  Work w = work_of(Reshaping::kStrided, kOneGB, kOneGB);
  w[Reshaping::kCopied] = {8 * kOneGB, 8 * kOneGB};
  Rates r = even_rates(1);
  r.host.read = r.host.write = {100 * kGiga, 100 * kGiga};
  r.device.strided = 2 * kGiga;
  CHECK(with_device(w, r).seconds == doctest::Approx(1));  // 1 GB up, 1 GB down
}

TEST_CASE("a device must win by a tenth") {
  // The CPU: 1 s to read, 1 s to write, 8 s to turn.
  const Work turned = work_of(Reshaping::kStrided, kOneGB, kOneGB);
  Rates r = even_rates(1);
  r.host.strided = kGiga / 8;
  REQUIRE(on_cpu(turned, r.host).seconds == doctest::Approx(10));
  r.device.start_up = 6.99;  // and 2 s of reading and writing
  CHECK(choose(turned, r, "cuda:0").device);
  CHECK(choose(turned, r, "cuda:0").why == "cuda:0 takes 9.0 s, the CPU would take 10 s");
  r.device.start_up = 7.01;
  CHECK(!choose(turned, r, "cuda:0").device);
  r.device.start_up = 1;
  r.device.upload = kGiga / 8;
  CHECK(choose(turned, r, "cuda:0").device == false);  // 8 s of 10 to get there, and 1 s: 9 s
  CHECK(choose(turned, r, "cuda:0").why == "cuda:0 would take 9.0 s, the CPU 10 s: bound by PCIe");
  r.device.upload = kGiga / 2;
  r.device.strided = kGiga / 12;
  CHECK(choose(turned, r, "cuda:1").why == "cuda:1 would take 13 s, the CPU 10 s: bound by its kernels");
}

TEST_CASE("what was not measured never wins") {
  const Work turned = work_of(Reshaping::kStrided, kOneGB, kOneGB);
  CHECK(!choose(turned, Rates{}, "cuda:0").device);
  Rates r = even_rates(1);
  r.host.strided = kGiga / 100;
  CHECK(choose(turned, r, "cuda:0").device);
  r.device.strided = 0;
  CHECK(!choose(turned, r, "cuda:0").device);
  CHECK(choose(turned, r, "cuda:0").why == "cuda:0 would take for ever, the CPU 102 s: bound by its kernels");
}

TEST_CASE("little is a gibibyte a thread, or 256 MiB on both sides") {
  constexpr int64_t kMi = int64_t{1} << 20;
  CHECK(!is_little({512 * kMi, 512 * kMi}, 1));
  CHECK(is_little({512 * kMi, 512 * kMi - 1}, 1));
  CHECK(is_little({512 * kMi, 512 * kMi}, 2));
  CHECK(!is_little({1024 * kMi, 1024 * kMi}, 2));
  CHECK(is_little({255 * kMi, 255 * kMi}, 0));
  CHECK(!is_little({0, 256 * kMi}, 0));
}

TEST_CASE("little work is settled before anything is measured") {
  constexpr int64_t kMi = int64_t{1} << 20;
  Work w = work_of(Reshaping::kCast, 256 * kMi, 128 * kMi);
  w[Reshaping::kCopied] = {1024 * kMi, 640 * kMi};  // 2 GiB in all
  CHECK(!settled_at_once(w, 2));
  CHECK(settled_at_once(w, 3) == "2.00 GiB to read and write are too few to ask a device");
  w[Reshaping::kCast] = {256 * kMi - 1, 128 * kMi + 1};
  CHECK(settled_at_once(w, 2) == "only 256.00 MiB would suit a device");
  w[Reshaping::kCast] = {128 * kMi, 256 * kMi};  // the wider side counts
  CHECK(!settled_at_once(w, 2));
  CHECK(settled_at_once(work_of(Reshaping::kCopied, 1 << 30, 1 << 30), 1) == "only 0 B would suit a device");
}

TEST_CASE("a device is opened where the CPU takes long enough, and not for files") {
  const Work turned = work_of(Reshaping::kStrided, kOneGB, kOneGB);
  Rates r = even_rates(1);  // 2 s for the files
  r.host.strided = kGiga / 8.01;
  CHECK(!settled_by_host(turned, r.host));
  r.host.strided = kGiga / 7.99;
  CHECK(settled_by_host(turned, r.host) == "it takes 10 s: too little to ask a device");
  r.host.read.all = kGiga / 26;  // 27 s for the disk, 29 s for the threads: 27 / 29 > 0.9
  r.host.strided = kGiga / 27;
  CHECK(settled_by_host(turned, r.host) == "it takes 29 s, and 27 s on any device: bound by the disk");
  r.host.strided = kGiga / 29;  // 31 s: 27 / 31 < 0.9
  CHECK(!settled_by_host(turned, r.host));
}
