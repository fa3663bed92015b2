// What a distributed checkpoint, or a file of tensors, has beside a model and its optimizer.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::dcp {

// Numbers near the root that tell how far training had come, the likeliest first.
inline constexpr std::array<std::string_view, 4> kIterationWords = {"iteration", "global_steps",
                                                                    "global_step", "step"};
// Is it the key of one: "step", "train_state.step"?
bool is_iteration_key(std::string_view key, std::string_view word);

// For formats that have no place for anything else: notes which of the tensors that are to be written belong
// to no parameter, and which objects of a distributed checkpoint are neither options nor states of its
// optimizer.
void tell_lost_state(const Catalog& catalog, std::span<const uint32_t> tensors,
                     std::vector<std::string>& notes);

}  // namespace uckpt::dcp
