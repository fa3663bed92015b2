// What a universal folder cannot hold, from a catalog in memory.
#include <doctest/doctest.h>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/deepspeed_writer.h"
#include "lib/formats/deepspeed/write/missing.h"

namespace uckpt::deepspeed {
namespace {

void put_zeros(Catalog& catalog, WriteRequest& request, std::string state, Shape shape) {
  Tensor t{};
  t.name = "w", t.state = std::move(state), t.dtype = DType::kF32, t.shape = std::move(shape);
  const uint32_t mark = catalog.piece_mark();
  catalog.add_literal(Bytes(static_cast<size_t>(numel_of(t.shape)) * 4), numel_of(t.shape));
  t.pieces = catalog.pieces_since(mark);
  request.tensors.push_back(static_cast<uint32_t>(catalog.tensors.size()));
  catalog.tensors.push_back(std::move(t));
}

// Of a parameter with the state; what is refused, or "".
std::string universal_of(const std::string& state, const Shape& shape) {
  Catalog catalog;
  catalog.path = "in";
  WriteRequest request;
  put_zeros(catalog, request, "fp32", {4});
  put_zeros(catalog, request, state, shape);
  std::vector<std::string> notes;
  complete(catalog, request.tensors, true, notes);
  try {
    lay_out_universal(catalog, request);
  } catch (const Error& e) {
    return cat(e.tensor(), ": ", e.message(), " (", e.hint_text(), ")");
  }
  return "";
}

TEST_CASE("a universal folder holds one number of a parameter: its step") {
  CHECK(universal_of("step", {}).empty());
  CHECK(universal_of("mu_product", {4}).empty());
  CHECK(universal_of("mu_product", {}) ==
        "w: a universal folder holds states of their parameter's shape and the step, and mu_product is one "
        "number (--to deepspeed writes it; --drop 'mu_product/*' leaves it out)");
}

}  // namespace
}  // namespace uckpt::deepspeed
