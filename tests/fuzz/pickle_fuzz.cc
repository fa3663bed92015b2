// The pickle machine and its views on any bytes.
#include "lib/base/error.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uckpt;
  pickle::Limits limits;
  limits.json_bytes = 1 << 20;
  try {
    const auto document = pickle::parse_whole(Bytes(data, data + size), limits);
    pickle::to_json(document->root(), limits);
    pickle::to_tree(document->root());
  } catch (const Error&) {
  }
  return 0;
}
