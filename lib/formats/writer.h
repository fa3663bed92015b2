// A kind of output: how it lays tensors out. Writers do not write; see lib/tensor/target.h. The one list of
// them is writers.cc.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tensor/catalog.h"
#include "lib/tensor/shards.h"
#include "lib/tensor/target.h"

namespace uckpt {

struct WriteRequest {
  std::vector<uint32_t> tensors;  // of the catalog, each alias after its source
  uint32_t first_object = 0;      // Catalog::add_object_tensors(): object i is tensor first_object + i
  std::string created_by;         // "uckpt 0.1.0"
  std::string path;               // of the output, for writers that make a file or a folder as it is called
  std::vector<std::optional<DType>>
      dtypes;                  // parallel to `tensors`: what is to be written instead of its own
  int64_t shard_size = 0;      // bytes of one file at most; 0: all in one
  bool states_chosen = false;  // --states: all of `tensors` is meant

  std::map<std::string, int64_t, std::less<>> mesh;  // --layout: dp, tp, pp, vp, ep, etp, zero
  std::vector<int64_t> stage_sizes;                  // --stages: layers of each pipeline stage

  std::shared_ptr<const Shards> shards;  // what each tensor parallel rank holds; null: all of it

  DType dtype_of(const Catalog& catalog, size_t i) const {
    return i < dtypes.size() && dtypes[i] ? *dtypes[i] : catalog.tensors[tensors[i]].dtype;
  }
};

// Adds to the catalog and to the chosen tensors what an output needs and the input lacks, and says so in
// `notes`; without `fill` it throws refused instead, for the first such thing.
using Complete = void (*)(Catalog& catalog, std::vector<uint32_t>& tensors, bool fill,
                          std::vector<std::string>& notes);

// Sizes of a mesh: {"tp", 2}.
using MeshSizes = std::map<std::string, int64_t, std::less<>>;

// What can be done where a format has no such type: only floating numbers are cast.
inline std::string way_round(DType dtype) {
  return is_float(dtype) ? "--drop leaves it out, --dtype writes another type" : "--drop leaves it out";
}

// Files whose bytes are all known when they are laid out.
inline void add_fixed_file(TargetLayout& layout, std::string name, SharedBytes bytes) {
  TargetFile& file = layout.files.emplace_back();
  file.name = std::move(name);
  file.size = static_cast<int64_t>(bytes.size());
  file.fixed.push_back({0, std::move(bytes)});
}
inline void add_text_file(TargetLayout& layout, std::string name, std::string_view text) {
  add_fixed_file(layout, std::move(name), Bytes(text.begin(), text.end()));
}

struct Writer {
  std::string_view name;                     // for --to
  std::string_view what;                     // one line for --help and README
  std::vector<std::string_view> extensions;  // ".h5"
  TargetLayout (*lay_out)(const Catalog& catalog, const WriteRequest& request);
  bool takes_mesh = false;        // --layout says something about it, and tensors may be cut over its ranks
  bool takes_shard_size = false;  // it may be several files, of a size that --shard-size bounds
  Complete complete = nullptr;    // null: it lacks nothing
  // The coordinates of its ranks, on the same axes each, for the sizes that --layout asks for: what it does
  // not say is as the source has it. Null: tensor parallel ranks are all that rules cut for.
  std::vector<Coordinate> (*ranks)(const Catalog& catalog, const MeshSizes& asked) = nullptr;
  std::string_view spec_folder = {};  // shipped specs that cut for it are tried where no --spec is given
};

std::span<const Writer> writers();
// By `--to`, else by the extension of the output's path. Throws trouble (`output.kind`) that lists the kinds.
const Writer& writer_for(std::string_view kind, std::string_view path);

}  // namespace uckpt
