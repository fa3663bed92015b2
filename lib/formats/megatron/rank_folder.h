// Which rank folders a legacy checkpoint has: `mp_rank_TT`, `mp_rank_TT_PPP`, `mp_rank_TT_EEE` or
// `mp_rank_TT_PPP_EEE`, by the degrees of parallelism (`get_checkpoint_name` of Megatron-LM's
// checkpointing.py). A name does not say whether its second number counts stages or expert ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/megatron/arguments.h"

namespace uckpt::megatron {

// Where the rank that wrote a folder stands.
struct Rank {
  int64_t tp = 0, pp = 0, ep = 0, etp = 0;
  // It is the first of the ranks that share its dense parameters: its file has their optimizer's states.
  bool is_dense_owner = true;
  bool operator==(const Rank&) const = default;
};

// "mp_rank_01_002".
std::string rank_folder_name(const Rank& rank, const Parallelism& p);

// The numbers in such a name, one to three; none for another name.
std::vector<int64_t> rank_numbers(std::string_view name);

// The ranks that write a folder, by stage, then as they count: in each stage the ranks of one copy of the
// experts. Dense tensor parallel ranks count fastest; of experts, etp counts fastest, then ep. So the folders
// need not form a grid: at tp 2, etp 1, ep 4 they are (tp 0, ep 0), (tp 1, ep 1), (tp 0, ep 2), (tp 1, ep 3).
// Throws refused `megatron.ranks` where two ranks would write one folder, or where the experts' ranks leave
// tensor parallel ranks out: Megatron itself loses parameters then.
std::vector<Rank> ranks_of(const Parallelism& p);

}  // namespace uckpt::megatron
