// Does a run of states belong to a weight? Its masters round to it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lib/io/input.h"
#include "lib/tensor/dtype.h"

namespace uckpt::megatron {

// `numel` elements back to back; nothing for types that are neither f32 nor of 16 bits.
std::optional<std::vector<float>> sample(const ByteSource& bytes, int64_t offset, DType dtype, int64_t numel);

// A weight in 16 bits is its master, rounded: half a step of the narrower type.
bool is_rounding(float weight, float master, DType dtype);

}  // namespace uckpt::megatron
