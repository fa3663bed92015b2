#include "lib/exec/pick_device.h"

#include <doctest/doctest.h>

#include "tests/unit/exec/fake_device.h"

using namespace uckpt;
using namespace uckpt::exec;

namespace {

// A machine with devices, which counts what is asked of it; its clock goes by what they do.
struct Machine {
  test::FakeState state{{20e9, 20e9, 400e9, 400e9}};
  std::vector<int> numbers{0};
  int found = 0, opened = 0, reckoned = 0;
  double opening = 0.25;  // seconds
  std::string refuses;    // to open, with this code; empty: it opens
  Work work;

  DeviceFinder finder() {
    return {[this] {
              ++found;
              kernels::Devices d;
              for (const int n : numbers) {
                kernels::DeviceInfo info;
                info.number = n;
                d.found.push_back(info);
              }
              if (numbers.empty()) d.why_none = "no NVIDIA driver is loaded";
              return d;
            },
            [this](int number) {
              ++opened;
              if (!refuses.empty()) throw trouble(refuses, "no room for it");
              state.clock += opening;
              return std::make_unique<test::FakeDevice>(state, number);
            }};
  }
  // The host's kernels run by another clock than the device's: these tests take ones that go forward by
  // themselves, a millisecond a look.
  Picked pick(DeviceChoice::Kind kind, int number = 0) {
    ProbeOptions how;
    how.threads = 1;
    how.now = [this] { return state.clock += step; };
    return pick_device(
        {kind, number}, work.all(), [this]() -> const Work& { return ++reckoned, work; }, how, finder());
  }
  double step = 1e-3;
};

constexpr int64_t kGi = int64_t{1} << 30;

Work cast_of(int64_t bytes) {
  Work w;
  w[Reshaping::kCast] = {bytes, bytes / 2};
  return w;
}

std::string message_of(const DeviceChoice& asked, const DeviceFinder& finder) {
  try {
    require_device(asked, finder);
  } catch (const Error& e) {
    CHECK(e.code() == "device.missing");
    CHECK(e.exit_code() == 2);
    return e.message();
  }
  return "";
}

}  // namespace

TEST_CASE("a device that was asked for must be there, others need not") {
  Machine m;
  CHECK(message_of({DeviceChoice::kCuda, 0}, m.finder()) == "");
  CHECK(message_of({DeviceChoice::kCuda, 2}, m.finder()) ==
        "--device cuda:2: there is no such device, but cuda:0; use --device cpu or auto");
  m.numbers = {0, 1};
  CHECK(message_of({DeviceChoice::kCuda, 1}, m.finder()) == "");
  CHECK(message_of({DeviceChoice::kCuda, 2}, m.finder()) ==
        "--device cuda:2: there is no such device, but cuda:0, cuda:1; use --device cpu or auto");
  m.numbers = {};
  CHECK(message_of({DeviceChoice::kCuda, 0}, m.finder()) ==
        "--device cuda:0: no NVIDIA driver is loaded; use --device cpu or auto");
  m.found = 0;
  CHECK(message_of({DeviceChoice::kAuto, 0}, m.finder()) == "");
  CHECK(message_of({DeviceChoice::kCpu, 0}, m.finder()) == "");
  CHECK(m.found == 0);
}

TEST_CASE("the CPU costs nothing, and neither do machines without a device and little work") {
  Machine m;
  m.work = cast_of(100 * kGi);
  CHECK(m.pick(DeviceChoice::kCpu).name == "cpu");
  CHECK(m.found == 0);
  m.numbers = {};
  Picked none = m.pick(DeviceChoice::kAuto);
  CHECK(none.name == "cpu");
  CHECK(none.why == "");
  CHECK(m.reckoned == 0);
  m.numbers = {0};
  const double before = m.state.clock;
  m.work = cast_of(1 << 20);
  m.work[Reshaping::kCopied] = {kGi, kGi};
  const Picked copied = m.pick(DeviceChoice::kAuto);
  CHECK(copied.name == "cpu");
  CHECK(copied.why == "only 1.00 MiB would suit a device");
  CHECK(m.found == 2);
  m.work = cast_of(1 << 20);
  const Picked little = m.pick(DeviceChoice::kAuto);
  CHECK(little.name == "cpu");
  CHECK(little.why == "");
  CHECK(m.found == 2);
  CHECK(m.state.clock == before);
  CHECK(m.opened == 0);
}

TEST_CASE("a device that was asked for is opened, and nothing is reckoned") {
  Machine m;
  m.numbers = {0, 1};
  const Picked picked = m.pick(DeviceChoice::kCuda, 1);
  REQUIRE(picked.device);
  CHECK(picked.device->info().number == 1);
  CHECK(picked.name == "cuda:1");
  CHECK(picked.why == "asked for");
  CHECK(picked.rates.device.start_up == doctest::Approx(0.25).epsilon(0.01));
  CHECK(m.reckoned == 0);
  m.refuses = "device.memory";
  CHECK_THROWS_AS(m.pick(DeviceChoice::kCuda, 1), Error);
}

TEST_CASE("a device is taken where it is fast, and left where it is slow, and said why") {
  Machine m;
  m.step = 1e-2;  // 4 MiB in so much time: a kernel of 420 MB/s
  m.work = cast_of(100 * kGi);
  const Picked fast = m.pick(DeviceChoice::kAuto);
  REQUIRE(fast.device);
  CHECK(fast.name == "cuda:0");
  CHECK(fast.why.starts_with("cuda:0 takes "));
  CHECK(fast.rates.host.cast == doctest::Approx(4 * 1048576 / 1e-2));
  CHECK(fast.rates.device.start_up > 0.25);
  m.state.rates.upload = 0.2e9;
  const Picked slow = m.pick(DeviceChoice::kAuto);
  CHECK(!slow.device);
  CHECK(slow.name == "cpu");
  CHECK(slow.why.ends_with(": bound by PCIe"));
  CHECK(m.opened == 2);
  m.step = 1e-6;  // the CPU needs no help
  const Picked needless = m.pick(DeviceChoice::kAuto);
  CHECK(needless.name == "cpu");
  CHECK(needless.why.ends_with(": too little to ask a device"));
  CHECK(m.opened == 2);
}

TEST_CASE("a device that fails is not taken, and said why; other errors are errors") {
  Machine m;
  m.step = 1e-2;
  m.work = cast_of(100 * kGi);
  m.refuses = "device.memory";
  const Picked closed = m.pick(DeviceChoice::kAuto);
  CHECK(closed.name == "cpu");
  CHECK(closed.why == "cuda:0 does not work: no room for it");
  m.refuses = "io.open";
  CHECK_THROWS_AS(m.pick(DeviceChoice::kAuto), Error);
  m.refuses = "";
  m.state.fails = true;
  CHECK(m.pick(DeviceChoice::kAuto).why ==
        "cuda:0 does not work: cuda:0: an illegal memory access was encountered");
}
