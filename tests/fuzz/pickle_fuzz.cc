// The pickle machine and its views on any bytes, and the pickler on what they say.
#include <algorithm>
#include <cstdlib>
#include <functional>

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

// Takes what objects it is offered, or none.
struct AnyFolder final : pickle::Folder {
  explicit AnyFolder(bool wanted) : is_wanted(wanted) {}
  std::optional<uint8_t> wants(const pickle::Global&) const override {
    return is_wanted ? std::optional<uint8_t>(0) : std::nullopt;
  }
  std::optional<uint32_t> fold(uint8_t, const pickle::Value& object) override {
    return object.attribute("offsets") ? std::nullopt : std::optional(count++);
  }
  bool is_wanted;
  uint32_t count = 0;
};

std::string code_of(const std::function<void()>& read) {
  try {
    read();
    return "";
  } catch (const Error& e) {
    return e.code();
  }
}

// Read in parts a pickle is the same or as wrong. With objects folded other things may be wrong with it: keys
// are not compared, attributes are taken once.
void read_in_parts(ByteSpan data, const pickle::Limits& limits) {
  const pickle::ReadAt read = [&](size_t at, std::span<uint8_t> out) {
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
  };
  std::string whole, parts;
  const std::string code = code_of(
      [&] { whole = pickle::to_tree(pickle::parse_whole(Bytes(data.begin(), data.end()), limits)->root()); });
  AnyFolder nothing(false), anything(true);
  if (code_of([&] {
        parts = pickle::to_tree(pickle::parse_folding(data.size(), read, nothing, limits)->root());
      }) != code)
    std::abort();
  if (whole != parts) std::abort();
  code_of([&] {
    const auto document = pickle::parse_folding(data.size(), read, anything, limits);
    pickle::to_tree(document->root());
    pickle::to_json(document->root(), limits);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pickle::Limits limits;
  limits.json_bytes = 1 << 20;
  read_in_parts({data, size}, limits);
  try {
    const auto document = pickle::parse_whole(Bytes(data, data + size), limits);
    pickle::to_tree(document->root());
    pickle::to_json(document->root(), limits);
    write_and_read_again(*document, limits);
  } catch (const Error&) {
  }
  return 0;
}
