// A layout written for a person to read and correct: one rule a name, or one for names that lie alike.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace uckpt::ucl {

class Draft {
 public:
  // `body` is a rule's body and modifiers as text, `reason` one line that says why.
  void add(std::string_view name, std::string body, std::string reason);
  // The program. Names that differ in numbers only, and have the same body and reason, share a rule; its
  // captures are named after the sets of numbers they take, since a rule must take something at every one.
  std::string text(std::string_view layout, std::string_view mesh, std::string_view heading) const;

 private:
  struct Rule {
    std::string body, reason;
    bool operator==(const Rule&) const = default;
  };
  // All names of one template.
  struct Family {
    std::vector<std::string> between;  // the name without its numbers: one more text than there are numbers
    std::vector<std::set<int64_t>> numbers;
    std::set<std::vector<int64_t>> seen;
    std::vector<std::string> names;
    Rule rule;  // of the first name
    bool alike = true;
    bool is_full() const;  // every combination of the numbers is there
  };
  using Captures = std::map<std::pair<size_t, std::set<int64_t>>, std::string>;
  static std::string pattern_of(const Family& family, Captures& captures);

  std::vector<Family> families_;
  std::map<std::string, size_t> known_;  // template -> family
  std::map<std::string, Rule, std::less<>> rules_;
};

// A name as a pattern that takes only it.
std::string escaped_pattern(std::string_view name);

}  // namespace uckpt::ucl
