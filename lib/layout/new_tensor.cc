#include "lib/layout/new_tensor.h"

#include <algorithm>
#include <set>

#include "lib/base/text.h"
#include "lib/layout/messages.h"

namespace uckpt::layout {

namespace {

class Maker {
 public:
  Maker(Catalog& catalog, const MapJobs& jobs, const MapJob& job, size_t target_part, const Facts& facts,
        const std::vector<PartContribution>& from, Tensor& tensor)
      : catalog_(catalog),
        jobs_(jobs),
        job_(job),
        rule_(jobs.rule_of(job)),
        target_part_(target_part),
        target_(rule_.target().parts[target_part]),
        facts_(facts),
        from_(from),
        first_(*from.front().what.tensor),
        tensor_(tensor) {}

  bool run() {
    tensor_.dtype = first_.dtype;
    return job_.number ? take_number() : take_values();
  }

 private:
  bool take_values() {
    tensor_.shape = jobs_.regrouping_of(job_)->targets[target_part_].shape;
    bool same_module = true;
    std::vector<Contribution> from;
    for (const PartContribution& c : from_) {
      const Tensor& t = *c.what.tensor;
      same_module &= t.module_dtype == first_.module_dtype;
      from.push_back(c.what);
      if (t.dtype == first_.dtype) continue;
      jobs_.error(job_, target_.name.span, "ucl.dtype",
                  cat(ticked(tensor_.name), " would be ", name_of(first_.dtype), " of ", ticked(first_.name),
                      " and ", name_of(t.dtype), " of ", ticked(t.name)));
      return false;
    }
    if (same_module) tensor_.module_dtype = first_.module_dtype;
    if (!set_value()) return false;
    fill(catalog_, tensor_, from);
    const bool unchanged = from.size() == 1 && tensor_.pieces.first == first_.pieces.first &&
                           tensor_.pieces.count == first_.pieces.count;
    tensor_.layout = unchanged ? first_.layout
                               : cat("regrouped from ", from.size(), from.size() == 1 ? " part" : " parts",
                                     first_.layout.empty() ? "" : cat("; each ", first_.layout));
    return true;
  }

  // ---- differences of value ----

  // x times `times` plus `plus`.
  struct Affine {
    double times = 1, plus = 0;
  };

  // What the text behind a part says; nothing if that cannot be known, which is told.
  std::optional<Affine> said_of(const ucl::Part& part) const {
    if (!part.value) return Affine{};
    const auto amount =
        facts_.evaluate(part.value->expr, rule_.scope, [](std::string_view) { return Linear::beyond(); })
            .fraction();
    if (!amount || (amount->over == 0 && part.value->times)) {
      jobs_.error(job_, part.value->span, "ucl.size_unknown", "this value is 0 or stays unknown");
      return std::nullopt;
    }
    const double number = static_cast<double>(amount->over) / static_cast<double>(amount->under);
    return part.value->times ? Affine{number, 0} : Affine{1, number};
  }

  // `"a" * s <-> "b" + m` says a * s = b + m, whichever is the source. A gradient scales the other way round.
  bool set_value() {
    const auto to = said_of(target_);
    bool is_first = true;
    for (const PartContribution& c : from_) {
      const ucl::Part& source = rule_.source().parts[c.part];
      const Tensor& t = *c.what.tensor;
      const auto own = said_of(source);
      if (!to || !own) return false;
      Affine change{own->times / to->times, (own->plus - to->plus) / to->times};
      if ((change.times != 1 || change.plus != 0) && !is_float(t.dtype)) {
        jobs_.error(
            job_, (source.value ? source : target_).span, "ucl.dtype",
            cat(ticked(t.name), " is ", name_of(t.dtype), ", of which there is no sum and no product"));
        return false;
      }
      if (!is_weight(tensor_.state)) {
        const double inverse = 1 / change.times;
        change = {tensor_.state == "exp_avg_sq" ? inverse * inverse : inverse, 0};
      }
      const Affine all{t.factor * change.times, t.summand * change.times + change.plus};
      if (!is_first && (all.times != tensor_.factor || all.plus != tensor_.summand)) {
        jobs_.error(
            job_, target_.span, "ucl.values_differ",
            cat("the parts of ", ticked(tensor_.name), " are multiplied by, or added to, different numbers"));
        return false;
      }
      tensor_.factor = all.times;
      tensor_.summand = all.plus;
      is_first = false;
    }
    return true;
  }

  // ---- one value a parameter ----

  // What is one value of each parameter must be one value of the new one: told now where it is known, or when
  // the bytes are read.
  bool take_number() {
    const std::string name = tensor_.name, state = tensor_.state;
    tensor_ = first_;
    tensor_.name = name;
    tensor_.state = state;
    tensor_.alias.reset();
    std::set<const Tensor*> seen = {&first_};
    for (const PartContribution& c : from_) {
      const Tensor& t = *c.what.tensor;
      if (!seen.insert(&t).second) continue;
      const auto a = literal(first_), b = literal(t);
      const bool known = a && b;
      if (t.dtype != first_.dtype || (known && !std::equal(a->begin(), a->end(), b->begin(), b->end()))) {
        jobs_.error(job_, target_.name.span, "ucl.numbers_differ",
                    cat("the ", state, " of ", ticked(first_.name), " and ", ticked(t.name),
                        " differ, and both become that of ", ticked(name)));
        return false;
      }
      if (!known)
        tensor_.copies.push_back({t.pieces, t.dtype, false, cat(state, " of ", escape(t.name, 60))});
    }
    return true;
  }

  std::optional<ByteSpan> literal(const Tensor& t) const {
    const auto pieces = catalog_.pieces_of(t.pieces);
    const auto item = static_cast<size_t>(item_size(t.dtype));
    if (pieces.size() != 1 || pieces[0].file != kLiteral || item == 0) return std::nullopt;
    return ByteSpan(catalog_.literals.data() + pieces[0].offset, item);
  }

  Catalog& catalog_;
  const MapJobs& jobs_;
  const MapJob& job_;
  const MapRuleRef& rule_;
  const size_t target_part_;
  const ucl::Part& target_;
  const Facts& facts_;
  const std::vector<PartContribution>& from_;
  const Tensor& first_;
  Tensor& tensor_;
};

}  // namespace

bool make_tensor(Catalog& catalog, const MapJobs& jobs, const MapJob& job, size_t target_part,
                 const Facts& facts, const std::vector<PartContribution>& from, Tensor& tensor) {
  return Maker(catalog, jobs, job, target_part, facts, from, tensor).run();
}

}  // namespace uckpt::layout
