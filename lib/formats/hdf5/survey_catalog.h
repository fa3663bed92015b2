// From hearsay to a catalog: every claim of a survey is checked against the file before it counts.
#pragma once

#include <memory>

#include "lib/formats/hdf5/survey.h"
#include "lib/io/input.h"
#include "lib/pickle/value.h"
#include "lib/tensor/catalog.h"

namespace uckpt::hdf5 {

struct CatalogOptions {
  bool want_objects = true;
  int64_t max_json_bytes = pickle::Limits{}.json_bytes;
};

// `source` is the surveyed file. Throws refused (`hdf5.damaged`, `hdf5.version`, `limit.json_bytes`).
Catalog catalog_of(const Survey& survey, std::shared_ptr<ByteSource> source, const CatalogOptions& options);

}  // namespace uckpt::hdf5
