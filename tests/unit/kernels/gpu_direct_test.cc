// What can be known of GPUDirect Storage without a GPU: when it is not used, and why.
#include "lib/kernels/gpu_direct.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "lib/base/bytes.h"
#include "tests/unit/kernels/emulated_device.h"
#include "tests/unit/kernels/fake_cufile.h"

namespace uckpt::kernels::testing {
namespace {

constexpr int64_t kPage = 4096;

// 8 pages that may be reached past the page cache; fd < 0: not on this file system.
struct PagesOnDisk {
  std::string path =
      (std::filesystem::temp_directory_path() / ("uckpt_pages_" + std::to_string(::getpid()))).string();
  Bytes bytes = Bytes(8 * kPage);
  int cached = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  int fd = ::open(path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
  PagesOnDisk() {
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / kPage);
    REQUIRE(::pwrite(cached, bytes.data(), bytes.size(), 0) == 8 * kPage);
    if (fd < 0) MESSAGE("SKIPPED: the file system of temporary files knows no O_DIRECT");
  }
  Bytes read() const {
    Bytes out(bytes.size());
    REQUIRE(::pread(cached, out.data(), out.size(), 0) == 8 * kPage);
    return out;
  }
  ~PagesOnDisk() {
    ::close(cached);
    if (fd >= 0) ::close(fd);
    std::filesystem::remove(path);
  }
};

}  // namespace

TEST_CASE("why GPUDirect Storage is not used") {
  CHECK(GpuDirect::load("libno_such_cufile.so.0")
            ->why_not()
            .starts_with("libno_such_cufile.so.0: cannot open"));
  CHECK(GpuDirect::load(fake_cufile_path("fake_cufile_old"))
            ->why_not()
            .ends_with(" is too old: it has no cuFileSetParameterBool"));
  FakeCufile forced;
  forced.forces_compatibility = true;
  CHECK(load_fake_cufile(forced)->why_not() == "only its compatibility mode is available");
  CHECK(EmulatedDevice().why_not_direct() == "this device has no way past the host's memory");
}

TEST_CASE("pages go from a file to a lane's input, and from its output to a file") {
  const PagesOnDisk pages;
  if (pages.fd < 0) return;
  EmulatedDevice device(load_fake_cufile({}));
  std::string why_not;
  {
    const auto file = device.open_direct(pages.fd, why_not);
    REQUIRE(file != nullptr);
    const auto lane = device.make_lane({{4 * kPage, 0, 0, 4 * kPage}});
    CHECK(lane->read_direct(*file, 3 * kPage, kPage, 2 * kPage));
    lane->copy_strided({Region::kOutput, 0}, {Region::kInput, kPage}, {}, 2 * kPage);
    lane->download(0, 2 * kPage);
    lane->wait();
    CHECK(std::equal(lane->output().begin(), lane->output().begin() + 2 * kPage,
                     pages.bytes.begin() + 3 * kPage));
    CHECK(lane->write_direct(*file, 6 * kPage, 0, 2 * kPage));
    Bytes expected = pages.bytes;
    std::copy_n(pages.bytes.begin() + 3 * kPage, 2 * kPage, expected.begin() + 6 * kPage);
    CHECK(pages.read() == expected);
    CHECK(fake_cufile_registered() == 3);
    CHECK_THROWS(lane->read_direct(*file, 0, 3 * kPage, 2 * kPage));
    CHECK_THROWS(lane->write_direct(*file, 0, -kPage, kPage));
    // Past the end of the file.
    CHECK(!lane->read_direct(*file, 7 * kPage, 0, 2 * kPage));
    CHECK(device.why_not_direct() == "a read failed: it moved 4096 bytes of 8192");
    CHECK(!lane->read_direct(*file, 0, 0, kPage));
    CHECK(!lane->write_direct(*file, 0, 0, kPage));
  }
  CHECK(fake_cufile_registered() == 0);
}

TEST_CASE("a library without a driver, and one that fails, are told of") {
  const PagesOnDisk pages;
  if (pages.fd < 0) return;
  std::string why_not;
  FakeCufile refuses;
  refuses.refuses_files = true;
  EmulatedDevice refused(load_fake_cufile(refuses));
  CHECK(refused.why_not_direct().empty());
  CHECK(refused.open_direct(pages.fd, why_not) == nullptr);
  CHECK(why_not == "the file system cannot do it");
  CHECK(refused.why_not_direct().empty());  // other files may do
  CHECK(refused.open_direct(pages.cached, why_not) == nullptr);
  CHECK(why_not == "libcufile gave error 5020");

  struct Case {
    int64_t after;
    FakeCufile::How how;
    std::string why;
  };
  for (const Case& c :
       {Case{1, FakeCufile::kErrno, "a buffer could not be registered: the GPU's memory could not be pinned"},
        Case{2, FakeCufile::kErrno, "a write failed: Input/output error"},
        Case{2, FakeCufile::kCode, "a write failed: libcufile gave error 5030"},
        Case{2, FakeCufile::kShort, "a write failed: it moved 4096 bytes of 8192"}}) {
    CAPTURE(c.why);
    FakeCufile fails;
    fails.fails_after = c.after;
    fails.how = c.how;
    EmulatedDevice device(load_fake_cufile(fails));
    const auto file = device.open_direct(pages.fd, why_not);
    REQUIRE(file != nullptr);
    const auto lane = device.make_lane({{0, 0, 0, 2 * kPage}});
    CHECK(!lane->write_direct(*file, 0, 0, 2 * kPage));
    CHECK(device.why_not_direct() == c.why);
  }
  CHECK(fake_cufile_registered() == 0);
}

TEST_CASE("without the nvidia-fs driver there is no GPUDirect Storage") {
  FakeCufile without;
  without.has_driver = false;
  const auto library = load_fake_cufile(without);
  CHECK(library->why_not() == "the nvidia-fs driver is not loaded");
  std::string why_not;
  CHECK(library->open(0, why_not) == nullptr);
  CHECK(why_not == "the nvidia-fs driver is not loaded");
}

}  // namespace uckpt::kernels::testing
