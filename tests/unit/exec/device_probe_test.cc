#include "lib/exec/device_probe.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "tests/unit/exec/fake_device.h"

using namespace uckpt;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kMi = int64_t{1} << 20;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("uckpt_probe_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

// Zeros that tell how they are read, and by one thread at a time move a clock on by what a slow disk takes
// for what it is asked for first.
class CountingSource final : public ByteSource {
 public:
  explicit CountingSource(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  void read_at(int64_t offset, std::span<uint8_t> out) const override {
    const auto bytes = static_cast<int64_t>(out.size());
    REQUIRE(offset >= 0);
    REQUIRE(offset + bytes <= size_);
    read += bytes;
    last = std::max(last.load(), offset + bytes);
  }
  const std::string& name() const override { return name_; }
  mutable std::atomic<int64_t> read{0}, last{0};

 private:
  int64_t size_;
  std::string name_ = "counting";
};

}  // namespace

TEST_CASE("the device's rates are those of its lane, each one's own") {
  test::FakeState state{{25e9, 12e9, 400e9, 800e9}};
  test::FakeDevice device(state);
  exec::ProbeOptions options;
  options.now = [&] { return state.clock; };
  const exec::DeviceRates rates = exec::probe_device(device, options);
  CHECK(rates.upload == doctest::Approx(25e9));
  CHECK(rates.download == doctest::Approx(12e9));
  CHECK(rates.strided == doctest::Approx(400e9));
  CHECK(rates.cast == doctest::Approx(800e9));
  CHECK(rates.start_up == 0);
  CHECK(state.clock <= options.seconds);
  CHECK(state.lanes == 1);
  CHECK(state.most_host_bytes == 64 * kMi);
  CHECK(state.host_bytes == 0);
}

TEST_CASE("a slow device is measured in a turn or two, and a small budget is kept") {
  test::FakeState state{{1e9, 1e9, 1e9, 1e9}};
  test::FakeDevice device(state);
  exec::ProbeOptions options;
  options.memory = 8 * kMi;
  options.seconds = 0.001;
  options.now = [&] { return state.clock; };
  CHECK(exec::probe_device(device, options).upload == doctest::Approx(1e9));
  CHECK(state.most_host_bytes == 8 * kMi);
  CHECK(state.clock == doctest::Approx(4 * 2 * 4.0 * kMi / 1e9));  // four things, twice each, of 4 MiB
}

TEST_CASE("what a lane throws is thrown") {
  test::FakeState state{{1e9, 1e9, 1e9, 1e9}};
  state.fails = true;
  test::FakeDevice device(state);
  CHECK_THROWS_AS(exec::probe_device(device, {}), Error);
  CHECK(state.host_bytes == 0);
}

TEST_CASE("the host's rates are found within the time, and nothing is left") {
  const Folder folder;
  exec::ProbeOptions options;
  options.threads = 2;
  options.seconds = 0.2;
  options.folder = folder.path.string();
  options.files = 2;
  const auto small = std::make_shared<CountingSource>(3 * kMi + 5),
             none = std::make_shared<CountingSource>(0), large = std::make_shared<CountingSource>(4096 * kMi);
  const std::vector<std::shared_ptr<ByteSource>> inputs{small, none, large};
  options.inputs = inputs;
  const double begun = exec::steady_seconds();
  const exec::HostRates rates = exec::probe_host(options);
  CHECK(exec::steady_seconds() - begun < 10);
  CHECK(rates.threads == 2);
  for (const double rate : {rates.copy, rates.strided, rates.cast, rates.read.one, rates.read.all,
                            rates.write.one, rates.write.all})
    CHECK(rate > 1e6);
  CHECK(fs::is_empty(folder.path));
  CHECK(small->read + large->read <= 128 * kMi);  // twice 64
  CHECK(small->read + large->read >= 2 * kMi);
}

TEST_CASE("the whole input is sampled, whole blocks of it") {
  exec::ProbeOptions options;
  options.seconds = 11 * 60.0;  // all 64 blocks are read, however busy the machine is
  options.now = [at = std::make_shared<std::atomic<int>>(0)] { return 1e-3 * ++*at; };
  const auto a = std::make_shared<CountingSource>(512 * kMi),
             b = std::make_shared<CountingSource>(512 * kMi + 7);
  const std::vector<std::shared_ptr<ByteSource>> inputs{a, b};
  options.inputs = inputs;
  exec::probe_host(options);
  CHECK(a->read == 2 * 32 * kMi);
  CHECK(b->read == 2 * 32 * kMi);
  CHECK(a->last == (448 + 4) * kMi);  // 16 stretches of 4 blocks, 64 apart
  CHECK(b->last == (448 + 4) * kMi);
}

TEST_CASE("where nothing can be written or read, memory's rate is taken") {
  exec::ProbeOptions options;
  options.seconds = 0.05;
  options.folder = "/proc/no/such/folder";
  const exec::HostRates rates = exec::probe_host(options);
  CHECK(rates.copy > 0);
  CHECK(rates.write.one == rates.copy);
  CHECK(rates.write.all == rates.copy);
  CHECK(rates.read.one == rates.copy);
  CHECK(rates.read.all == rates.copy);
}

TEST_CASE("a stop ends it") {
  const StopFlag stop{true};
  exec::ProbeOptions options;
  options.stop = &stop;
  try {
    exec::probe_host(options);
    FAIL("it went on");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::kResumable);
  }
}
