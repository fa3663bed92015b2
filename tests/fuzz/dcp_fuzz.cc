// `.metadata` of a distributed checkpoint on any bytes: chunks that are said to tile a tensor must have as
// many elements as it, and every name is found whatever the keys are.
#include <cstdlib>

#include "lib/base/error.h"
#include "lib/formats/dcp/metadata.h"
#include "lib/formats/dcp/naming.h"
#include "lib/formats/dcp/placement.h"
#include "lib/formats/dcp/tiling.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uckpt;
  try {
    const dcp::Metadata metadata =
        dcp::read_metadata(MemorySource("fuzz", Bytes(data, data + size)), {}, true);
    const dcp::Stored& stored = metadata.stored;
    std::vector<std::string> warnings;
    const auto no_list = [](const std::string&) { return std::nullopt; };
    if (dcp::name_tensors(stored, no_list, warnings).size() != stored.tensors.size()) std::abort();
    if (dcp::placement_facts(stored).empty()) std::abort();
    for (const dcp::StoredTensor& t : stored.tensors) {
      dcp::check_tiling(t.shape, t.chunks);
      int64_t elements = 0;
      for (const dcp::Chunk& c : t.chunks) elements += numel_of(c.sizes);
      if (elements != numel_of(t.shape)) std::abort();
    }
  } catch (const Error&) {
  }
  return 0;
}
