// What formats with one tensor a name take of a checkpoint that has several states of a parameter.
#pragma once

#include <string>
#include <vector>

#include "lib/formats/writer.h"

namespace uckpt {

struct PlainTensor {
  size_t index;  // into WriteRequest::tensors
  std::string name;
};

// Of each parameter the fp32 master, else the module weight; and buffers. Where states were asked for, all
// of those, led by their state if several have one name. `notes` tells what was taken and what is left out.
// Throws refused `select.nothing` if nothing is left.
std::vector<PlainTensor> plain_tensors(const Catalog& catalog, const WriteRequest& request,
                                       std::vector<std::string>& notes);

}  // namespace uckpt
