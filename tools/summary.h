// What a catalog holds, counted: for `inspect` and the total line of `ls`.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tensor/catalog.h"

namespace uckpt::cli {

struct StateCount {
  std::string state;
  int64_t tensors = 0;     // aliases among them
  int64_t parameters = 0;  // elements, aliases not counted again
  int64_t bytes = 0;
  std::vector<std::string> dtypes;  // in the order met
};

struct Summary {
  std::vector<StateCount> states;  // masters and their states first, then param, buffer, other
  StateCount total;
  int64_t model_parameters = 0;                // elements of the masters, and of the weights without one
  std::vector<std::string> module_dtypes;      // of module weights that lie beside their masters
  std::vector<std::vector<std::string>> tied;  // paths that share their values, the stored one first
  std::vector<uint32_t> refused;               // tensors that cannot be converted
  std::vector<std::string> refusals;           // the same for people: a line for each reason
  int64_t file_bytes = 0;
};

Summary summarise(const Catalog& catalog);

// The order in which states are shown: masters and their states first, then param, buffer, other.
int state_rank(std::string_view state);

// "fp32/a, fp32/b and 40 more: sparse tensors cannot be converted": a line for each reason among these.
std::vector<std::string> refusal_lines(std::span<const Tensor* const> tensors);

// For sums that are only shown: views that repeat their bytes can make tensors of any size.
int64_t capped_add(int64_t a, int64_t b);
int64_t capped_mul(int64_t a, int64_t b);

std::string size_text(int64_t bytes);  // "1.50 GiB"
// "f32, bf16"
std::string joined(const std::vector<std::string>& items);
// "1 tensor", "3 tensors"
std::string counted(int64_t n, std::string_view noun);

}  // namespace uckpt::cli
