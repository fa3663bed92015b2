// The training run's `args`: an argparse.Namespace that every file of a Megatron checkpoint carries.
//
// The names are those of Megatron-LM's arguments.py; which of them a file has depends on its age. All values
// are the file's own, so hostile.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "lib/pickle/value.h"
#include "lib/tensor/catalog.h"
#include "lib/tensor/model_settings.h"

namespace uckpt::megatron {

class Arguments {
 public:
  Arguments() = default;
  // A Namespace or a dict; anything else has no arguments. None, lists, enums and other objects are left out;
  // a torch dtype is its name in the catalog's words ("bf16"). `num_query_groups` counts only with
  // `group_query_attention`: Megatron ignores it else.
  static Arguments read(const pickle::Value& args);

  const ModelSettings& settings() const { return settings_; }
  // Whole numbers, and truths as 0 and 1: what `given … from` looks up.
  std::map<std::string, int64_t, std::less<>> numbers() const;
  bool empty() const { return settings_.empty(); }

  std::optional<int64_t> number(std::string_view name) const;
  std::optional<bool> truth(std::string_view name) const;
  std::optional<std::string_view> text(std::string_view name) const;

  // The head of the model shares the embedding's table; Megatron's default.
  bool tied() const { return !truth("untie_embeddings_and_output_weights").value_or(false); }
  bool distributed_optimizer() const { return truth("use_distributed_optimizer").value_or(false); }
  bool overlap_grad_reduce() const { return truth("overlap_grad_reduce").value_or(false); }
  // Elements at which a bucket of gradients is full, where the run said so.
  std::optional<int64_t> bucket_size() const;

 private:
  ModelSettings settings_;
};

// The degrees of parallelism. Absent ones are 1, etp is tp. All are at least 1 and at most 2^20, and so are
// the products of those that one rank file is counted by.
struct Parallelism {
  int64_t tp = 1, pp = 1, vp = 1, ep = 1, etp = 1, cp = 1, dp = 1;
  int64_t world = 1;  // as stated, else what one data parallel replica takes
  Mesh mesh() const;
};

// Throws refused `megatron.arguments` for a degree out of range, and for a world that they do not divide.
Parallelism parallelism_of(const Arguments& arguments);

// Puts the arguments where specs and writers look for them.
void hand_over(const Arguments& arguments, Catalog& catalog);

}  // namespace uckpt::megatron
