// Where a layout puts the tensors of a rule: its `on`, its value, and the index of its numbers.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/layout/rule_book.h"

namespace uckpt::layout {

// Do the rule's `on` let it lie there? An axis that the format undoes itself does not count.
bool lies_on(const RuleRef& rule, const Facts& facts, const Coordinate& at);

// A rank's place on all axes of an index, outermost first; nothing where the format does not tell it.
std::optional<std::vector<int64_t>> place_of(const Facts& facts, const IndexRef& index, const Coordinate& at);

// How many of an index's numbers a source has at each place; of a place that is not here, none. Says where
// that is not what the sizes in the index say.
using CountAtPlace = std::map<std::vector<int64_t>, int64_t>;
void check_shares(const IndexRef& index, const CountAtPlace& found, const Facts& facts,
                  ucl::Diagnostics& diagnostics);

// The number in `* 1/tp` or `+ 1`. Nothing, and a message, where it is 0 or unknown.
std::optional<double> amount_of(const ucl::Value& value, const Scope& scope, const Facts& facts,
                                ucl::Diagnostics& diagnostics);

// How a target shares out the numbers of each index: from 0 on, in the order of the places.
class IndexShares {
 public:
  struct Range {
    int64_t begin = 0, end = 0;
  };
  using Asked = std::map<std::string, std::vector<int64_t>, std::less<>>;  // as Settings::shares
  // `counts`: how many numbers each capture has. Says where an index cannot share them out. Must not outlive
  // the book.
  IndexShares(const RuleBook& book, const Facts& facts,
              const std::map<std::string, int64_t, std::less<>>& counts, const Asked& asked,
              std::span<const Coordinate> ranks, ucl::Diagnostics& diagnostics);

  // The numbers that a rank has; nothing where the format places them itself, or they cannot be shared out.
  std::optional<Range> at(const IndexRef& index, size_t rank) const;

 private:
  using Ranges = std::map<std::vector<int64_t>, Range>;  // by place
  static std::optional<Ranges> share_out(const IndexRef& index, int64_t count, const Facts& facts,
                                         const Asked& asked, ucl::Diagnostics& diagnostics);
  static std::optional<std::vector<int64_t>> shares(const IndexRef& index, const ucl::CutAxis& axis,
                                                    int64_t ranks, int64_t count, const Asked& asked,
                                                    ucl::Diagnostics& diagnostics);

  std::map<const ucl::Index*, std::vector<std::optional<Range>>> ranges_;  // of each rank
};

}  // namespace uckpt::layout
