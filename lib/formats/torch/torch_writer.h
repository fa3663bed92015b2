// torch.save files. Of an input that is one torch.save file, or was made of one, the same tree; of any other
// an OrderedDict of names and tensors, which torch.load(weights_only=True) reads.
//
// Tensors are written contiguous, each with a storage of its own: views of one storage no longer share
// memory, names of one and the same view do. Of a tensor with Python attributes these are kept if it is a
// parameter; hooks are not kept. numpy arrays stay as the pickle has them, whatever type is asked for.
#pragma once

#include "lib/formats/writer.h"

namespace uckpt::torch {

// What was not selected leaves its dict; elsewhere in the tree None stands for it.
TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request);

}  // namespace uckpt::torch
