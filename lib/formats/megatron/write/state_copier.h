// Copies values of the source's pickles into a file of the target, their tensors too.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/formats/megatron/write/output_file.h"
#include "lib/formats/megatron/write/rank_parts.h"
#include "lib/formats/megatron/write/source_state.h"

namespace uckpt::megatron {

class StateCopier {
 public:
  StateCopier(OutputFile& file, RankParts& parts, std::vector<std::string>& notes)
      : file_(file), parts_(parts), notes_(notes) {}

  void copy(const pickle::Value& value, const SourceFile& from) {
    file_.out().copy(value, replace(value, from));
  }
  // For edited copies. Tensors are in the catalog, under their paths; for one that is not selected None
  // stands, and a note says so.
  pickle::Pickler::Replace replace(const pickle::Value& value, const SourceFile& from);

 private:
  std::optional<uint32_t> find(const std::string& path, const SourceFile& from) const;

  OutputFile& file_;
  RankParts& parts_;
  std::vector<std::string>& notes_;
  std::map<const pickle::Document*, std::vector<uint8_t>> leaves_;
};

}  // namespace uckpt::megatron
