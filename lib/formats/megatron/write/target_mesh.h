// The mesh of a legacy Megatron checkpoint to be: which ranks there are, and which files they write.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::megatron {

using AskedSizes = std::map<std::string, int64_t, std::less<>>;  // --layout

// One `mp_rank_*` folder: the ranks with the same place on tp, pp and ep.
struct RankFile {
  int64_t tp = 0, pp = 0, ep = 0;
  int64_t etp = 0;  // where its experts are among those ranks that cut them
  // Its rank is the first one of the data parallel group of the dense parameters, or of the experts: who is
  // not leaves their optimizer states to another file.
  bool has_dense_states = true, has_expert_states = true;
  int64_t dp = 0;  // of the first rank that would write it
};

struct TargetMesh {
  int64_t tp = 1, pp = 1, vp = 1, ep = 1, etp = 1, cp = 1, dp = 1;
  std::vector<RankFile> files;  // stage by stage, in the order of their ranks

  int64_t world() const { return tp * pp * cp * dp; }
  std::string folder_of(const RankFile& file) const;  // "mp_rank_00_001"
  bool is_as(const Mesh& source) const {
    return tp == source.tp && pp == source.pp && vp == source.vp && ep == source.ep;
  }
};

// What is not asked for is as the source has it; `etp` follows `tp` where it does so there. The source's
// world is kept where it can be, else the smallest one is taken. Throws trouble `usage.layout` for sizes that
// Megatron does not run, or cannot tell apart in names of files.
TargetMesh target_mesh(const Catalog& source, const AskedSizes& asked);

// For Writer::ranks: {tp, pp, vp, ep, etp} of each chunk of each file.
std::vector<Coordinate> ranks(const Catalog& source, const AskedSizes& asked);

}  // namespace uckpt::megatron
