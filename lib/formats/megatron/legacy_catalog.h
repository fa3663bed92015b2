// The catalog of a legacy checkpoint: fragments by rank and virtual chunk, what belongs to no parameter, the
// pickles themselves, and what is said to people.
#pragma once

#include "lib/formats/megatron/legacy_checkpoint.h"

namespace uckpt::megatron {

// One RankSet for each virtual chunk of each rank's file, at {tp, pp, vp, ep, etp}. A dense parameter's
// optimizer states are saved once, though the files of several expert ranks have its weight: each of these
// ranks gets them, as the same pieces. Sets `refusal` where something is missing.
void add_rank_sets(LegacyCheckpoint& checkpoint, bool allow_expand, Catalog& catalog);

void add_loose(LegacyCheckpoint& checkpoint, bool allow_expand, Catalog& catalog);
void add_objects(LegacyCheckpoint& checkpoint, Catalog& catalog);

// Layers that each virtual chunk of each stage holds, as the names in the files count them; by stage, then by
// chunk; -1 where no file is there. Notes a problem where they are not as many as the arguments say.
std::vector<int64_t> count_layers(LegacyCheckpoint& checkpoint);
void add_facts(const LegacyCheckpoint& checkpoint, const std::vector<int64_t>& layers, Catalog& catalog);

}  // namespace uckpt::megatron
