// Puts a torch.save file into a catalog: its tensors and arrays under their names in the tree, and the tree
// itself.
#pragma once

#include <memory>
#include <string>

#include "lib/formats/format.h"
#include "lib/formats/torch/torch_file.h"

namespace uckpt::torch {

// A small file's checksums are checked at once; those of a large one while its records are copied.
std::unique_ptr<TorchFile> open_checked(const std::shared_ptr<ByteSource>& source,
                                        const OpenOptions& options);

// Enters the tensors and arrays, the classes met, and why it cannot be converted, if so. Tells the file's
// number. `source` is what the file was opened from.
FileId enter_tensors(const TorchFile& file, const std::shared_ptr<ByteSource>& source,
                     const OpenOptions& options, Catalog& catalog);

// Enters the tree: an object called after the file.
void enter_tree(const TorchFile& file, FileId id, const OpenOptions& options, Catalog& catalog);

}  // namespace uckpt::torch
