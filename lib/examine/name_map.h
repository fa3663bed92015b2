// How the names of one checkpoint become those of another: `A_PATTERN=B_PATTERN`, both in the language's
// patterns: `model.{x:**}={x}`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/ucl/name_pattern.h"

namespace uckpt {

class NameMap {
 public:
  // One rule. Throws trouble (`usage.map`) that says what is wrong with it.
  void add(std::string_view rule);
  // A rule a line; empty lines and those that begin with `#` are left out.
  void add_file(const std::string& path);

  bool empty() const { return rules_.empty(); }
  // By the first rule that matches; a name that none matches stays.
  std::string operator()(const std::string& name);
  // Throws trouble (`usage.map`) that names a rule that has matched nothing so far.
  void check_used() const;

 private:
  struct Rule {
    std::string text;
    ucl::NamePattern from, to;
    bool used = false;
  };
  std::vector<Rule> rules_;
};

}  // namespace uckpt
