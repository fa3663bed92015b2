// The directory of a torch.save archive on any bytes: members lie in the file one after the other, and are
// found.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "lib/base/error.h"
#include "lib/formats/torch/zip_directory.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uckpt;
  try {
    const MemorySource source("fuzz", Bytes(data, data + size));
    const torch::ZipDirectory directory(source);
    std::vector<torch::ZipMember> members = directory.members();
    std::ranges::sort(members, {}, &torch::ZipMember::header_at);
    int64_t at = 0;
    for (const torch::ZipMember& m : members) {
      if (m.header_at < at || m.offset <= m.header_at || m.size < 0) std::abort();
      at = m.offset + m.size;
      const auto* found = directory.find(std::string_view(m.name).substr(directory.root().size() + 1));
      if (!found || found->header_at != m.header_at) std::abort();
    }
    if (at > source.size()) std::abort();
    for (const torch::ZipMember& m : members) directory.read(m, 1 << 20);
  } catch (const Error&) {
  }
  return 0;
}
