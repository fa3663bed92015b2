// Lists of names made short: `layers.0.w`, `layers.1.w`, … become `layers.{0-23}.w`.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace uckpt {

struct NamedItem {
  std::string name;
  std::string facts;  // items are put together only where these are equal
};

struct NameGroup {
  std::string name;
  std::vector<size_t> members;  // indices of the items, in their order
};

// Numbers count where they are a whole part between dots. Several numbers in a name are collapsed where every
// combination is there: `layers.{0-3}.experts.{0-7}.w`. Groups come in the order of their first members.
std::vector<NameGroup> collapse_names(std::span<const NamedItem> items);

}  // namespace uckpt
