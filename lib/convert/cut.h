// Whole tensors cut for the ranks of a target, by the rules of its naming.
#pragma once

#include <memory>
#include <span>

#include "lib/convert/options.h"
#include "lib/formats/writer.h"
#include "lib/tensor/shards.h"

namespace uckpt {

// What each rank of the target holds (those of `Writer::ranks`, else the tensor parallel ones), by `--spec`
// or the rules that the input brings; null where there is one rank and no spec: it holds all. Null, too, for
// a writer with ranks of its own where there are no rules: it tells what it needs. Throws refused
// `layout.no_rules` where there are several tensor parallel ranks and no rules, and what does not fit as one
// refusal.
std::shared_ptr<const Shards> cut_for_target(const Catalog& catalog, std::span<const uint32_t> tensors,
                                             const Writer& writer, const ConvertOptions& options);

}  // namespace uckpt
