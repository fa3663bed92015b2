#include "lib/layout/target_names.h"

#include <algorithm>
#include <set>

#include "lib/base/text.h"
#include "lib/layout/fragments.h"
#include "lib/layout/placement.h"
#include "lib/layout/rule_order.h"
#include "lib/ucl/text_of.h"

namespace uckpt::layout {

namespace {

using BodyKind = ucl::Body::Kind;

class NameSorter {
 public:
  NameSorter(const Catalog& catalog, const RuleBook& book, const Facts& facts, ucl::Diagnostics& diagnostics)
      : catalog_(catalog),
        book_(book),
        facts_(facts),
        diagnostics_(diagnostics),
        names_(book, facts, diagnostics) {}

  TargetNames run(std::span<const uint32_t> tensors) {
    for (const uint32_t t : tensors) find_weight(catalog_.tensors[t]);
    for (const uint32_t t : tensors) add(t);
    for (size_t i = 0, end = list().size(); i < end; ++i) find_tie(i);
    make_ties();
    names_.tell();
    choose_first();
    count();
    put_in_order();
    return std::move(out_);
  }

 private:
  std::vector<TargetName>& list() { return out_.list; }
  const ucl::Rule& rule_of(const TargetName& n) const { return *book_.rules()[n.rule].rule; }

  uint32_t root_of(uint32_t tensor) const {
    while (catalog_.tensors[tensor].alias) tensor = *catalog_.tensors[tensor].alias;
    return tensor;
  }

  void find_weight(const Tensor& t) {
    if (is_weight(t.state)) weights_.emplace(t.name, &t);
  }

  // A state of one value, where its parameter has another shape or the value was read at open.
  bool is_step(const Tensor& t) const {
    if (is_weight(t.state) || numel_of(t.shape) != 1) return false;
    const auto weight = weights_.find(t.name);
    return is_number(catalog_, t) || (weight != weights_.end() && weight->second->shape != t.shape);
  }

  void add(uint32_t tensor) {
    const Tensor& t = catalog_.tensors[tensor];
    TargetName n;
    n.tensor = root_of(tensor);
    n.state = t.state;
    n.name = t.name;
    n.is_number = is_step(t);
    auto rule = names_.rule_for(t.name, t.state);
    // A number needs no rule of its own.
    const auto weight = weights_.find(t.name);
    if (!rule && n.is_number && weight != weights_.end())
      rule = names_.rule_for(t.name, weight->second->state);
    if (!rule) return names_.note_unmatched(t.name);
    n.rule = *rule;
    names_.check_wildcard(t.name, n.rule);
    names_.note_use(n.rule, t.name);
    if (rule_of(n).body.kind == BodyKind::kDrop) return;
    known_.emplace(std::pair(n.state, n.name), list().size());
    list().push_back(std::move(n));
  }

  std::optional<size_t> find(const std::string& state, const std::string& name) const {
    const auto found = known_.find(std::pair(state, name));
    return found == known_.end() ? std::nullopt : std::optional(found->second);
  }

  // The name that a name is tied to must be there, with the same tensor.
  void find_tie(size_t index) {
    TargetName& n = list()[index];
    const RuleRef& r = book_.rules()[n.rule];
    if (r.rule->body.kind != BodyKind::kTied) return;
    const auto captures = ucl::match(r.rule->name, n.name);
    const auto target = captures ? ucl::produce(r.rule->body.tied, *captures) : std::nullopt;
    n.tied = target ? find(n.state, *target) : std::nullopt;
    if (n.tied && rule_of(list()[*n.tied]).body.kind == BodyKind::kTied) n.tied = std::nullopt;
    if (!n.tied) {
      if (told_.insert(n.rule).second)
        diagnostics_.error(r.scope.file->source, r.rule->body.span, "ucl.tied_to_nothing",
                           cat("`", escape(n.name, 100), "` is tied to ", ucl::text_of(r.rule->body.tied),
                               ", of which the checkpoint has no ", n.state));
    } else if (list()[*n.tied].tensor != n.tensor && !n.is_number) {
      if (told_.insert(n.rule).second)
        diagnostics_
            .error(r.scope.file->source, r.rule->body.span, "ucl.tied_apart",
                   cat("`", escape(n.name, 100), "` is a tensor of its own, which its rule ties to `",
                       escape(list()[*n.tied].name, 100), "`"))
            .hint("a rule with a shape writes it as it is");
    }
  }

  // Names that no source has: a tied rule says that each is one more copy.
  void make_ties() {
    for (uint32_t rule = 0; rule < book_.rules().size(); ++rule) {
      const RuleRef& r = book_.rules()[rule];
      if (r.rule->body.kind != BodyKind::kTied || !facts_.holds(r.rule->when, r.scope).value_or(true))
        continue;
      for (size_t i = 0, end = list().size(); i < end; ++i) make_tie(rule, i);
    }
  }

  void make_tie(uint32_t rule, size_t tied) {
    const ucl::Rule& r = *book_.rules()[rule].rule;
    TargetName n = list()[tied];
    if (rule_of(n).body.kind == BodyKind::kTied) return;
    const auto captures = ucl::match(r.body.tied, n.name);
    const auto name = captures ? ucl::produce(r.name, *captures) : std::nullopt;
    if (!name || find(n.state, *name)) return;
    const auto first = names_.rule_for(*name, n.state);
    if (first != rule) return;
    n.name = *name;
    n.rule = rule;
    n.tied = tied;
    names_.note_use(rule, *name);
    known_.emplace(std::pair(n.state, n.name), list().size());
    list().push_back(std::move(n));
  }

  void choose_first() {
    std::map<uint32_t, size_t> firsts;
    const auto is_own = [&](const TargetName& n) { return catalog_.tensors[n.tensor].name == n.name; };
    for (size_t i = 0; i < list().size(); ++i) {
      const auto [first, fresh] = firsts.emplace(list()[i].tensor, i);
      if (!fresh && !is_own(list()[first->second]) && is_own(list()[i])) first->second = i;
    }
    for (const auto& [tensor, first] : firsts) list()[first].is_first = true;
  }

  void count() {
    for (const TargetName& n : list()) {
      const ucl::NamePattern& pattern = rule_of(n).name;
      for (const ucl::CaptureValue& v : ucl::match(pattern, n.name).value_or(ucl::CaptureValues{})) {
        if (pattern.find(v.name)->kind != ucl::Capture::Kind::kNumber) continue;
        int64_t& count = out_.counts[v.name];
        count = std::max(count, v.number + 1);
      }
    }
  }

  void put_in_order() {
    const RuleOrder order(book_);
    // Of names that the rules do not tell apart, the one that came first.
    std::map<std::string, uint32_t> appeared;
    std::map<std::pair<RuleOrder::Key, uint32_t>, std::vector<size_t>> sorted;
    for (size_t i = 0; i < list().size(); ++i) {
      const TargetName& n = list()[i];
      const auto [place, fresh] = appeared.emplace(n.name, static_cast<uint32_t>(appeared.size()));
      sorted[{order.key_of(n.rule, n.name), place->second}].push_back(i);
    }
    std::map<std::string, uint32_t> orders;  // a parameter whose states have several rules has one place
    for (const auto& [key, indices] : sorted) {
      for (const size_t i : indices) {
        TargetName& n = list()[i];
        n.order = orders.emplace(n.name, static_cast<uint32_t>(orders.size())).first->second;
      }
    }
  }

  const Catalog& catalog_;
  const RuleBook& book_;
  const Facts& facts_;
  ucl::Diagnostics& diagnostics_;
  NameRules names_;
  TargetNames out_;
  std::map<std::string, const Tensor*, std::less<>> weights_;  // of each parameter, one
  std::map<std::pair<std::string, std::string>, size_t> known_;
  std::set<uint32_t> told_;
};

}  // namespace

TargetNames sort_names(const Catalog& catalog, std::span<const uint32_t> tensors, const RuleBook& book,
                       const Facts& facts, ucl::Diagnostics& diagnostics) {
  return NameSorter(catalog, book, facts, diagnostics).run(tensors);
}

}  // namespace uckpt::layout
