// What the messages of this room have in common.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/text.h"

namespace uckpt::layout {

inline constexpr size_t kMostMessages = 200;  // after which no more tensors are looked at
inline constexpr size_t kMostNames = 5;       // listed in one message

inline std::string ticked(std::string_view name) { return cat("`", escape(name, 100), "`"); }

inline std::string quoted_names(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMostNames; ++i) out += cat(i ? ", " : "", ticked(names[i]));
  return names.size() > kMostNames ? out + ", …" : out;
}

// A warning of names that `by` ("the map", say) leaves out; there are some. A second head may differ from the
// table that it is taken for: that is not lost without a word.
inline std::string left_out(const std::vector<std::string>& names, std::string_view by) {
  std::string what = ticked(names.front());
  if (names.size() > 1) what += cat(" and ", names.size() - 1, " more");
  const bool several = names.size() > 1;
  return cat(what, several ? " are" : " is", " left out: ", by, " drops ", several ? "them" : "it");
}

}  // namespace uckpt::layout
