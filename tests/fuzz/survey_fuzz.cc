// What the parent of an HDF5 sandbox believes, on any answer of the child: the survey, and the catalog made
// of it.
#include <algorithm>
#include <cstring>

#include "lib/base/error.h"
#include "lib/formats/hdf5/sandbox.h"
#include "lib/formats/hdf5/survey.h"
#include "lib/formats/hdf5/survey_catalog.h"
#include "tests/fuzz/check_catalog.h"

namespace {

using namespace uckpt;

class SaidInbox : public hdf5::Inbox {
 public:
  explicit SaidInbox(ByteSpan said) : said_(said) {}

 protected:
  size_t read_some(std::span<uint8_t> out) override {
    const size_t n = std::min(out.size(), said_.size());
    if (n == 0) throw refused("hdf5.damaged", "the child is dead");
    std::memcpy(out.data(), said_.data(), n);
    said_ = said_.subspan(n);
    return n;
  }

 private:
  ByteSpan said_;
};

// The file that the answer is about: long enough for what is said to lie in it, and its bytes are the
// answer's, so that the texts that are read in it can be anything.
class RepeatedSource : public ByteSource {
 public:
  explicit RepeatedSource(ByteSpan bytes) : bytes_(bytes) {}
  int64_t size() const override { return int64_t{1} << 20; }
  void read_at(int64_t offset, std::span<uint8_t> out) const override {
    for (uint8_t& byte : out) byte = bytes_[static_cast<size_t>(offset++) % bytes_.size()];
  }
  const std::string& name() const override { return name_; }

 private:
  ByteSpan bytes_;
  std::string name_ = "fuzz";
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ByteSpan bytes(data, size);
  try {
    SaidInbox inbox(bytes);
    hdf5::Survey survey = hdf5::hear_survey(inbox);
    // Texts that need decoding are read through a further child: fuzz_hdf5 has those.
    for (hdf5::Entry& e : survey.entries)
      if (e.kind == hdf5::Entry::Kind::kText && !e.offset) e.offset = 0;
    check_catalog(hdf5::catalog_of(survey, std::make_shared<RepeatedSource>(bytes), {}));
  } catch (const Error&) {
  }
  return 0;
}
