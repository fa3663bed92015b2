// The tensors of a catalog under the rules of a map that take their names.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/layout/map_book.h"
#include "lib/layout/regroup.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

// What free captures took, in the order of FreeCaptures: values sort as numbers where they are numbers.
struct CaptureKey {
  int64_t number = 0;
  std::string text;
  auto operator<=>(const CaptureKey&) const = default;
};
using FreeValues = std::vector<CaptureKey>;

// All names that one application of a rule takes.
struct MapMatch {
  uint32_t rule = 0;
  ucl::CaptureValues fixed;                               // captures that all its names share
  std::vector<std::map<FreeValues, std::string>> names;   // of each source part, by its free captures
  std::map<std::string, std::vector<CaptureKey>> values;  // of each free capture of the source side, sorted
};

// Where a name stands in its match.
struct Spot {
  size_t match = 0, part = 0;
  FreeValues free;
};

struct MapMatches {
  std::vector<MapMatch> matches;                   // in order of appearance
  std::map<std::string, Spot, std::less<>> spots;  // of each name that is taken and not dropped
};

// A name of the catalog. One that is not `needed` may be left alone.
struct MapName {
  std::string name;
  bool needed = true;
};

// Says which needed names no rule takes, which rules take nothing, and which numbers and parts of a match are
// missing. `free` has one entry a rule.
MapMatches match_names(const std::vector<MapName>& names, const MapBook& book,
                       const std::vector<FreeCaptures>& free, const Facts& facts,
                       ucl::Diagnostics& diagnostics);

// The name of a part's tensor.
std::optional<std::string> name_of(const ucl::Part& part, const ucl::CaptureValues& fixed,
                                   const std::vector<std::string>& free, const FreeValues& values);

}  // namespace uckpt::layout
