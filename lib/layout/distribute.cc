#include "lib/layout/distribute.h"

#include <algorithm>
#include <memory>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/layout/cutting.h"
#include "lib/layout/joining.h"
#include "lib/layout/messages.h"
#include "lib/layout/placement.h"
#include "lib/layout/target_names.h"

namespace uckpt::layout {

namespace {

using BodyKind = ucl::Body::Kind;

constexpr int64_t kMostRanks = int64_t{1} << 20;

class Distributor {
 public:
  Distributor(const Catalog& catalog, const ucl::Spec& spec, ucl::LayoutRef layout, const Settings& settings,
              std::span<const Coordinate> ranks, ucl::Diagnostics& diagnostics)
      : catalog_(catalog),
        ranks_(ranks),
        diagnostics_(diagnostics),
        book_(spec, layout),
        facts_(spec, book_.layouts(), settings, diagnostics),
        asked_(settings.shares),
        made_(ranks.size()) {}

  Distributed run(std::span<const uint32_t> tensors) {
    Facts early = facts_;  // conditions speak of givens that size no shape: their defaults hold at once
    early.take_defaults();
    names_ = sort_names(catalog_, tensors, book_, early, diagnostics_);
    make_cuttings();
    solve();
    facts_.check();
    shares_.emplace(book_, facts_, names_.counts, asked_, ranks_, diagnostics_);
    lies_on_.resize(book_.rules().size());
    for (const bool numbers : {false, true})
      for (size_t i = 0; i < names_.list.size() && diagnostics_.errors() < kMostMessages; ++i)
        if (names_.list[i].is_number == numbers) place(i);
    finish();
    return {std::move(out_), trusted()};
  }

 private:
  // A shard that is made, and the name it is of.
  struct Made {
    size_t name;
    Shard shard;
  };

  const RuleRef& rule_of(const TargetName& n) const { return book_.rules()[n.rule]; }
  // The name by whose rule it is cut.
  const TargetName& cut_as(const TargetName& n) const { return n.tied ? names_.list[*n.tied] : n; }
  const Tensor& tensor_of(const TargetName& n) const { return catalog_.tensors[n.tensor]; }

  // The first of a rule's names with one kind of problem speaks for all.
  void error(const TargetName& n, const std::string& code, std::string message, std::string hint = {}) {
    if (!told_.emplace(n.rule, code).second) return;
    const RuleRef& r = rule_of(n);
    auto& said = diagnostics_.error(r.scope.file->source, r.rule->name.span, code,
                                    cat("`", escape(n.name, 100), "`: ", message));
    if (!hint.empty()) said.hint(std::move(hint));
  }

  // One for all tensors of a rule that have the same shape: they have the same sizes.
  void make_cuttings() {
    std::map<std::pair<uint32_t, Shape>, size_t> known;
    for (const TargetName& n : names_.list) {
      cutting_of_.push_back(0);
      if (n.is_number) continue;
      const uint32_t rule = cut_as(n).rule;
      const auto [entry, fresh] = known.emplace(std::pair(rule, tensor_of(n).shape), cuttings_.size());
      cutting_of_.back() = entry->second;
      if (!fresh) continue;
      const RuleRef& r = book_.rules()[rule];
      cuttings_.push_back(
          std::make_unique<Cutting>(facts_, r.scope, shape_of(r), tensor_of(n).shape, ranks_));
      rules_.push_back(rule);
    }
  }

  void solve() {
    std::vector<ShapeSolver*> all;
    for (const auto& c : cuttings_) all.push_back(&c->solver());
    solve_together(facts_, all);
    // Of one rule's tensors the first with a problem speaks.
    std::set<uint32_t> told;
    for (size_t i = 0; i < cuttings_.size(); ++i) {
      fine_.push_back(!told.contains(rules_[i]) && cuttings_[i]->solver().check(diagnostics_));
      if (!fine_.back()) told.insert(rules_[i]);
    }
  }

  // The numbers of its name that an index places.
  struct Indexed {
    const IndexRef* index;
    std::string capture;
    int64_t number;
  };
  std::vector<Indexed> indexed(const TargetName& n) const {
    std::vector<Indexed> out;
    const ucl::NamePattern& pattern = rule_of(n).rule->name;
    for (const ucl::CaptureValue& v : ucl::match(pattern, n.name).value_or(ucl::CaptureValues{})) {
      const bool is_number = pattern.find(v.name)->kind == ucl::Capture::Kind::kNumber;
      if (const IndexRef* index = is_number ? book_.index(v.name) : nullptr)
        out.push_back({index, v.name, v.number});
    }
    return out;
  }

  // Of each rank: do the rule's `on` let it lie there?
  const std::vector<bool>& places_of(uint32_t rule) {
    std::vector<bool>& places = lies_on_[rule];
    if (places.empty())
      for (const Coordinate& at : ranks_) places.push_back(lies_on(book_.rules()[rule], facts_, at));
    return places;
  }

  bool belongs(const TargetName& n, const std::vector<Indexed>& numbers, size_t rank) {
    return places_of(n.rule)[rank] && std::all_of(numbers.begin(), numbers.end(), [&](const Indexed& i) {
             const auto range = shares_->at(*i.index, rank);
             return !range || (range->begin <= i.number && i.number < range->end);
           });
  }

  std::string local_name(const TargetName& n, const std::vector<Indexed>& numbers, size_t rank) const {
    std::map<std::string, int64_t, std::less<>> local;
    for (const Indexed& i : numbers) {
      const auto range = i.index->index->local ? shares_->at(*i.index, rank) : std::nullopt;
      if (range) local.emplace(i.capture, i.number - range->begin);
    }
    return renumbered(rule_of(n).rule->name, n.name, local);
  }

  void place(size_t index) {
    const TargetName& n = names_.list[index];
    if (n.is_number) return place_number(index);
    const ucl::Body& body = rule_of(n).rule->body;
    if (body.kind == BodyKind::kUnknown) {
      diagnostics_.error(
          rule_of(n).scope.file->source, body.span, "ucl.unknown_body",
          cat("how `", escape(n.name, 100), "` lies is not known yet: write its shape in place of `?`"));
      return;
    }
    if (!fine_[cutting_of_[index]] || (!n.tied && !same_shapes(n))) return;
    Shard common;
    common.tensor = n.tensor;
    common.logical_name = n.name;
    common.order = n.order;
    if (!set_value(n, common)) return;
    Cutting& cutting = *cuttings_[cutting_of_[index]];
    common.full_shape = cutting.full();

    const std::vector<Indexed> numbers = indexed(n);
    const bool is_empty = numel_of(tensor_of(n).shape) == 0;
    std::vector<Holder> holders;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      if (!belongs(n, numbers, r)) continue;
      const size_t share = cutting.share_of(r);
      if (!is_empty && numel_of(cutting.shape(share)) == 0) continue;
      holders.push_back({r, share});
      if (body.kind == BodyKind::kUnique) break;
    }
    const auto boxes = boxes_of(n, cutting, holders);
    if (!boxes) return;
    for (size_t h = 0; h < holders.size(); ++h) {
      Shard s = common;
      s.name = local_name(n, numbers, holders[h].rank);
      s.shape = cutting.shape(holders[h].share);
      s.boxes = (*boxes)[h].range;
      s.is_padded = cutting.is_padded(holders[h].share);
      s.is_primary = (*boxes)[h].has_primary || (is_empty && n.is_first && h == 0);
      made_[holders[h].rank].push_back({index, std::move(s)});
      holders_of_[n.name].insert(holders[h].rank);
    }
  }

  struct Holder {
    size_t rank, share;
  };
  // Nothing, and a message, where some element lies on no rank.
  std::optional<std::vector<Cutting::Boxes>> boxes_of(const TargetName& n, Cutting& cutting,
                                                      const std::vector<Holder>& holders) {
    std::vector<Cutting::Boxes> out;
    if (!n.is_first) {
      for (const Holder& h : holders) out.push_back({cutting.copy(h.share, out_), false});
      return out;
    }
    std::vector<size_t> shares;
    std::vector<size_t> first;  // of the holders with that share
    for (size_t h = 0; h < holders.size(); ++h) {
      if (std::find(shares.begin(), shares.end(), holders[h].share) != shares.end()) continue;
      shares.push_back(holders[h].share);
      first.push_back(h);
    }
    const Cutting::Whole& whole = cutting.whole(shares, out_);
    const int64_t numel = numel_of(tensor_of(n).shape);
    if (whole.covered != numel || holders.empty()) {
      error(n, "ucl.uncovered",
            holders.empty()
                ? std::string("it lies on no rank of this mesh")
                : cat("the ranks that have it hold ", whole.covered, " of its ", numel, " elements"));
      return std::nullopt;
    }
    for (size_t h = 0; h < holders.size(); ++h) {
      const auto at = std::find(first.begin(), first.end(), h);
      if (at == first.end()) {
        out.push_back({cutting.copy(holders[h].share, out_), false});
      } else {
        out.push_back(whole.boxes[static_cast<size_t>(at - first.begin())]);
      }
    }
    return out;
  }

  // A rule covers all states of one shape.
  bool same_shapes(const TargetName& n) {
    const auto [first, fresh] = shapes_.emplace(std::pair(n.rule, n.name), &n);
    const Shape &shape = tensor_of(n).shape, &other = tensor_of(*first->second).shape;
    if (fresh || shape == other) return true;
    error(n, "ucl.state_shape",
          cat("its ", n.state, " has the shape ", shape_text(shape), ", its ", first->second->state, " ",
              shape_text(other)),
          "a state of another shape takes a rule of its own, with `states`");
    return false;
  }

  // A rank holds the logical value times, or plus, something; a gradient scales the other way round.
  bool set_value(const TargetName& n, Shard& s) {
    const RuleRef& r = rule_of(cut_as(n));
    if (is_weight(n.state) || !r.rule->states.empty())
      s.dtype = r.rule->dtype ? dtype_from_name(r.rule->dtype->text) : std::nullopt;
    const auto& value = r.rule->body.value;
    if (!value) return true;
    const DType dtype = tensor_of(n).dtype;
    if (!has_arithmetic(dtype)) {
      error(n, "ucl.dtype",
            cat("its ", n.state, " is ", name_of(dtype), ", of which there is no product and no sum"));
      return false;
    }
    const auto number = amount_of(*value, r.scope, facts_, diagnostics_);
    if (!number) return false;
    if (value->times) {
      s.factor = is_weight(n.state)        ? *number
                 : n.state == "exp_avg_sq" ? 1 / (*number * *number)
                                           : 1 / *number;
    } else if (is_weight(n.state)) {
      s.summand = *number;
    }
    return true;
  }

  // It follows its parameter.
  void place_number(size_t index) {
    const TargetName& n = names_.list[index];
    const std::vector<Indexed> numbers = indexed(n);
    const auto holders = holders_of_.find(n.name);
    if (holders == holders_of_.end()) return;
    const auto first_box = static_cast<uint32_t>(out_.boxes.size());
    for (const bool is_primary : {true, false})
      out_.boxes.push_back({0, static_cast<uint32_t>(out_.axes.size()), 1, is_primary});
    out_.axes.push_back({1, 0, 1, 1});
    bool is_primary = n.is_first;
    for (const size_t r : holders->second) {
      Shard s;
      s.tensor = n.tensor;
      s.logical_name = n.name;
      s.name = local_name(n, numbers, r);
      s.order = n.order;
      s.shape = s.full_shape = tensor_of(n).shape;
      s.is_number = true;
      s.is_primary = is_primary;
      s.boxes = {first_box + (is_primary ? 0 : 1), 1};
      is_primary = false;
      made_[r].push_back({index, std::move(s)});
    }
  }

  void finish() {
    for (size_t r = 0; r < ranks_.size(); ++r) {
      RankShards& rank = out_.ranks.emplace_back(RankShards{ranks_[r], {}});
      std::vector<Made>& made = made_[r];
      std::stable_sort(made.begin(), made.end(),
                       [](const Made& a, const Made& b) { return a.name < b.name; });
      for (Made& m : made) rank.shards.push_back(std::move(m.shard));
      tie(made, rank.shards);
    }
  }

  // Further names of what the rank holds under the tensor's first one.
  void tie(const std::vector<Made>& made, std::vector<Shard>& shards) const {
    std::map<uint32_t, uint32_t> firsts;
    for (uint32_t i = 0; i < shards.size(); ++i)
      if (names_.list[made[i].name].is_first) firsts.emplace(shards[i].tensor, i);
    for (uint32_t i = 0; i < shards.size(); ++i) {
      const auto first = firsts.find(shards[i].tensor);
      if (first != firsts.end() && first->second != i && is_same(shards[i], shards[first->second]))
        shards[i].tied_to = first->second;
    }
  }

  bool is_same(const Shard& a, const Shard& b) const {
    if (a.shape != b.shape || a.factor != b.factor || a.summand != b.summand || a.dtype != b.dtype)
      return false;
    const auto elements = [&](const Shard& s) {
      std::set<std::vector<int64_t>> out;
      for (const ShardBox& box : out_.boxes_of(s)) {
        std::vector<int64_t> key = {box.offset};
        for (const Axis& x : out_.axes_of(box)) key.insert(key.end(), {x.size, x.start, x.extent, x.stride});
        out.insert(std::move(key));
      }
      return out;
    };
    return elements(a) == elements(b);
  }

  std::vector<std::string> trusted() const {
    std::vector<std::string> out = facts_.trusted();
    std::set<uint32_t> used;
    for (const TargetName& n : names_.list) used.insert(n.rule);
    for (std::string& order : trusted_orders(book_, used)) out.push_back(std::move(order));
    return out;
  }

  const Catalog& catalog_;
  const std::span<const Coordinate> ranks_;
  ucl::Diagnostics& diagnostics_;
  RuleBook book_;
  Facts facts_;
  const IndexShares::Asked asked_;
  TargetNames names_;
  std::optional<IndexShares> shares_;
  std::vector<std::vector<bool>> lies_on_;  // of each rule, of each rank
  std::vector<std::unique_ptr<Cutting>> cuttings_;
  std::vector<uint32_t> rules_;     // of each cutting
  std::vector<bool> fine_;          // of each cutting
  std::vector<size_t> cutting_of_;  // of each name
  std::map<std::pair<uint32_t, std::string>, const TargetName*> shapes_;
  std::map<std::string, std::set<size_t>, std::less<>>
      holders_of_;                       // the ranks that have some of a parameter
  std::vector<std::vector<Made>> made_;  // of each rank
  std::set<std::pair<uint32_t, std::string>> told_;
  Shards out_;
};

}  // namespace

std::vector<Coordinate> grid_of(const std::map<std::string, int64_t, std::less<>>& mesh) {
  std::vector<Coordinate> out = {{}};
  int64_t count = 1;
  for (const auto& [axis, size] : mesh) {
    const auto product = size < 1 ? std::nullopt : checked_mul(count, size);
    if (!product || *product > kMostRanks)
      throw refused("layout.mesh", cat("the mesh has ", size, " ranks on the axis ", escape(axis, 60),
                                       ", expected at least 1, and at most ", kMostRanks, " in all"));
    count = *product;
    std::vector<Coordinate> next;
    for (const Coordinate& at : out) {
      for (int64_t i = 0; i < size; ++i) {
        next.push_back(at);
        next.back()[axis] = i;
      }
    }
    out = std::move(next);
  }
  return out;
}

Distributed distribute(const Catalog& catalog, std::span<const uint32_t> tensors, const ucl::Spec& spec,
                       ucl::LayoutRef layout, const Settings& settings, std::span<const Coordinate> ranks,
                       ucl::Diagnostics& diagnostics) {
  return Distributor(catalog, spec, layout, settings, ranks, diagnostics).run(tensors);
}

}  // namespace uckpt::layout
