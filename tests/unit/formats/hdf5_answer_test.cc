// The parent of an HDF5 sandbox, on answers that no child of ours gives.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

#include "lib/base/error.h"
#include "lib/formats/hdf5/sandbox.h"
#include "lib/formats/hdf5/survey.h"

using namespace uckpt;

namespace {

class SaidInbox : public hdf5::Inbox {
 public:
  explicit SaidInbox(ByteSpan said) : said_(said) {}

 protected:
  size_t read_some(std::span<uint8_t> out) override {
    const size_t n = std::min(out.size(), said_.size());
    REQUIRE(n > 0);
    std::memcpy(out.data(), said_.data(), n);
    said_ = said_.subspan(n);
    return n;
  }

 private:
  ByteSpan said_;
};

// A foreign file with one dataset `w` of two by three elements at byte 2048.
std::string verdict(uint8_t kind, const std::string& note, DType dtype) {
  Bytes said = {0, 0, 0, 1, kind};
  const auto put = [&](auto value) {
    const auto at = said.size();
    said.resize(at + sizeof value);
    std::memcpy(said.data() + at, &value, sizeof value);
  };
  const auto text = [&](const std::string& value) {
    put(static_cast<uint32_t>(value.size()));
    said.insert(said.end(), value.begin(), value.end());
  };
  text("w");
  text(note);
  put(uint32_t{0});
  put(static_cast<uint8_t>(dtype));
  put(uint8_t{0});
  put(uint8_t{2});
  for (const int64_t value : {2, 3, 2048, 24}) put(value);
  put(uint8_t{0});
  text("");
  text("");
  put(uint16_t{0});
  put(uint8_t{2});
  Bytes frames = {'D', 0, 0, 0, 0};
  store_le(frames.data() + 1, static_cast<uint32_t>(said.size()));
  frames.insert(frames.end(), said.begin(), said.end());
  frames.insert(frames.end(), {'Z', 0, 0, 0, 0});
  SaidInbox inbox(frames);
  try {
    return hdf5::hear_survey(inbox).entries.at(0).path;
  } catch (const Error& error) {
    return error.code();
  }
}

}  // namespace

TEST_CASE("hdf5 answer: a dataset is a tensor, or there is a reason why not") {
  CHECK(verdict(0, "", DType::kF32) == "w");
  CHECK(verdict(2, "its bytes are elsewhere", DType::kF32) == "w");
  CHECK(verdict(2, "", DType::kF32) == "hdf5.damaged");
}

TEST_CASE("hdf5 answer: elements are whole bytes") {
  size_t under_a_byte = 0;
  for (size_t i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    CHECK(verdict(0, "", dtype) == (item_size(dtype) > 0 ? "w" : "hdf5.damaged"));
    under_a_byte += item_size(dtype) == 0;
  }
  CHECK(under_a_byte > 0);
}
