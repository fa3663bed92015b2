#include "lib/formats/hdf5/hdf5_writer.h"

#include <memory>

#include "lib/base/text.h"
#include "lib/formats/hdf5/consolidated.h"

namespace uckpt::hdf5 {

namespace {

// The source's layout as UCL. Every tensor of the file is whole, and how ZeRO cut it over the data-parallel
// ranks is the format's own business, so one rule says it all.
std::string layout_text(const Catalog& catalog) {
  const Mesh& m = catalog.mesh;
  return cat("ucl 1\n# ", escape(catalog.description), ": tp ", m.tp, ", pp ", m.pp, ", dp ", m.dp, ", ep ",
             m.ep, "\nlayout source over tp, pp, dp, ep {\n    \"**\" replicate\n}\n");
}

struct Laid {
  Skeleton skeleton;
  std::vector<size_t> dataset_of_hole;
};

uckpt::Placement preallocate(const Laid& laid, const std::string& path) {
  const auto made = create_skeleton(path, laid.skeleton);
  uckpt::Placement out;
  out.file_size = made.file_size;
  for (uint32_t hole = 0; hole < laid.dataset_of_hole.size(); ++hole) {
    const size_t dataset = laid.dataset_of_hole[hole];
    out.hole_offsets.push_back(made.offsets[dataset]);
    if (made.digest_offsets[dataset] >= 0) out.digests.push_back({hole, made.digest_offsets[dataset]});
  }
  return out;
}

}  // namespace

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  Consolidated file =
      consolidated_skeleton(catalog, request.tensors, request.created_by, layout_text(catalog));
  constexpr uint32_t kNone = 0xffffffff;
  std::vector<uint32_t> tensor_of(file.skeleton.datasets.size(), kNone);
  for (size_t i = 0; i < request.tensors.size(); ++i) {
    if (!catalog.tensors[request.tensors[i]].alias) tensor_of[file.tensor_datasets[i]] = request.tensors[i];
  }
  for (uint32_t i = 0; i < catalog.objects.size(); ++i)
    tensor_of[file.object_datasets[i]] = request.first_object + i;

  TargetLayout layout;
  auto laid = std::make_shared<Laid>();
  for (size_t d = 0; d < tensor_of.size(); ++d) {
    if (tensor_of[d] == kNone) continue;
    const Tensor& t = catalog.tensors[tensor_of[d]];
    layout.add_hole(t.path(), tensor_of[d], bytes_of(t));
    layout.fill_with_whole(numel_of(t.shape));
    laid->dataset_of_hole.push_back(d);
  }
  laid->skeleton = std::move(file.skeleton);
  layout.preallocate = [laid](const std::string& path) { return preallocate(*laid, path); };
  return layout;
}

}  // namespace uckpt::hdf5
