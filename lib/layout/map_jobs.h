// The tensors of a catalog sorted for one map: by match and state, with the sizes of their axes solved.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/layout/map_matches.h"
#include "lib/layout/map_sizes.h"
#include "lib/layout/regroup.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

inline constexpr size_t kMostMapMessages = 200;

// All tensors of one match in one state.
struct MapJob {
  size_t match = 0;
  std::string state;
  bool number = false;                                        // one value a parameter
  std::map<std::pair<size_t, FreeValues>, uint32_t> tensors;  // by source part and its free captures
  std::vector<Shape> shapes;                                  // of each source part
  std::optional<size_t> solver;                               // of a number: its parameter's
};

class MapJobs {
 public:
  // Sorts and solves; what does not fit goes to `diagnostics`, and then there is nothing more to be done.
  // The tensors must stay as they are, and all outlive this.
  MapJobs(const Catalog& catalog, const MapBook& book, Facts& facts, ucl::Diagnostics& diagnostics);

  const std::vector<MapJob>& all() const { return jobs_; }  // in order of their first tensors
  std::optional<size_t> job_of(uint32_t tensor) const { return job_of_[tensor]; }
  // The tensor belongs to no parameter, or to none that the map speaks of.
  bool is_left_alone(const Tensor& t) const;

  const MapMatch& match_of(const MapJob& j) const { return matches_.matches[j.match]; }
  const MapRuleRef& rule_of(const MapJob& j) const { return book_.rules()[match_of(j).rule]; }
  const FreeCaptures& free_of(const MapJob& j) const { return free_[match_of(j).rule]; }
  const std::string& first_name(const MapJob& j) const;
  // Null for numbers without a parameter.
  const MapSizes* sizes_of(const MapJob& j) const {
    return j.solver ? solvers_[*j.solver].sizes.get() : nullptr;
  }
  const Regrouping* regrouping_of(const MapJob& j) const;
  // A rule's `when`; what is unknown holds.
  bool holds(const MapRuleRef& rule) const;
  ucl::Diagnostic& error(const MapJob& j, ucl::Span span, std::string code, std::string message) const;

 private:
  struct Solver {
    uint32_t rule;
    std::unique_ptr<MapSizes> sizes;
    std::optional<Regrouping> regrouping;
  };
  struct Weight {
    int64_t numel = -1;
    bool is_weight = false;
  };

  bool takes_part(const Tensor& t) const;
  void match();
  bool is_number(const Tensor& t) const;
  void make_jobs();
  void check_states(MapJob& j);
  std::map<std::string, int64_t, std::less<>> counts_of(const MapJob& j) const;
  void make_solvers();
  void add_solver(MapJob& j, std::map<std::string, size_t>& known);
  void advance_all();
  void solve();
  bool fits_first(const MapJob& j);

  const Catalog& catalog_;
  const std::vector<Tensor>& tensors_;
  const MapBook& book_;
  Facts& facts_;
  ucl::Diagnostics& diagnostics_;
  bool takes_loose_ = false;  // there are no weights but tensors of no known kind
  std::vector<FreeCaptures> free_;
  std::optional<Facts> early_;  // with all defaults: conditions speak of givens that size no shape
  std::map<std::string_view, Weight> weights_;
  MapMatches matches_;
  std::vector<MapJob> jobs_;
  std::vector<std::optional<size_t>> job_of_;  // of each tensor
  std::map<size_t, size_t> shaped_;            // of each match: the first job that has shapes
  std::vector<Solver> solvers_;
};

}  // namespace uckpt::layout
