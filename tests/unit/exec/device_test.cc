// Tasks on a device, which here is emulated: the same bytes and findings as without.
#include <doctest/doctest.h>

#include <bit>
#include <limits>
#include <memory>
#include <random>

#include "lib/exec/executor.h"
#include "tests/unit/exec/converted.h"
#include "tests/unit/kernels/emulated_device.h"

using namespace uckpt;
using kernels::testing::EmulatedDevice;
using test::check_same;
using test::Converted;
namespace fs = std::filesystem;

namespace {

exec::DeviceUse all_holes_on(std::shared_ptr<kernels::Device> device, const TargetLayout& layout) {
  return {std::move(device), std::vector<bool>(layout.holes.size(), true), int64_t{1} << 30};
}

Converted convert(const Catalog& catalog, const TargetLayout& layout, const exec::DeviceUse* device,
                  int64_t max_mem = int64_t{1} << 20) {
  const test::Scratch scratch;
  exec::RunOptions options;
  options.tensor_digests = true;
  options.device = device;
  return test::convert_to(scratch.path / "out", catalog, layout,
                          exec::size_buffers({.threads = 2, .max_mem = max_mem, .copies = 6}), options);
}

// The same with floats in another type.
TargetLayout cast_layout(const Catalog& catalog, uint32_t seed) {
  const DType floats[] = {DType::kBF16, DType::kF32, DType::kF64, DType::kF16};
  TargetLayout layout = test::flat_layout(catalog, 0);
  int64_t& end = layout.files[0].size = 0;
  for (size_t i = 0; i < layout.holes.size(); ++i) {
    Hole& hole = layout.holes[i];
    if (is_float(hole.dtype)) hole.dtype = floats[(seed + i) % std::size(floats)];
    hole.offset = end;
    end += hole.bytes();
  }
  return layout;
}

// 900 elements of f32 in rows that are not dense, the mean with another part, a copy in bf16 that differs
// once.
Catalog reshaped_checkpoint() {
  Catalog c;
  std::mt19937 rng(5);
  const auto file_of = [&](const std::vector<float>& values) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
    return c.add_file(std::make_shared<MemorySource>("f" + std::to_string(c.files.size()),
                                                     Bytes(bytes, bytes + values.size() * sizeof(float))));
  };
  const auto random_values = [&](size_t n) {
    std::vector<float> values(n);
    for (float& v : values) v = static_cast<float>(rng() % 4096) / 16;
    return values;
  };
  const auto add = [&](Tensor t, const std::vector<int64_t>& strides, FileId file) {
    t.shape = {30, 30};
    const uint32_t mark = c.piece_mark();
    c.add_whole(file, kNoRecord, 0, t.shape, strides);
    t.pieces = c.pieces_since(mark);
    return t;
  };
  Tensor mean{};
  mean.name = "mean", mean.state = "param", mean.dtype = DType::kF32;
  mean = add(mean, {1, 31}, file_of(random_values(31 * 31)));
  const uint32_t mark = c.piece_mark();
  c.add_whole(file_of(random_values(900)), kNoRecord, 0, mean.shape, std::vector<int64_t>{30, 1});
  mean.averaged_with.push_back(c.pieces_since(mark));
  mean.factor = 0.5;
  c.tensors.push_back(mean);

  const std::vector<float> master = random_values(900);
  Bytes narrow;
  for (size_t i = 0; i < master.size(); ++i) {
    const uint32_t word = std::bit_cast<uint32_t>(master[i]) ^ (i == 700 ? 0x10000 : 0);
    const uint32_t rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    narrow.push_back(static_cast<uint8_t>(rounded));
    narrow.push_back(static_cast<uint8_t>(rounded >> 8));
  }
  Tensor compared{};
  compared.name = "compared", compared.state = "fp32", compared.dtype = DType::kF32;
  compared = add(compared, {30, 1}, file_of(master));
  const uint32_t copy = c.piece_mark();
  c.add_whole(c.add_file(std::make_shared<MemorySource>("narrow", narrow)), kNoRecord, 0, compared.shape,
              std::vector<int64_t>{30, 1});
  compared.copies.push_back({c.pieces_since(copy), DType::kBF16, true, "module weight"});
  c.tensors.push_back(compared);
  return c;
}

}  // namespace

TEST_CASE("a device fills tasks as the CPU does") {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    CAPTURE(seed);
    const Catalog c = test::RandomCheckpoint(seed, seed % 4 == 0 ? 40 : 12).make(seed % 4 == 0 ? 6 : 20);
    for (const bool casts : {false, true}) {
      const TargetLayout layout = casts ? cast_layout(c, seed) : test::flat_layout(c, 0);
      const auto device = std::make_shared<EmulatedDevice>();
      const exec::DeviceUse use = all_holes_on(device, layout);
      const Converted with = convert(c, layout, &use), without = convert(c, layout, nullptr);
      check_same(with, without);
      CHECK(with.outcome.device_failure.empty());
      CHECK(with.outcome.on_device > 0);
      CHECK(without.outcome.on_device == 0);
    }
  }
}

TEST_CASE("means, factors and comparisons are the same on a device") {
  const Catalog c = reshaped_checkpoint();
  for (const bool casts : {false, true}) {
    const TargetLayout layout = casts ? cast_layout(c, 0) : test::flat_layout(c, 0);
    const exec::DeviceUse use = all_holes_on(std::make_shared<EmulatedDevice>(), layout);
    const Converted with = convert(c, layout, &use);
    check_same(with, convert(c, layout, nullptr));
    REQUIRE(with.outcome.differences.size() == 1);
    CHECK(with.outcome.differences[0].count == 1);
    CHECK(with.outcome.differences[0].first == 700);
  }
}

TEST_CASE("what a device that fails owed is done by the CPU, and it has no further part") {
  const Catalog c = test::RandomCheckpoint(3, 60).make(8);
  const TargetLayout layout = test::flat_layout(c, 0);
  const Converted without = convert(c, layout, nullptr);
  for (int64_t after = 0; after < 20; ++after) {
    CAPTURE(after);
    const auto device = std::make_shared<EmulatedDevice>();
    device->fail_after(after);
    const exec::DeviceUse use = all_holes_on(device, layout);
    const Converted with = convert(c, layout, &use, int64_t{800} << 10);
    check_same(with, without);
    CHECK(with.outcome.device_failure.find("as a test asked for") != std::string::npos);
  }
}

TEST_CASE("a device without memory for its lanes has no part") {
  const Catalog c = test::RandomCheckpoint(4, 20).make(8);
  const TargetLayout layout = test::flat_layout(c, 0);
  exec::DeviceUse use = all_holes_on(std::make_shared<EmulatedDevice>(), layout);
  use.host_room = 1000;
  const Converted with = convert(c, layout, &use);
  check_same(with, convert(c, layout, nullptr));
  CHECK(with.outcome.on_device == 0);
  CHECK(with.outcome.device_failure.find("too little memory") != std::string::npos);
}

TEST_CASE("lanes fit into what host and device have") {
  const exec::Buffers buffers = exec::size_buffers({.threads = 4, .max_mem = int64_t{1} << 30});
  kernels::DeviceInfo device;
  device.free_memory = int64_t{1} << 34;
  const exec::LanePlan plenty = exec::plan_lanes({}, buffers, int64_t{1} << 34, device);
  CHECK(plenty.per_worker == 3);
  const int64_t on_host = plenty.sizes[kernels::Region::kInput] + plenty.sizes[kernels::Region::kOutput];
  CHECK(exec::plan_lanes({}, buffers, 4 * on_host, device).per_worker == 1);
  CHECK(exec::plan_lanes({}, buffers, 4 * on_host - 1, device).per_worker == 0);
  device.free_memory = 1 << 20;
  CHECK(exec::plan_lanes({}, buffers, int64_t{1} << 34, device).per_worker == 0);
}
