#include "lib/formats/megatron/rank_folder.h"

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/formats/zero_padded.h"

namespace uckpt::megatron {

namespace {

constexpr std::string_view kPrefix = "mp_rank_";
constexpr size_t kMostDigits = 9, kMostNumbers = 3;

}  // namespace

std::string rank_folder_name(const Rank& rank, const Parallelism& p) {
  std::string out = cat(kPrefix, zero_padded(rank.tp, 2));
  if (p.pp > 1) out += cat("_", zero_padded(rank.pp, 3));
  if (p.ep > 1) out += cat("_", zero_padded(rank.ep, 3));
  return out;
}

std::vector<int64_t> rank_numbers(std::string_view name) {
  if (!name.starts_with(kPrefix)) return {};
  name.remove_prefix(kPrefix.size());
  std::vector<int64_t> out;
  while (out.size() < kMostNumbers) {
    size_t digits = 0;
    while (digits < name.size() && name[digits] >= '0' && name[digits] <= '9') ++digits;
    if (digits == 0 || digits > kMostDigits) return {};
    int64_t n = 0;
    std::from_chars(name.data(), name.data() + digits, n);
    out.push_back(n);
    name.remove_prefix(digits);
    if (name.empty()) return out;
    if (name.front() != '_') return {};
    name.remove_prefix(1);
  }
  return {};
}

std::vector<Rank> ranks_of(const Parallelism& p) {
  // With one expert rank the file of a dense rank is the file of its experts, too.
  const int64_t experts = p.etp * p.ep;
  if (p.etp > p.tp) {
    throw refused("megatron.ranks",
                  cat("args: expected an expert tensor parallel degree of at most ", p.tp,
                      ", that of the dense layers, found ", p.etp, ": ranks overwrote each other's files"));
  }
  if (experts < p.tp) {
    throw refused("megatron.ranks",
                  cat("args: the ", experts, " ranks (etp × ep) that write files leave out some of the ",
                      p.tp, " tensor parallel ranks: their parameters were never saved"));
  }
  std::vector<Rank> out;
  out.reserve(static_cast<size_t>(p.pp * experts));
  for (int64_t stage = 0; stage < p.pp; ++stage)
    for (int64_t r = 0; r < experts; ++r) out.push_back({r % p.tp, stage, r / p.etp, r % p.etp, r < p.tp});
  return out;
}

}  // namespace uckpt::megatron
