// The parts of a model that have files of their own: the layers of a pipeline, and experts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/formats/deepspeed/shapes.h"
#include "lib/formats/deepspeed/write/source_objects.h"

namespace uckpt::deepspeed {

// A pipeline's layer that is a module: one file, even if it has no weights. Functions and further uses of a
// tied module have a number and no file.
struct PipelineLayer {
  int64_t number = 0;
  std::string prefix;              // before the names in its file: "3.", "tied_modules.embed."
  std::vector<std::string> names;  // with the prefix, in the order of the file
  pickle::Value like;              // the source's file

  bool is_tied() const { return prefix.starts_with(kTiedModules); }
};

// The experts of one layer, which are all alike.
struct MoeLayer {
  int64_t number = 0;              // among the model's MoE layers, as file names have it
  std::string prefix;              // of names, up to the expert's number
  int64_t experts = 0;             // over all ranks
  std::vector<std::string> parts;  // of names, after the number: ".up.weight"
  pickle::Value like;              // the file of one expert of the source

  std::string name(int64_t expert, const std::string& part) const {
    return prefix + std::to_string(expert) + part;
  }
};

// `names` are those of all weights that are to be written. Ascending numbers; empty where the source is no
// pipeline, or has no experts. Throw refused `deepspeed.groups` where files and weights do not go together,
// `deepspeed.experts` where experts of one layer are not alike.
std::vector<PipelineLayer> pipeline_layers(const Catalog& catalog, const SourceObjects& source,
                                           const std::vector<std::string>& names);
std::vector<MoeLayer> moe_layers(const Catalog& catalog, const SourceObjects& source,
                                 const std::vector<std::string>& names);

// The keys of a dict that are text, in order; none where it is no dict.
std::vector<std::string> keys_of(const pickle::Value& dict);

// `deepspeed.groups`: the weights are not those that the source's files speak of.
Error other_names(const Catalog& catalog, std::string what);

}  // namespace uckpt::deepspeed
