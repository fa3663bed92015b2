#include "lib/formats/hdf5/hdf5_writer.h"

#include "lib/base/text.h"
#include "lib/formats/hdf5/consolidated.h"

namespace uckpt::hdf5 {

namespace {

// The source's layout as UCL: the rules that the source itself gave, which write it back. Without them a
// program of no rules: how the format cut the tensors is its own business.
std::string layout_text(const Catalog& catalog) {
  if (!catalog.rules.empty()) return catalog.rules;
  const Mesh& m = catalog.mesh;
  return cat("ucl 1\n# ", escape(catalog.description), ": tp ", m.tp, ", pp ", m.pp, ", dp ", m.dp, ", ep ",
             m.ep, "; every tensor is whole here\n");
}

MadeFile make(const Skeleton& skeleton, const std::vector<size_t>& dataset_of_hole, const std::string& path) {
  const auto made = create_skeleton(path, skeleton);
  MadeFile out;
  out.size = made.file_size;
  for (uint32_t hole = 0; hole < dataset_of_hole.size(); ++hole) {
    const size_t dataset = dataset_of_hole[hole];
    out.hole_offsets.push_back(made.offsets[dataset]);
    if (made.digest_offsets[dataset] >= 0) out.digests.push_back({hole, made.digest_offsets[dataset]});
  }
  return out;
}

}  // namespace

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  Consolidated file =
      consolidated_skeleton(catalog, request.tensors, request.created_by, layout_text(catalog));
  for (size_t i = 0; i < request.tensors.size(); ++i)
    file.skeleton.datasets[file.tensor_datasets[i]].dtype = request.dtype_of(catalog, i);
  constexpr uint32_t kNone = 0xffffffff;
  std::vector<uint32_t> tensor_of(file.skeleton.datasets.size(), kNone);
  for (size_t i = 0; i < request.tensors.size(); ++i) {
    if (!catalog.tensors[request.tensors[i]].alias) tensor_of[file.tensor_datasets[i]] = request.tensors[i];
  }
  for (uint32_t i = 0; i < catalog.objects.size(); ++i)
    tensor_of[file.object_datasets[i]] = request.first_object + i;

  TargetLayout layout;
  std::vector<size_t> dataset_of_hole;
  for (size_t d = 0; d < tensor_of.size(); ++d) {
    if (tensor_of[d] == kNone) continue;
    const uint32_t shard = layout.add_whole_shard(catalog, tensor_of[d]);
    layout.holes.push_back({shard, 0, 0, 0, layout.shards[shard].numel, file.skeleton.datasets[d].dtype});
    dataset_of_hole.push_back(d);
  }
  layout.files.push_back(
      {"", 0, {}, [skeleton = std::move(file.skeleton), dataset_of_hole](const std::string& path) {
         return make(skeleton, dataset_of_hole, path);
       }});
  return layout;
}

}  // namespace uckpt::hdf5
