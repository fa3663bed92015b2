// The legacy stream: views, byte order, and that nothing is read but counts.
#include "tests/unit/formats/torch_support.h"

using namespace torch_test;

namespace {

// Counts what is read of a source.
class CountingSource : public MemorySource {
 public:
  using MemorySource::MemorySource;
  void read_at(int64_t offset, std::span<uint8_t> out) const override {
    bytes_read += static_cast<int64_t>(out.size());
    MemorySource::read_at(offset, out);
  }
  mutable int64_t bytes_read = 0;
};

void replace(Bytes& bytes, std::string_view from, std::string_view to) {
  std::string text(bytes.begin(), bytes.end());
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
  bytes.assign(text.begin(), text.end());
}

std::unique_ptr<torch::TorchFile> open_bytes(Bytes bytes) {
  return torch::TorchFile::open(std::make_shared<MemorySource>("test.pt", std::move(bytes)));
}

}  // namespace

TEST_CASE("legacy stream: a view lies inside its root") {
  Bytes bytes = file_bytes(data("hostile/legacy/view_oob.pt"));
  replace(bytes, "vK\x04K\x06", std::string_view("vK\x00K\x06", 5));
  const auto file = open_bytes(bytes);
  const auto info = file->tensor(file->root().get("w"));
  REQUIRE(info);
  CHECK(info->refusal == "");
  CHECK(info->shape == Shape{2, 3});
  CHECK(info->storage_offset == 0);
  CHECK(info->offset == static_cast<int64_t>(bytes.size()) - 24);
  CHECK(file->is_legacy());
}

TEST_CASE("legacy stream: storages are little-endian whatever machine wrote them") {
  Bytes bytes = file_bytes(data("hostile/legacy/view_oob.pt"));
  replace(bytes, "vK\x04K\x06", std::string_view("vK\x00K\x06", 5));
  replace(bytes, "little_endian\x88", "little_endian\x89");
  const auto file = open_bytes(bytes);
  CHECK(file->tensor(file->root().get("w"))->flags == kPlain);
}

TEST_CASE("legacy stream: trailing bytes are refused") {
  Bytes bytes = file_bytes(data("hostile/legacy/good.pt"));
  bytes.push_back(0);
  CHECK_THROWS_AS(open_bytes(bytes), Error);
}

TEST_CASE("opening reads the structure only") {
  // One storage of 64 MiB behind a few kilobytes.
  constexpr int64_t kNumel = 16 << 20;
  const Bytes good = file_bytes(data("hostile/legacy/good.pt"));
  Bytes head(good.begin(), good.end() - 32);
  replace(head, "cpuK\x06", std::string_view("cpuJ\x00\x00\x00\x01", 8));
  Bytes bytes(head.size() + 8 + static_cast<size_t>(kNumel) * 4);
  std::ranges::copy(head, bytes.begin());
  store_le(bytes.data() + head.size(), kNumel);
  const auto source = std::make_shared<CountingSource>("counted", std::move(bytes));
  const auto file = torch::TorchFile::open(source);
  CHECK(file->records()[0].size == kNumel * 4);
  CHECK(source->bytes_read < (1 << 20));
}
