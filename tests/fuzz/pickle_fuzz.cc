// The pickle machine and its views on any bytes, and the pickler on what they say.
#include <cstdlib>

#include "lib/base/error.h"
#include "lib/pickle/document.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"

namespace {

using namespace uckpt;

// A call that our code knows and could make nothing of may make sense when its arguments are written whole.
bool has_odd_calls(const pickle::Document& document) {
  using pickle::Known;
  for (uint32_t id = 0; id < document.node_count(); ++id) {
    const pickle::Value value(&document, id);
    if (value.kind() != pickle::Kind::kCall && value.kind() != pickle::Kind::kObject) continue;
    const Known known = pickle::known_of(value);
    if ((known >= Known::kDict && known <= Known::kByteArray) || known == Known::kSize ||
        (known >= Known::kEncode && known <= Known::kNewObjExFunction))
      return true;
  }
  return false;
}

void write_and_read_again(const pickle::Document& document, const pickle::Limits& limits) {
  pickle::Pickler pickler;
  pickler.copy(document.root());
  const auto again = pickle::parse_whole(pickler.finish(), limits);
  if (has_odd_calls(document)) return;
  if (pickle::to_json(document.root(), limits) != pickle::to_json(again->root(), limits)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pickle::Limits limits;
  limits.json_bytes = 1 << 20;
  try {
    const auto document = pickle::parse_whole(Bytes(data, data + size), limits);
    pickle::to_tree(document->root());
    pickle::to_json(document->root(), limits);
    write_and_read_again(*document, limits);
  } catch (const Error&) {
  }
  return 0;
}
