#include "lib/examine/match.h"

#include <array>
#include <unordered_map>

#include "lib/base/text.h"
#include "lib/tensor/catalog.h"

namespace uckpt {

namespace {

constexpr std::array<std::string_view, 3> kWeights = {state::kMaster, state::kParam, state::kBuffer};

class Matcher {
 public:
  Matcher(std::span<const std::string> first, std::span<const std::string> second)
      : first_(first), taken_(second.size()) {
    out_.second.resize(first.size());
    for (uint32_t i = 0; i < second.size(); ++i) by_path_.emplace(second[i], i);
  }

  PathMatches run() {
    for (size_t i = 0; i < first_.size(); ++i) take(i, first_[i]);
    for (const std::string_view mine : kWeights)
      for (size_t i = 0; i < first_.size(); ++i) {
        const auto [state, name] = split_path(first_[i]);
        if (state == mine && !out_.second[i]) take_other_weight(i, name);
      }
    for (uint32_t i = 0; i < taken_.size(); ++i)
      if (!taken_[i]) out_.extra.push_back(i);
    return std::move(out_);
  }

 private:
  void take_other_weight(size_t i, std::string_view name) {
    for (const std::string_view other : kWeights)
      if (take(i, cat(other, "/", name))) return;
  }
  bool take(size_t i, const std::string& path) {
    const auto found = by_path_.find(path);
    if (found == by_path_.end() || taken_[found->second]) return false;
    taken_[found->second] = true;
    out_.second[i] = found->second;
    return true;
  }

  std::span<const std::string> first_;
  std::unordered_map<std::string_view, uint32_t> by_path_;
  std::vector<bool> taken_;
  PathMatches out_;
};

}  // namespace

bool takes_any_weight(const Selection& selection, std::string_view name) {
  Tensor as_if{};
  as_if.name = name;
  for (const std::string_view state : {state::kMaster, state::kParam, state::kBuffer}) {
    as_if.state = state;
    if (selection.takes(as_if)) return true;
  }
  return false;
}

std::pair<std::string_view, std::string_view> split_path(std::string_view path) {
  const size_t slash = path.find('/');
  return {path.substr(0, slash), path.substr(slash + 1)};
}

PathMatches match_paths(std::span<const std::string> first, std::span<const std::string> second) {
  return Matcher(first, second).run();
}

}  // namespace uckpt
