// Whole tensors cut for the ranks of a target, by the rules of its naming.
#pragma once

#include <memory>
#include <span>

#include "lib/convert/options.h"
#include "lib/tensor/shards.h"

namespace uckpt {

// What each tensor parallel rank of the target holds, by `--spec` or the rules that the input brings; null
// where there is one rank and no spec: it holds all. Throws refused `layout.no_rules` where there are several
// and no rules, and what does not fit as one refusal.
std::shared_ptr<const Shards> cut_for_target(const Catalog& catalog, std::span<const uint32_t> tensors,
                                             const ConvertOptions& options);

}  // namespace uckpt
