// universal_checkpoint_info: how a checkpoint itself says its tensor parallel fragments are to be joined.
// Source: DeepSpeed's checkpoint/ds_to_universal.py and module_inject/auto_tp affine maps; versions 0.0 to
// 0.4.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/pickle/value.h"
#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

// `parameter_with_sub_params`: several parameters fused along one dim, each cut by itself.
struct SubParams {
  std::vector<std::string> patterns;
  std::vector<int64_t> sizes;    // of the sub-parameters, along `dim`
  std::optional<int64_t> equal;  // instead of sizes (versions below 0.4): so many equal parts
  size_t dim = 0;
};

// One strided copy between a shard and the whole tensor; counted in elements.
struct AffinePiece {
  Shape shape, whole_strides, shard_strides;
  int64_t whole_offset = 0, shard_offset = 0;
  double scale = 1;  // the shard holds the value times this
};
struct AffineMap {
  std::string pattern;
  Shape whole;
  std::map<int64_t, std::vector<AffinePiece>> ranks;  // by tensor parallel rank
};

struct UniversalInfo {
  double version = 0;
  std::vector<std::string> vocabulary, replicated, averaged, row_parallel, two_sub_params;
  std::vector<SubParams> sub_params;
  std::map<std::string, std::vector<std::vector<int64_t>>> shard_widths;  // pattern -> sub-parameter -> rank
  std::vector<AffineMap> affine;
  std::vector<std::string> unsupported;  // "pattern: reason"
  std::optional<int64_t> original_vocabulary;
};

// Throws refused `deepspeed.malformed` where an entry is not what DeepSpeed writes.
UniversalInfo read_universal_info(const pickle::Value& info);

}  // namespace uckpt::deepspeed
