// Weights and optimizer states of a Megatron-core checkpoint, put into a catalog.
#pragma once

#include "lib/formats/dcp/saved.h"
#include "lib/formats/megatron/core/common.h"

namespace uckpt::megatron {

struct CoreSource {
  const InputFolder& folder;
  const OpenOptions& options;
  dcp::Saved& saved;
  Common& common;
  const Parallelism& mesh;
  bool is_plain;  // torch wrote it
};

// Whole tensors under the names of the modules. A weight of fewer bits is a copy of its fp32 master; where
// the optimizer keeps no master the fp32 weight is that. `step` is one number a parameter.
void add_states(const CoreSource& source, dcp::CatalogBuilder& builder, Catalog& catalog);

// common.pt as an object, and the tensors in it.
void add_common(const Common& common, const OpenOptions& options, dcp::CatalogBuilder& builder,
                Catalog& catalog);

}  // namespace uckpt::megatron
