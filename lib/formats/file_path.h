// A file's path taken apart: the file of a checkpoint that the user named leads to its folder.
#pragma once

#include <string>
#include <string_view>

namespace uckpt {

inline std::string parent_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == path.npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

inline std::string_view base_of(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.find_last_of('/');
  return slash == path.npos ? path : path.substr(slash + 1);
}

// The name of a file of torch's without its ending, as it stands before what was found in it.
inline std::string stem_of(const std::string& name) {
  return name.ends_with(".pt") ? name.substr(0, name.size() - 3) : name;
}

}  // namespace uckpt
