#include "lib/formats/megatron/remainders.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "lib/base/text.h"
#include "lib/formats/megatron/rounding.h"

namespace uckpt::megatron {

namespace {

enum class Look : uint8_t { kFractions, kSmall, kRemainders };

// Numbers of 16 bits and no others. Norms and biases of a fresh model are whole numbers, too, but small ones.
Look look_of(const std::vector<float>& numbers) {
  constexpr float kMost = 32768, kSmall = 128;
  bool is_small = true;
  for (const float n : numbers) {
    if (n != std::trunc(n) || std::fabs(n) > kMost) return Look::kFractions;
    is_small &= std::fabs(n) <= kSmall;
  }
  return is_small ? Look::kSmall : Look::kRemainders;
}

std::optional<Look> look_of(const Catalog& catalog, const Tensor& master) {
  constexpr int64_t kSample = 64;
  if (!master.refusal.empty() || master.pieces.count == 0) return std::nullopt;
  const Piece& piece = catalog.pieces_of(master.pieces).front();
  const auto axes = catalog.axes_of(piece);
  if (piece.flags != kPlain || piece.file == kLiteral) return std::nullopt;
  const bool is_run = !axes.empty() && axes.back().stride == 1;
  const auto numbers = sample(*catalog.files[piece.file], piece.offset, master.dtype,
                              is_run ? std::min(axes.back().extent, kSample) : 1);
  return numbers ? std::optional(look_of(*numbers)) : std::nullopt;
}

// Calls `visit` for each master of a bf16 weight with that.
template <class Visit>
void each_master(Catalog& catalog, const Visit& visit) {
  const auto see = [&](Tensor& t) {
    const auto weight = std::ranges::find_if(t.copies, &Copy::is_module);
    if (t.state == state::kMaster && weight != t.copies.end() && weight->dtype == DType::kBF16)
      visit(t, *weight);
  };
  for (Tensor& t : catalog.tensors) see(t);
  for (RankSet& set : catalog.ranks)
    for (Tensor& t : set.tensors) see(t);
}

bool are_remainders(Catalog& catalog) {
  bool found = false, fits = true;
  each_master(catalog, [&](const Tensor& master, const Copy&) {
    const auto look = fits ? look_of(catalog, master) : std::nullopt;
    found |= look == Look::kRemainders;
    fits &= look != Look::kFractions;
  });
  return found && fits;
}

}  // namespace

Tensor refused_remainders() {
  Tensor out;
  out.state = state::kOther;
  out.name = "optimizer.masters";
  out.dtype = DType::kI16;
  out.layout = "remainders";
  out.refusal =
      "the masters are remainders, the 16 bits that bf16 weights lack of them (store_param_remainders), and "
      "no fp32: --drop optimizer.masters leaves them out, --states param the moments, too";
  return out;
}

void set_remainders_apart(Catalog& catalog) {
  const auto said = catalog.settings.find("use_precision_aware_optimizer");
  if (said == catalog.settings.end() || said->second != ModelSetting(true) || !are_remainders(catalog))
    return;
  each_master(catalog, [&](Tensor& t, const Copy& weight) {
    t.state = state::kParam;
    t.pieces = weight.pieces;
    t.dtype = weight.dtype;
    std::erase_if(t.copies, [](const Copy& c) { return !c.is_replica; });  // the others are of the master
    for (Copy& c : t.copies) c.is_replica = false;
  });
  catalog.tensors.push_back(refused_remainders());
}

}  // namespace uckpt::megatron
