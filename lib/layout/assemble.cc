#include "lib/layout/assemble.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/layout/fragments.h"
#include "lib/layout/joining.h"
#include "lib/layout/messages.h"
#include "lib/layout/placement.h"
#include "lib/layout/rule_book.h"
#include "lib/layout/shape_solver.h"
#include "lib/ucl/text_of.h"

namespace uckpt::layout {

namespace {

using BodyKind = ucl::Body::Kind;

class Assembler {
 public:
  Assembler(Catalog& catalog, const ucl::Spec& spec, ucl::LayoutRef layout, const Settings& settings,
            ucl::Diagnostics& diagnostics)
      : catalog_(catalog),
        diagnostics_(diagnostics),
        book_(spec, layout),
        facts_(spec, book_.layouts(), settings, diagnostics) {}

  Assembled run() {
    Facts early = facts_;  // conditions speak of givens that size no shape: their defaults hold at once
    early.take_defaults();
    sorted_ = sort_fragments(catalog_, book_, early, diagnostics_);
    make_solvers();
    solve();
    facts_.check();
    for (size_t i = 0; i < sorted_.matches.size() && diagnostics_.errors() < kMostMessages; ++i) build(i);
    for (const Parts& p : sorted_.scattered) build_scattered(p);
    for (const Parts& n : sorted_.numbers) build_number(n);
    if (!diagnostics_.has_errors()) add_aliases();
    if (!sorted_.dropped.empty())
      catalog_.warnings.push_back(left_out({sorted_.dropped.begin(), sorted_.dropped.end()}, "a rule"));
    Assembled out{trusted(), facts_.solved_givens()};
    catalog_.ranks.clear();
    catalog_.scattered.clear();  // their names are those of whole tensors now
    return out;
  }

 private:
  const RuleRef& rule_of(const Match& m) const { return book_.rules()[m.rule]; }

  // The first of a rule's matches with one kind of problem speaks for all.
  void error(const Match& m, const std::string& code, std::string message, std::string hint = {}) {
    if (!told_.emplace(m.rule, code).second) return;
    const RuleRef& r = rule_of(m);
    auto& said = diagnostics_.error(r.scope.file->source, r.rule->name.span, code,
                                    cat("`", escape(m.name, 100), "`: ", message));
    if (!hint.empty()) said.hint(std::move(hint));
  }

  // One solver for all matches of a rule whose fragments have the same shapes: they have the same sizes.
  void make_solvers() {
    std::map<std::string, size_t> known;
    solver_of_.resize(sorted_.matches.size());
    for (size_t i = 0; i < sorted_.matches.size(); ++i) {
      const Match& m = sorted_.matches[i];
      std::vector<LocalShape> shapes;
      std::string key = cat(m.rule);
      for (const Fragment& f : sorted_.parts[m.parts.front()].fragments) {
        shapes.push_back({f.set->at, f.tensor->shape});
        key += cat(";", text_of(f.set->at), ":", shape_text(f.tensor->shape));
      }
      const auto [entry, fresh] = known.emplace(std::move(key), solvers_.size());
      if (fresh)
        solvers_.push_back(
            std::make_unique<ShapeSolver>(facts_, rule_of(m).scope, shape_of(rule_of(m)), std::move(shapes)));
      solver_of_[i] = entry->second;
    }
    fine_.resize(solvers_.size());
  }

  void solve() {
    std::vector<ShapeSolver*> all;
    for (const auto& s : solvers_) all.push_back(s.get());
    solve_together(facts_, all);
    // Of one rule's solvers, those of the same shapes on other ranks say nothing new: the first speaks.
    std::set<uint32_t> told;
    for (size_t i = 0; i < sorted_.matches.size(); ++i) {
      const size_t s = solver_of_[i];
      if (fine_[s] || told.contains(sorted_.matches[i].rule)) continue;
      fine_[s] = solvers_[s]->check(diagnostics_, sorted_.matches[i].name);
      if (!fine_[s]) told.insert(sorted_.matches[i].rule);
    }
  }

  // Where the rule places it: the sets that must have a fragment, but for empty shares.
  bool belongs(const Match& m, const Coordinate& at, const Coordinate& found) {
    const RuleRef& r = rule_of(m);
    if (!lies_on(r, facts_, at)) return false;
    for (const ucl::Capture* c : r.rule->name.captures()) {
      const IndexRef* index = c->kind == ucl::Capture::Kind::kNumber ? book_.index(c->name.text) : nullptr;
      if (!index) continue;
      for (const ucl::CutAxis& a : index->index->cut.axes)
        if (facts_.place(index->scope, at, a.axis.text) != facts_.place(index->scope, found, a.axis.text))
          return false;
    }
    return true;
  }

  bool has_global_index(const Match& m) const {
    for (const ucl::Capture* c : rule_of(m).rule->name.captures()) {
      const IndexRef* index = book_.index(c->name.text);
      if (index && !index->index->local) return true;
    }
    return false;
  }

  bool check_presence(const Match& m, const Parts& parts, const ShapeSolver& solver) {
    bool fine = true;
    const Coordinate& found = parts.fragments.front().set->at;
    for (const RankSet& set : catalog_.ranks) {
      const bool here = std::any_of(parts.fragments.begin(), parts.fragments.end(),
                                    [&](const Fragment& f) { return f.set == &set; });
      const bool wanted = belongs(m, set.at, found);
      if (here && !wanted) {
        error(m, "ucl.misplaced", cat("it lies on rank ", text_of(set.at), ", where its rule has none"),
              has_global_index(m) ? "if the files of each rank count from 0, its `index` is `local`" : "");
        fine = false;
      } else if (!here && wanted && numel_of(solver.local(set.at)) != 0) {
        error(m, "ucl.missing_fragment",
              cat("rank ", text_of(set.at), " has no ", parts.state, " of it, expected one of shape ",
                  shape_text(solver.local(set.at))));
        fine = false;
      }
    }
    return fine;
  }

  void build(size_t index) {
    const Match& m = sorted_.matches[index];
    const ucl::Body& body = rule_of(m).rule->body;
    if (body.kind == BodyKind::kUnknown) {
      diagnostics_.error(
          rule_of(m).scope.file->source, body.span, "ucl.unknown_body",
          cat("how `", escape(m.name, 100), "` lies is not known yet: write its shape in place of `?`"));
      return;
    }
    if (!fine_[solver_of_[index]]) return;
    const ShapeSolver& solver = *solvers_[solver_of_[index]];
    for (const size_t p : m.parts) {
      const Parts& parts = sorted_.parts[p];
      if (!has_declared_dtype(m, parts) || !same_shapes(m, parts)) continue;
      const bool anywhere = body.kind == BodyKind::kUnique || body.kind == BodyKind::kOpaque;
      if (!anywhere && !check_presence(m, parts, solver)) continue;
      if (body.kind == BodyKind::kTied) {
        ties_.push_back(&parts);
      } else {
        build_tensor(m, parts, solver_of_[index]);
      }
    }
  }

  // The type that a rule's `dtype` speaks of: that of the model's weights, or of the states that it names.
  static std::optional<DType> type_spoken_of(const ucl::Rule& rule, const Tensor& t) {
    if (!rule.states.empty() || t.state == state::kParam || t.state == state::kBuffer) return t.dtype;
    if (t.state != state::kMaster) return std::nullopt;
    for (const Copy& copy : t.copies)
      if (copy.is_module) return copy.dtype;
    return t.module_dtype;
  }

  bool has_declared_dtype(const Match& m, const Parts& parts) {
    const RuleRef& r = rule_of(m);
    if (!r.rule->dtype) return true;
    for (const Fragment& f : parts.fragments) {
      const auto found = type_spoken_of(*r.rule, *f.tensor);
      if (!found || name_of(*found) == r.rule->dtype->text) continue;
      if (!told_.emplace(m.rule, "ucl.dtype_differs").second) return false;
      const bool of_module = r.rule->states.empty() && parts.state == state::kMaster;
      const std::string_view what = of_module ? "module weight" : std::string_view(parts.state);
      diagnostics_.error(r.scope.file->source, r.rule->dtype->span, "ucl.dtype_differs",
                         cat("`", escape(m.name, 100), "`: its ", what, " is ", name_of(*found), " on rank ",
                             text_of(f.set->at), ", expected ", r.rule->dtype->text));
      return false;
    }
    return true;
  }

  // A rule covers all states of one shape.
  bool same_shapes(const Match& m, const Parts& parts) {
    const Parts& first = sorted_.parts[m.parts.front()];
    for (const Fragment& f : parts.fragments) {
      for (const Fragment& g : first.fragments) {
        if (f.set != g.set || f.tensor->shape == g.tensor->shape) continue;
        error(m, "ucl.state_shape",
              cat("its ", parts.state, " has the shape ", shape_text(f.tensor->shape), " on rank ",
                  text_of(f.set->at), ", its ", first.state, " ", shape_text(g.tensor->shape)),
              "a state of another shape takes a rule of its own, with `states`");
        return false;
      }
      if (f.tensor->dtype == parts.fragments.front().tensor->dtype) continue;
      error(m, "ucl.dtype",
            cat("its ", parts.state, " is ", name_of(f.tensor->dtype), " on rank ", text_of(f.set->at), ", ",
                name_of(parts.fragments.front().tensor->dtype), " on others"));
      return false;
    }
    return true;
  }

  // The same for all matches that share a solver.
  const View& view_of(size_t solver, const RankSet* set) {
    const auto [entry, fresh] = views_.try_emplace({solver, set});
    if (fresh) entry->second = solvers_[solver]->view(set->at);
    return entry->second;
  }
  const Shape& logical_of(size_t solver) {
    const auto [entry, fresh] = logical_.try_emplace(solver);
    if (fresh) entry->second = solvers_[solver]->logical();
    return entry->second;
  }

  void build_tensor(const Match& m, const Parts& parts, size_t solver) {
    const RuleRef& r = rule_of(m);
    const ucl::Body& body = r.rule->body;
    const DType dtype = parts.fragments.front().tensor->dtype;
    if ((body.partial || body.value) && !has_arithmetic(dtype)) {
      error(m, "ucl.dtype",
            cat("its ", parts.state, " is ", name_of(dtype), ", of which there is no mean and no product"));
      return;
    }
    Joining joining;
    joining.shape = logical_of(solver);
    joining.view = [&](const Fragment& f) { return view_of(solver, f.set); };
    joining.averaged = body.partial.has_value();
    joining.whole = [&](const Fragment& f) {
      return facts_.place(r.scope, f.set->at, body.partial->text).value_or(0);
    };
    joining.how = ucl::text_of(body);
    // Ranks that hold what is `unique` or `opaque` hold copies: they are compared, so that none is lost.
    if (body.kind == BodyKind::kUnique) joining.again = "`unique` tensor on a further rank, ";
    if (body.kind == BodyKind::kOpaque) joining.again = "`opaque` tensor on a further rank, ";
    Tensor t = join(catalog_, parts, joining);
    if (set_value(m, t)) catalog_.tensors.push_back(std::move(t));
  }

  // What the input says of its fragments, box by box.
  void build_scattered(const Parts& parts) {
    const Scattered& scattered = catalog_.scattered.find(parts.name)->second;
    const auto fail = [&](std::string why) {
      return refused("layout.scattered", std::move(why))
          .in_file(catalog_.path)
          .in_tensor(parts.name)
          .hint("--spec gives a rule for it, which goes before what the checkpoint says of it");
    };
    Joining joining;
    joining.shape = scattered.shape;
    joining.how = "boxes";
    joining.view = [&](const Fragment& f) {
      View view{numel_of(scattered.shape), numel_of(f.tensor->shape), {}};
      for (const ScatteredBox& b : scattered.ranks[static_cast<size_t>(f.set - catalog_.ranks.data())]) {
        Strand strand{b.whole_offset, b.part_offset, {}};
        for (size_t d = 0; d < b.extent.size(); ++d)
          if (b.extent[d] > 1) strand.steps.push_back({b.extent[d], b.whole_strides[d], b.part_strides[d]});
        if (!is_nest(strand, view.local)) throw fail("the boxes of a fragment overlap, or leave it");
        view.strands.push_back(std::move(strand));
      }
      if (view.volume() != view.local)
        throw fail(cat("the checkpoint's own description of rank ", text_of(f.set->at), " has ",
                       view.volume(), " elements, expected the ", view.local, " that the rank's files hold"));
      return view;
    };
    Tensor t = join(catalog_, parts, joining);
    if (scattered.scale != 1) {
      if (!has_arithmetic(t.dtype)) throw fail(cat("there is no product of type ", name_of(t.dtype)));
      apply_factor(t, scattered.scale);
    }
    catalog_.tensors.push_back(std::move(t));
  }

  // Sorts the steps by falling local stride. False if they do not nest, or leave the local range.
  static bool is_nest(Strand& strand, int64_t local) {
    std::stable_sort(strand.steps.begin(), strand.steps.end(),
                     [](const Step& a, const Step& b) { return a.local > b.local; });
    int64_t inner = 1;
    for (size_t i = strand.steps.size(); i-- > 0;) {
      const Step& s = strand.steps[i];
      const auto way = checked_mul(s.count - 1, s.local);
      if (s.local < inner || !way || *way > local) return false;
      inner += *way;
    }
    return strand.local <= local && inner <= local - strand.local;
  }

  // A rank holds the weight times `number`: its gradient is smaller by that.
  static void apply_factor(Tensor& t, double number) {
    t.factor = is_weight(t.state) ? 1 / number : t.state == "exp_avg_sq" ? number * number : number;
  }

  // A rank holds the logical value times, or plus, something; a gradient scales the other way round.
  bool set_value(const Match& m, Tensor& t) {
    const auto& value = rule_of(m).rule->body.value;
    if (!value) return true;
    const auto number = amount_of(*value, rule_of(m).scope, facts_, diagnostics_);
    if (!number) return false;
    if (value->times) {
      apply_factor(t, *number);
    } else if (is_weight(t.state)) {
      t.summand = -*number;
    }
    return true;
  }

  void build_number(const Parts& parts) {
    const Fragment& first = parts.fragments.front();
    const auto bytes_of_number = [&](const Tensor& t) {
      const Piece& p = catalog_.pieces_of(t.pieces)[0];
      return ByteSpan(catalog_.literals.data() + p.offset, static_cast<size_t>(item_size(t.dtype)));
    };
    for (const Fragment& f : parts.fragments) {
      const ByteSpan a = bytes_of_number(*first.tensor), b = bytes_of_number(*f.tensor);
      if (first.tensor->dtype == f.tensor->dtype && std::equal(a.begin(), a.end(), b.begin(), b.end()))
        continue;
      throw refused("copies.differ", cat("the ", parts.state, " differs between rank ",
                                         text_of(first.set->at), " and rank ", text_of(f.set->at)))
          .in_file(catalog_.path)
          .in_tensor(parts.name);
    }
    Tensor t = *first.tensor;
    t.name = parts.name;
    catalog_.tensors.push_back(std::move(t));
  }

  void add_alias(const std::string& state, const std::string& name, const std::string& target_state,
                 const std::string& target_name) {
    const auto count = static_cast<uint32_t>(catalog_.tensors.size());
    for (uint32_t i = 0; i < count; ++i) {
      const Tensor& target = catalog_.tensors[i];
      if (target.state != target_state || target.name != target_name || target.alias) continue;
      Tensor t;
      t.name = name;
      t.state = state;
      t.dtype = target.dtype;
      t.shape = target.shape;
      t.alias = i;
      t.layout = "another name";
      t.refusal = target.refusal;
      catalog_.tensors.push_back(std::move(t));
      return;
    }
  }

  void add_aliases() {
    for (const AliasName& a : sorted_.aliases) add_alias(a.state, a.name, a.target_state, a.target_name);
    for (const Parts* p : ties_) add_tie(*p);
  }

  // `tied to`: one more copy of the tensor that the rule names, cut as that is.
  void add_tie(const Parts& parts) {
    const RuleRef& r = book_.rules()[parts.rule];
    const auto captures = ucl::match(r.rule->name, parts.name);
    const auto target_name = captures ? ucl::produce(r.rule->body.tied, *captures) : std::nullopt;
    for (size_t i = 0; target_name && i < sorted_.matches.size(); ++i) {
      const Match& m = sorted_.matches[i];
      if (m.name != *target_name || !fine_[solver_of_[i]]) continue;
      for (Tensor& t : catalog_.tensors) {
        if (t.state != parts.state || t.name != *target_name || t.alias) continue;
        compare_tie(parts, *solvers_[solver_of_[i]], t);
        return add_alias(parts.state, parts.name, parts.state, *target_name);
      }
    }
    diagnostics_.error(r.scope.file->source, r.rule->body.span, "ucl.tied_to_nothing",
                       cat("`", escape(parts.name, 100), "` is tied to ", ucl::text_of(r.rule->body.tied),
                           ", of which the checkpoint has no ", parts.state));
  }

  void compare_tie(const Parts& parts, const ShapeSolver& solver, Tensor& t) {
    for (const Fragment& f : parts.fragments) {
      if (!f.tensor->refusal.empty() || f.tensor->dtype != t.dtype || item_size(t.dtype) == 0) continue;
      if (f.tensor->shape != solver.local(f.set->at)) {
        const RuleRef& r = book_.rules()[parts.rule];
        diagnostics_.error(
            r.scope.file->source, r.rule->body.span, "ucl.size_conflict",
            cat("`", escape(parts.name, 100), "` has the shape ", shape_text(f.tensor->shape), " on rank ",
                text_of(f.set->at), ", the tensor that it is tied to ", shape_text(solver.local(f.set->at))));
        return;
      }
      add_copy(catalog_, t, f, solver.view(f.set->at),
               cat("tied weight ", escape(parts.name, 60), " on rank ", text_of(f.set->at)));
    }
  }

  std::vector<std::string> trusted() const {
    std::vector<std::string> out = facts_.trusted();
    std::set<uint32_t> used;
    for (const Match& m : sorted_.matches) used.insert(m.rule);
    for (std::string& order : trusted_orders(book_, used)) out.push_back(std::move(order));
    return out;
  }

  Catalog& catalog_;
  ucl::Diagnostics& diagnostics_;
  RuleBook book_;
  Facts facts_;
  Sorted sorted_;
  std::vector<std::unique_ptr<ShapeSolver>> solvers_;
  std::vector<size_t> solver_of_;                            // of each match
  std::vector<bool> fine_;                                   // of each solver
  std::map<std::pair<size_t, const RankSet*>, View> views_;  // of each solver
  std::map<size_t, Shape> logical_;                          // of each solver
  std::vector<const Parts*> ties_;
  std::set<std::pair<uint32_t, std::string>> told_;
};

}  // namespace

Assembled assemble(Catalog& catalog, const ucl::Spec& spec, ucl::LayoutRef layout, const Settings& settings,
                   ucl::Diagnostics& diagnostics) {
  return Assembler(catalog, spec, layout, settings, diagnostics).run();
}

}  // namespace uckpt::layout
