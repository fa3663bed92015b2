// The parts of a nested value in the order in which views and walks name them.
#pragma once

#include <string>
#include <string_view>

#include "lib/pickle/value.h"

namespace uckpt::pickle {

struct Field {
  Value value;            // not there: the end
  Value key;              // of dict entries and attributes
  std::string_view name;  // where there is no key: "args", "__state__", "__items__"; empty for list items
};

// The i-th part: items of sequences and sets, entries of dicts; of calls and objects the arguments if there
// are any ("args", or "__args__" beside attributes), then the attributes, then what else BUILD gave
// ("__state__") and what an unknown class was given as items ("__items__"). The hidden list or dict of items
// is a value like any.
Field field_at(const Value& value, size_t i);

}  // namespace uckpt::pickle
