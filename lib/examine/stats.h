// Range, mean, deviation and norm of every tensor of a checkpoint, and how many of its elements are odd: the
// same bits for any layout and number of threads.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/examine/opened.h"
#include "lib/kernels/statistics.h"

namespace uckpt {

// Parallel to `opened.tensors`; further names of a tensor have what it has. Of types under a byte nothing is
// known but that they can be read. Where all tensors are read the checksums of the input are checked; throws
// what a read throws, and the first record that is damaged.
std::vector<kernels::Statistics> statistics_of(const Opened& opened, bool check_crc,
                                               const exec::Buffers& buffers, Progress& progress,
                                               const StopFlag& stop);

}  // namespace uckpt
