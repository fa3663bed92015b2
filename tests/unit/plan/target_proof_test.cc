// Shards that are laid out whole, and those that are not, also where their pieces follow no factoring.
#include "lib/plan/target_proof.h"

#include <doctest/doctest.h>

#include "lib/base/error.h"

namespace uckpt::plan {
namespace {

// One tensor of 8 elements in one shard: block a is [2, 2], block b [2, 2] behind it, in a shard of 2 × 2
// rows of unlike lengths.
struct Made {
  Catalog catalog;
  TargetLayout target;

  explicit Made(int64_t numel, bool is_padded) {
    catalog.path = "in";
    Tensor t{};
    t.name = "w", t.state = "fp32", t.dtype = DType::kF32, t.shape = {8};
    catalog.tensors.push_back(t);
    target.shards.push_back({0, numel, 0, 0, is_padded});
    target.files.push_back({"", numel * 4, {}, {}});
    target.holes.push_back({0, 0, 0, 0, numel, DType::kF32});
  }
  Made& piece(int64_t offset, int64_t first, int64_t outer, int64_t inner) {
    target.pieces.push_back({offset, static_cast<uint32_t>(target.axes.size()), 3});
    target.axes.insert(target.axes.end(), {{2, first, 1, 0}, {2, 0, 2, outer}, {2, 0, 2, inner}});
    ++target.shards[0].pieces;
    return *this;
  }
  std::string refusal() const {
    try {
      prove_target(catalog, target);
    } catch (const Error& e) {
      CHECK(e.code() == "plan.target");
      return e.message().substr(e.message().find(": ") + 2);
    }
    return "";
  }
};

TEST_CASE("a shard whose pieces nest") {
  CHECK(Made(8, false).piece(0, 0, 2, 1).piece(4, 1, 2, 1).refusal() == "");
  CHECK(Made(8, false).piece(0, 0, 4, 1).piece(2, 1, 4, 1).refusal() == "");
  CHECK(Made(8, false).piece(0, 0, 2, 1).piece(2, 1, 2, 1).refusal() != "");
  CHECK(Made(9, false).piece(0, 0, 2, 1).piece(4, 1, 2, 1).refusal() != "");
  CHECK(Made(9, true).piece(0, 0, 2, 1).piece(4, 1, 2, 1).refusal() == "");
}

TEST_CASE("a shard whose pieces follow no common factoring") {
  // a a . a a . | b b . . . b b: of 13
  CHECK(Made(13, true).piece(0, 0, 3, 1).piece(6, 1, 5, 1).refusal() == "");
  CHECK(Made(13, false).piece(0, 0, 3, 1).piece(6, 1, 5, 1).refusal() == "a shard of 13 elements is given 8");
  CHECK(Made(13, true).piece(0, 0, 3, 1).piece(4, 1, 5, 1).refusal() ==
        "two pieces of a shard meet at element 4");
  CHECK(Made(13, true).piece(0, 0, 3, 1).piece(7, 1, 5, 1).refusal() == "a piece lies outside its shard");
  CHECK(Made(13, true).piece(0, 0, 5, 0).piece(7, 1, 3, 1).refusal() != "");
  // Element by element: a . b a . b . . a b . a . b
  CHECK(Made(14, true).piece(0, 0, 8, 3).piece(2, 1, 7, 4).refusal() == "");
}

}  // namespace
}  // namespace uckpt::plan
