// What Python 3 renamed: pickles before protocol 3 have the old names, and Python maps them as it reads one.
// The tables are those of CPython's `_compat_pickle`.
#pragma once

#include <optional>
#include <string_view>

namespace uckpt::pickle {

struct PlaceOfName {
  std::string_view module, name;
  bool operator==(const PlaceOfName&) const = default;
};

PlaceOfName from_python2(const PlaceOfName& old_place);

// What protocol 2 must say for it. Most names of Python 3 are no old names and stay as they are; nothing for
// one that every spelling makes something else of.
std::optional<PlaceOfName> for_protocol_2(const PlaceOfName& place);

}  // namespace uckpt::pickle
