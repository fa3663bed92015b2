#include "lib/formats/hdf5/consolidated.h"

#include <unordered_map>
#include <unordered_set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/formats/settings_json.h"

namespace uckpt::hdf5 {
namespace {

std::optional<DType> module_dtype_of(const Tensor& tensor) {
  if (tensor.module_dtype) return tensor.module_dtype;
  for (const Copy& copy : tensor.copies)
    if (copy.is_module) return copy.dtype;
  return std::nullopt;
}

// Elements of the distinct parameters: a master and a module weight of one name are one parameter.
int64_t parameter_count(const Catalog& catalog, std::span<const uint32_t> tensors) {
  std::unordered_set<std::string_view> counted;
  int64_t count = 0;
  for (uint32_t index : tensors) {
    const Tensor& tensor = catalog.tensors[index];
    if (tensor.alias || (tensor.state != state::kMaster && tensor.state != state::kParam)) continue;
    if (!counted.insert(tensor.name).second) continue;
    const auto sum = checked_add(count, numel_of(tensor.shape));
    if (!sum) throw refused("hdf5.too_large", "the number of parameters does not fit in 64 bits");
    count = *sum;
  }
  return count;
}

void add_tensors(const Catalog& catalog, std::span<const uint32_t> tensors, Consolidated& file) {
  std::unordered_map<uint32_t, size_t> dataset_of;
  for (uint32_t index : tensors) {
    const Tensor& tensor = catalog.tensors[index];
    Dataset dataset{state_group(tensor.state), tensor.name, tensor.dtype, tensor.shape,
                    module_dtype_of(tensor),   {}};
    if (tensor.alias) {
      const auto source = dataset_of.find(*tensor.alias);
      if (source == dataset_of.end())
        throw refused("hdf5.alias", "it shares its bytes with a tensor that is not stored")
            .in_tensor(tensor.path());
      dataset.link_to = source->second;
    }
    dataset_of.emplace(index, file.skeleton.datasets.size());
    file.tensor_datasets.push_back(file.skeleton.datasets.size());
    file.skeleton.datasets.push_back(std::move(dataset));
  }
}

void add_objects(const Catalog& catalog, Consolidated& file) {
  for (const Object& object : catalog.objects) {
    const std::string group = cat(place::kObjects, "/", escape_name(object.origin));
    file.object_datasets.push_back(file.skeleton.datasets.size());
    file.skeleton.datasets.push_back({group, std::string(place::kPickle), DType::kU8, {object.size}, {}, {}});
    file.skeleton.texts.push_back({group, std::string(place::kJson), object.json});
  }
}

void add_attributes(const Catalog& catalog, int64_t parameters, std::string_view created_by,
                    Skeleton& skeleton) {
  using namespace root_attribute;
  skeleton.text_attributes = {{kFormat, std::string(kFormatName)},
                              {kCreatedBy, std::string(created_by)},
                              {kSourceKind, catalog.kind}};
  skeleton.int_attributes = {{kVersion, kFormatVersion}, {kParameterCount, parameters},
                             {kTp, catalog.mesh.tp},     {kPp, catalog.mesh.pp},
                             {kDp, catalog.mesh.dp},     {kEp, catalog.mesh.ep}};
  if (catalog.iteration) skeleton.int_attributes.emplace_back(kIteration, *catalog.iteration);
  if (catalog.zero_stage) skeleton.int_attributes.emplace_back(kZeroStage, *catalog.zero_stage);
}

}  // namespace

std::string state_group(std::string_view state) {
  std::string group = escape_name(state);
  if (group != place::kObjects && group != place::kLayout && group != place::kSettings &&
      group != place::kDigest)
    return group;
  return cat("%", hex(static_cast<uint8_t>(group[0]), 2), group.substr(1));
}

Consolidated consolidated_skeleton(const Catalog& catalog, std::span<const uint32_t> tensors,
                                   std::string_view created_by, std::string_view layout_text) {
  Consolidated file;
  add_tensors(catalog, tensors, file);
  add_objects(catalog, file);
  file.skeleton.texts.push_back({"", std::string(place::kLayout), std::string(layout_text)});
  const bool old = catalog.settings_are == SettingsAre::kOfOldNames;
  const ModelSettings settings = old ? ModelSettings{} : catalog.settings;
  if (!settings.empty() || !catalog.arguments.empty())
    file.skeleton.texts.push_back(
        {"", std::string(place::kSettings), settings_and_arguments(settings, catalog.arguments)});
  add_attributes(catalog, parameter_count(catalog, tensors), created_by, file.skeleton);
  return file;
}

}  // namespace uckpt::hdf5
