// Copies values of the source's pickles into a file to be.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/formats/megatron/write/target.h"

namespace uckpt::megatron {

// Tensors in them are in the catalog, under their paths.
class StateCopier {
 public:
  StateCopier(OutputFile& file, const TargetCheckpoint& target) : file_(file), target_(target) {}

  // None stands for a tensor that is not selected, and a note says so.
  void copy(const pickle::Value& value, const SourceFile& from);

 private:
  std::optional<uint32_t> find(const std::string& path, const SourceFile& from) const;

  OutputFile& file_;
  const TargetCheckpoint& target_;
  std::map<const pickle::Document*, std::vector<uint8_t>> leaves_;
};

}  // namespace uckpt::megatron
