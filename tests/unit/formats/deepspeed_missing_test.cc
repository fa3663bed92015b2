// What is made up for a DeepSpeed checkpoint, from catalogs in memory.
#include <doctest/doctest.h>

#include <functional>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/missing.h"
#include "lib/io/input.h"

namespace uckpt::deepspeed {
namespace {

class Input {
 public:
  Input() { catalog.path = "in"; }
  Input& put(const std::string& state, const std::string& name, DType dtype, Shape shape) {
    Tensor t{};
    t.state = state, t.name = name, t.dtype = dtype, t.shape = std::move(shape);
    const uint32_t mark = catalog.piece_mark();
    catalog.add_literal(Bytes(static_cast<size_t>(numel_of(t.shape) * item_size(dtype))), numel_of(t.shape));
    t.pieces = catalog.pieces_since(mark);
    tensors.push_back(static_cast<uint32_t>(catalog.tensors.size()));
    catalog.tensors.push_back(std::move(t));
    return *this;
  }
  Input& alias(const std::string& name, uint32_t of) {
    Tensor t = catalog.tensors[of];
    t.name = name, t.pieces = {}, t.alias = of;
    tensors.push_back(static_cast<uint32_t>(catalog.tensors.size()));
    catalog.tensors.push_back(std::move(t));
    return *this;
  }

  // What is refused, or "".
  std::string complete(bool fill) {
    try {
      deepspeed::complete(catalog, tensors, fill, notes);
    } catch (const Error& e) {
      CHECK(!(e.hint_text().empty() && !fill));
      return cat(e.code(), ": ", e.tensor(), ": ", e.message());
    }
    return "";
  }
  std::string listed() const {
    std::string text;
    for (const uint32_t i : tensors) {
      const Tensor& t = catalog.tensors[i];
      text += cat(text.empty() ? "" : " ", t.path(), ":", name_of(t.dtype), shape_text(t.shape),
                  t.alias ? "=" : "");
    }
    return text;
  }

  Catalog catalog;
  std::vector<uint32_t> tensors;
  std::vector<std::string> notes;
};

TEST_CASE("weights alone become masters, with the states of a new AdamW") {
  Input in;
  in.put("param", "b", DType::kBF16, {2, 3})
      .put("param", "a", DType::kF32, {1})
      .put("param", "ids", DType::kI64, {4});
  in.alias("tied", 0);
  CHECK(
      in.complete(false) ==
      "deepspeed.no_masters: : it has weights and no fp32 masters, which a DeepSpeed checkpoint is made of");
  REQUIRE(in.complete(true) == "");
  CHECK(in.listed() ==
        "fp32/b:bf16[2, 3] fp32/a:fp32[1] param/ids:i64[4] step/b:fp32[] step/a:fp32[] exp_avg/b:fp32[2, 3] "
        "exp_avg/a:fp32[1] exp_avg_sq/b:fp32[2, 3] exp_avg_sq/a:fp32[1] fp32/tied:bf16[2, 3]=");
  CHECK(in.catalog.tensors[0].module_dtype == DType::kBF16);
  REQUIRE(in.notes.size() == 4);
  CHECK(in.notes[0] ==
        "--missing zero: the fp32 masters of 3 parameters are taken from their bf16 and fp32 weights, every "
        "floating one of which is trained");
  CHECK(in.notes[1].starts_with(
      "--missing zero: all 2 parameters are put into one group with the defaults of torch"));
  CHECK(in.notes[2] == "--missing zero: exp_avg and exp_avg_sq of 2 parameters are zeros");
  CHECK(in.notes[3] == "--missing zero: the step of 2 parameters is 0");
}

TEST_CASE("zeros are pieces that cover their tensors, all from one place") {
  Input in;
  in.put("param", "w", DType::kF32, {7, 5});
  REQUIRE(in.complete(true) == "");
  REQUIRE(in.catalog.files.size() == 1);
  CHECK(in.catalog.files[0]->size() == 8);
  for (const uint32_t i : in.tensors) {
    const Tensor& t = in.catalog.tensors[i];
    if (!t.state.starts_with("exp_avg")) continue;
    REQUIRE(t.pieces.count == 1);
    const auto axes = in.catalog.axes_of(in.catalog.pieces_of(t.pieces)[0]);
    REQUIRE(axes.size() == 1);
    CHECK(axes[0].size == 35);
    CHECK(axes[0].extent == 35);
    CHECK(axes[0].stride == 0);
  }
}

TEST_CASE("what an input with masters lacks") {
  Input bare;
  bare.put("fp32", "w", DType::kF32, {4}).put("param", "frozen", DType::kF32, {2});
  CHECK(bare.complete(false).starts_with("deepspeed.no_groups: "));
  REQUIRE(bare.complete(true) == "");  // what has no master is frozen where others have one
  CHECK(bare.listed() ==
        "fp32/w:fp32[4] param/frozen:fp32[2] step/w:fp32[] exp_avg/w:fp32[4] exp_avg_sq/w:fp32[4]");
  Input momentum;  // its own states tell its optimizer
  momentum.put("fp32", "w", DType::kF32, {4}).put("fp32", "v", DType::kF32, {3});
  momentum.put("momentum_buffer", "w", DType::kF32, {4});
  REQUIRE(momentum.complete(true) == "");
  CHECK(momentum.listed() ==
        "fp32/w:fp32[4] fp32/v:fp32[3] momentum_buffer/w:fp32[4] momentum_buffer/v:fp32[3]");
  Input odd;  // nothing tells what this one begins with
  odd.put("fp32", "w", DType::kF32, {4})
      .put("fp32", "v", DType::kF32, {3})
      .put("mu_product", "w", DType::kF32, {4});
  CHECK(odd.complete(true) ==
        "deepspeed.missing: mu_product/v: it is not there, and nothing tells what it begins with");
}

}  // namespace
}  // namespace uckpt::deepspeed
