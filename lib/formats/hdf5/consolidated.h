// What our consolidated file holds and how its parts are called: the one place for these names.
//
//   /                          attributes, see below
//   /<state>/<name>            one dataset a tensor; tied tensors are hard links
//   /objects/<origin>/pickle   the original pickle bytes of one input file's non-tensor state
//   /objects/<origin>/json     the same to read
//   /layout                    text that describes the layout the tensors came from
//   /settings                  JSON: what the model says of itself, where it says something
//   /digest                    rows {path, crc64}, one for every dataset of the above but the texts
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/formats/hdf5/skeleton.h"
#include "lib/tensor/catalog.h"

namespace uckpt::hdf5 {

inline constexpr std::string_view kFormatName = "universal-checkpoint";
inline constexpr int64_t kFormatVersion = 1;

// Attributes of the root: text, then integers.
namespace root_attribute {
inline constexpr char kFormat[] = "format", kCreatedBy[] = "created_by", kSourceKind[] = "source_kind";
inline constexpr char kVersion[] = "version", kIteration[] = "iteration",
                      kParameterCount[] = "parameter_count", kZeroStage[] = "zero_stage", kTp[] = "tp",
                      kPp[] = "pp", kDp[] = "dp", kEp[] = "ep";
}  // namespace root_attribute

// Attributes of datasets, each only where it says something.
namespace attribute {
inline constexpr char kName[] = "name";                 // the true name, where the link's is escaped
inline constexpr char kDtype[] = "dtype";               // our element type, where HDF5 cannot describe it
inline constexpr char kShape[] = "shape";               // in elements, for types under a byte
inline constexpr char kModuleDtype[] = "module_dtype";  // of the module's copy of this master
}  // namespace attribute

// Groups and datasets beside the states.
namespace place {
inline constexpr std::string_view kObjects = "objects", kPickle = "pickle", kJson = "json",
                                  kLayout = "layout", kSettings = "settings", kDigest = "digest";
}  // namespace place

struct Consolidated {
  Skeleton skeleton;
  std::vector<size_t> tensor_datasets;  // parallel to the tensors asked for: indices into skeleton.datasets
  std::vector<size_t> object_datasets;  // parallel to Catalog::objects: their pickles
};

// The consolidated file that holds the given tensors of the catalog (indices, each alias after its source)
// and all objects. A plain function: nothing is read or written. Throws `hdf5.alias` for an alias without its
// source.
Consolidated consolidated_skeleton(const Catalog& catalog, std::span<const uint32_t> tensors,
                                   std::string_view created_by, std::string_view layout_text);

// The group of a state: escaped, and kept apart from the file's other top-level names.
std::string state_group(std::string_view state);

}  // namespace uckpt::hdf5
