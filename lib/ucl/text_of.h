// Nodes as canonical text on one line.
#pragma once

#include <string>
#include <string_view>

#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// `heads / groups`; with `tight`, as within a shape: `128*tp`.
std::string text_of(const Expr& expr, bool tight = false);
std::string text_of(const Name& name);
std::string text_of(const CutAxis& axis);
std::string text_of(const Cut& cut);
std::string text_of(const Factor& factor);
std::string text_of(const Dim& dim);
std::string text_of(const Shape& shape);
std::string text_of(const Value& value);
std::string text_of(const Body& body);
std::string text_of(const Place& place);
std::string text_of(const On& on);
std::string text_of(const Condition& condition);
std::string text_of(const std::vector<Condition>& when);  // with `when`; empty if there is none
std::string text_of(const NamePattern& pattern);          // in quotes
std::string text_of(const Part& part);
std::string text_of(const MeshAxis& axis);
std::string text_of(const Key& key);
std::string text_of(const Setting& setting);
std::string text_of(const Constant& constant);
std::string text_of(const ConfigSide& side);

// A string that is no pattern, in quotes and with its escapes. Called as `ucl::quoted`: of a std::string,
// `quoted` alone may also be what <iomanip> has.
std::string quoted(std::string_view text);

// The texts of a list, parted by `between`.
template <class List>
std::string joined(const List& list, std::string_view between = ", ") {
  std::string out;
  bool first = true;
  for (const auto& item : list) {
    if (!first) out += between;
    out += text_of(item);
    first = false;
  }
  return out;
}

}  // namespace uckpt::ucl
