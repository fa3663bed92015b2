// Tasks on a device that reads and writes files itself, by a libcufile of the tests' own: the same bytes and
// findings as the CPU's, also where it fails.
#include "lib/exec/direct_files.h"

#include <doctest/doctest.h>

#include <fstream>
#include <memory>
#include <random>

#include "lib/exec/copy_rules.h"
#include "lib/exec/executor.h"
#include "lib/io/direct.h"
#include "lib/kernels/crc.h"
#include "tests/unit/exec/converted.h"
#include "tests/unit/kernels/emulated_device.h"
#include "tests/unit/kernels/fake_cufile.h"

using namespace uckpt;
using kernels::testing::EmulatedDevice;
using kernels::testing::FakeCufile;
using kernels::testing::load_fake_cufile;
using test::Converted;
namespace fs = std::filesystem;

namespace {

// Tensors of 80 x 512 in files on the disk, each in a record with a checksum: dense, byte-swapped, turned,
// with gaps between rows, cut by columns, and scattered in the output.
struct Checkpoint {
  test::Scratch scratch;
  Catalog catalog;
  TargetLayout layout;
  std::mt19937 random{11};

  static constexpr int64_t kRows = 80, kColumns = 512, kAll = kRows * kColumns;

  std::pair<FileId, uint32_t> file_of(int64_t bytes, int64_t begin, int64_t behind) {
    Bytes content(static_cast<size_t>(begin + bytes + behind));
    for (uint8_t& b : content) b = static_cast<uint8_t>(random());
    const fs::path path = scratch.path / std::to_string(catalog.files.size());
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
    const ByteSpan record(content.data() + begin, static_cast<size_t>(bytes));
    const FileId file = catalog.add_file(InputFile::open(path.string()));
    const uint32_t crc = kernels::Crc32::finish(kernels::crc32_raw(record), record.size());
    return {file, catalog.add_record(file, begin, bytes, crc, "data")};
  }
  template <class Fill>
  void add(const char* name, DType dtype, DType written, const Fill& fill) {
    Tensor t{};
    t.name = name, t.state = "param", t.dtype = dtype, t.shape = {kRows, kColumns};
    const uint32_t mark = catalog.piece_mark();
    fill();
    t.pieces = catalog.pieces_since(mark);
    catalog.tensors.push_back(t);
    const uint32_t shard = layout.add_whole_shard(catalog, static_cast<uint32_t>(catalog.tensors.size() - 1));
    add_hole(shard, kAll, written);
  }
  // No more than the first of them.
  void keep(size_t tensors) {
    layout.holes.resize(tensors);
    layout.shards.resize(tensors);
    catalog.tensors.resize(tensors);
  }
  void add_hole(uint32_t shard, int64_t count, DType written) {
    if (layout.files.empty()) layout.files.push_back({"", 0, {}, {}});
    int64_t& size = layout.files[0].size;
    if (layout.holes.empty()) size = 100;  // no page begins with a hole
    layout.holes.push_back({shard, 0, size, 0, count, written});
    size += layout.holes.back().bytes();
  }

  Checkpoint() {
    const auto whole = [&](DType dtype, std::vector<int64_t> strides, int64_t elements, int64_t begin,
                           uint8_t flags = kPlain) {
      const auto [file, record] = file_of(elements * item_size(dtype), begin, 10'000);
      catalog.add_whole(file, record, begin, {kRows, kColumns}, strides, flags);
    };
    add("dense", DType::kF32, DType::kBF16, [&] { whole(DType::kF32, {kColumns, 1}, kAll, 70); });
    add("swapped", DType::kF32, DType::kF32, [&] {
      whole(DType::kF32, {kColumns, 1}, kAll, 8192, kByteSwapped);
    });
    add("turned", DType::kF32, DType::kF32, [&] { whole(DType::kF32, {1, kRows}, kAll, 4095); });
    add("gaps", DType::kF32, DType::kF32, [&] {
      whole(DType::kF32, {kColumns + 5, 1}, kRows * (kColumns + 5), 1);
    });
    add("columns", DType::kF64, DType::kF64, [&] {
      for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, 200}, {200, kColumns}}) {
        const auto [file, record] = file_of(kRows * (to - from) * 8, 64, 5);
        const Axis box[] = {{kRows, 0, kRows, to - from}, {kColumns, from, to - from, 1}};
        catalog.add_piece(file, record, 64, box);
      }
    });
    // One part lies between the rows of the other: each alone is for the record's checksum.
    add("between", DType::kF32, DType::kF32, [&] {
      const auto [file, record] = file_of(kAll * 4, 0, 9'000);
      for (const auto& [from, to] : {std::pair<int64_t, int64_t>{0, 480}, {480, kColumns}}) {
        const Axis box[] = {{kRows, 0, kRows, kColumns}, {kColumns, from, to - from, 1}};
        catalog.add_piece(file, record, from * 4, box);
      }
    });
    // Two shards that lie turned in the output: for their digest the host puts them in order.
    add("scattered", DType::kF32, DType::kF32, [&] { whole(DType::kF32, {kColumns, 1}, kAll, 0); });
    layout.holes.pop_back();
    layout.shards.pop_back();
    layout.pieces.pop_back();
    for (const int64_t half : {int64_t{0}, kRows / 2}) {
      layout.pieces.push_back({0, static_cast<uint32_t>(layout.axes.size()), 2});
      layout.axes.push_back({kRows, half, kRows / 2, 1});
      layout.axes.push_back({kColumns, 0, kColumns, kRows / 2});
      layout.shards.push_back({static_cast<uint32_t>(catalog.tensors.size() - 1), kAll / 2,
                               static_cast<uint32_t>(layout.pieces.size() - 1), 1});
      add_hole(static_cast<uint32_t>(layout.shards.size() - 1), kAll / 2, DType::kF32);
    }
  }
};

Converted convert(const Checkpoint& c, std::shared_ptr<kernels::Device> device, bool direct = true) {
  const exec::Buffers buffers{2, int64_t{192} << 10, int64_t{192} << 10, exec::kStagingBytes, 4};
  const exec::DeviceUse use{device, std::vector<bool>(c.layout.holes.size(), true), int64_t{1} << 30};
  exec::RunOptions options;
  options.tensor_digests = true;
  options.device = device ? &use : nullptr;
  return test::convert_to(c.scratch.path / "out", c.catalog, c.layout, buffers, options, direct);
}

void check_done_alike(const Converted& a, const Converted& b) {
  test::check_same(a, b);
  CHECK(a.outcome.device_failure.empty());
}

bool is_possible(const fs::path& folder) {
  EmulatedDevice device(load_fake_cufile({}));
  const std::string why_not = exec::why_not_direct(device, folder.string());
  if (!why_not.empty()) MESSAGE("SKIPPED: ", why_not);
  return why_not.empty();
}

}  // namespace

TEST_CASE("a device that reads and writes files itself makes the same output") {
  const Checkpoint c;
  if (!is_possible(c.scratch.path)) return;
  const Converted cpu = convert(c, nullptr);
  CHECK(cpu.outcome.checksums_checked == 8);
  const Converted direct = convert(c, std::make_shared<EmulatedDevice>(load_fake_cufile({})));
  check_done_alike(direct, cpu);
  // All that is written but the ragged edges and what the host puts in order; most of what is read.
  const auto all = static_cast<int64_t>(cpu.bytes.size());
  CHECK(direct.outcome.direct > all);
  CHECK(direct.outcome.direct < 2 * all);
  CHECK(kernels::testing::fake_cufile_registered() == 0);

  const Converted cached = convert(c, std::make_shared<EmulatedDevice>(load_fake_cufile({})), false);
  check_done_alike(cached, cpu);
  CHECK(cached.outcome.direct == 0);
}

TEST_CASE("whatever it fails at, the output is the same and the device goes on") {
  Checkpoint c;
  c.keep(2);
  if (!is_possible(c.scratch.path)) return;
  const Converted cpu = convert(c, nullptr);
  bool failed = true;
  int told = 0;
  for (int64_t after = 0; failed; ++after) {
    CAPTURE(after);
    REQUIRE(after < 1000);
    FakeCufile state;
    state.fails_after = after;
    state.how = static_cast<FakeCufile::How>(after % 3);
    const auto device = std::make_shared<EmulatedDevice>(load_fake_cufile(state));
    const Converted direct = convert(c, device);
    check_done_alike(direct, cpu);
    CHECK(direct.outcome.on_device > 0);
    CHECK(kernels::testing::fake_cufile_registered() == 0);
    failed = kernels::testing::fake_cufile_failed();
    told += !direct.outcome.direct_failure.empty();
    CHECK((failed || direct.outcome.direct_failure.empty()));
  }
  CHECK(told > 2);
}

TEST_CASE("why a device does not read and write the files of a folder itself") {
  EmulatedDevice without, with(load_fake_cufile({}));
  CHECK(exec::why_not_direct(without, "/proc") == without.why_not_direct());
  CHECK(exec::why_not_direct(with, "/proc") == "the file system here has no way past the page cache");
  const test::Scratch scratch;
  if (!is_possible(scratch.path)) return;
  FakeCufile refuses;
  refuses.refuses_files = true;
  EmulatedDevice refused(load_fake_cufile(refuses));
  CHECK(exec::why_not_direct(refused, scratch.path.string()) == "the file system cannot do it");
}

TEST_CASE("a device that fails beside it leaves the same output") {
  const Checkpoint c;
  if (!is_possible(c.scratch.path)) return;
  const Converted cpu = convert(c, nullptr);
  for (int64_t after = 0; after < 40; after += 13) {
    CAPTURE(after);
    const auto device = std::make_shared<EmulatedDevice>(load_fake_cufile({}));
    device->fail_after(after);
    const Converted direct = convert(c, device);
    CHECK(direct.bytes == cpu.bytes);
    CHECK(direct.outcome.digests == cpu.outcome.digests);
    CHECK(direct.outcome.device_failure.find("as a test asked for") != std::string::npos);
  }
}

TEST_CASE("a file that ends too early, and one that is damaged, are told of as without it") {
  for (const bool damaged : {false, true}) {
    CAPTURE(damaged);
    Checkpoint c;
    if (!is_possible(c.scratch.path)) return;
    c.keep(1);
    const fs::path path = c.scratch.path / "0";
    if (damaged) {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(100'000);
      file.write("damaged", 7);
    }
    const auto line_of = [&](std::shared_ptr<kernels::Device> device) {
      try {
        convert(c, std::move(device));
      } catch (const Error& e) {
        return e.code() + " " + e.line();
      }
      return std::string("no error");
    };
    if (!damaged) fs::resize_file(path, 50'000);
    const std::string cpu = line_of(nullptr);
    CHECK(cpu.starts_with(damaged ? "zip.crc " : "io.short_read "));
    CHECK(line_of(std::make_shared<EmulatedDevice>(load_fake_cufile({}))) == cpu);
  }
}
