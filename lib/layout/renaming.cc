#include "lib/layout/renaming.h"

#include <algorithm>
#include <set>

#include "lib/base/checked.h"
#include "lib/base/text.h"
#include "lib/layout/map_book.h"
#include "lib/layout/map_jobs.h"
#include "lib/layout/messages.h"
#include "lib/layout/new_tensor.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

constexpr int64_t kMostTensors = int64_t{1} << 21;  // that a hostile shape may ask for

// One map, read in one direction.
class Renamer {
 public:
  Renamer(Catalog& catalog, const MapBook& book, Facts& facts, ucl::Diagnostics& diagnostics)
      : catalog_(catalog),
        old_(catalog.tensors),
        book_(book),
        facts_(facts),
        diagnostics_(diagnostics),
        jobs_(catalog, book, facts, diagnostics) {}

  void run() {
    if (!diagnostics_.has_errors()) emit_all();
    if (diagnostics_.has_errors()) return;
    settle_aliases();
    if (!dropped_.empty()) catalog_.warnings.push_back(left_out(dropped_, "the map"));
    catalog_.tensors = std::move(new_);
  }

  // Blocks of a fused tensor, on either side: another order of them has the same shapes.
  std::vector<std::string> trusted_orders() const {
    std::set<uint32_t> used;
    for (const MapJob& j : jobs_.all()) used.insert(jobs_.match_of(j).rule);
    std::vector<std::string> out;
    for (const uint32_t rule : used) {
      for (const ucl::Side* side : {&book_.rules()[rule].source(), &book_.rules()[rule].target()}) {
        for (const ucl::Part& part : side->parts) {
          if (!part.shape) continue;
          ucl::each_factor(*part.shape, [&](const ucl::Factor& f) {
            if (f.kind == ucl::Factor::Kind::kConcat)
              out.push_back(cat("the order ", ucl::text_of(f), " in the map's ", ucl::text_of(part.name),
                                ", which no shape tells"));
          });
        }
      }
    }
    return out;
  }

 private:
  // A new tensor's sources, with what aliases stand for.
  struct Made {
    std::vector<uint32_t> origins;
    bool by_alias = false;
  };

  void emit_all() {
    std::vector<bool> done(jobs_.all().size());
    std::vector<std::optional<uint32_t>> kept(old_.size());
    for (uint32_t i = 0; i < old_.size() && diagnostics_.errors() < kMostMapMessages; ++i) {
      if (const auto job = jobs_.job_of(i)) {
        if (!done[*job]) emit(jobs_.all()[*job]);
        done[*job] = true;
      } else if (jobs_.is_left_alone(old_[i])) {
        kept[i] = static_cast<uint32_t>(new_.size());
        new_.push_back(old_[i]);
        made_.push_back({});
      } else if (!old_[i].alias) {
        dropped_.push_back(old_[i].name);
      }
    }
    for (uint32_t i = 0; i < old_.size(); ++i) {
      if (!kept[i] || !old_[i].alias) continue;
      Tensor& t = new_[*kept[i]];
      t.alias = kept[*old_[i].alias];
      if (t.alias) continue;
      t.pieces = old_[*old_[i].alias].pieces;  // the other name went its own way
      t.copies = old_[*old_[i].alias].copies;
    }
  }

  void emit(const MapJob& j) {
    for (size_t p = 0; p < jobs_.rule_of(j).target().parts.size(); ++p)
      if (!emit_part(j, p)) return;
  }

  // All tensors of a target part: one for each combination of its free captures.
  bool emit_part(const MapJob& j, size_t p) {
    const auto& captures = jobs_.free_of(j).of_target(p);
    const ucl::Span span = jobs_.rule_of(j).target().parts[p].name.span;
    std::vector<std::vector<CaptureKey>> values;
    int64_t count = 1;
    for (const std::string& c : captures) {
      const auto size = count_of(j, c);
      if (!size) {
        jobs_.error(j, span, "ucl.size_unknown",
                    cat("how many numbers `", c, "` has stays unknown: ", ticked(jobs_.first_name(j)),
                        " has only ", j.state));
        return false;
      }
      count = checked_mul(count, *size).value_or(INT64_MAX);
      if (count <= kMostTensors) values.push_back(values_of(j, c, *size));
    }
    if (count > kMostTensors - static_cast<int64_t>(new_.size())) {
      jobs_.error(j, span, "ucl.too_many_tensors",
                  cat("the map would make more than ", human_count(kMostTensors), " tensors"));
      return false;
    }
    std::vector<size_t> at(captures.size(), 0);
    for (int64_t n = 0; n < count; ++n) {
      FreeValues key;
      for (size_t c = 0; c < captures.size(); ++c) key.push_back(values[c][at[c]]);
      if (!emit_tensor(j, p, key, at)) return false;
      for (size_t c = captures.size(); c-- > 0;) {
        if (++at[c] < values[c].size()) break;
        at[c] = 0;
      }
    }
    return true;
  }

  // How many values a free capture of the target has, and which.
  std::optional<int64_t> count_of(const MapJob& j, const std::string& capture) const {
    const auto known = jobs_.match_of(j).values.find(capture);
    if (known != jobs_.match_of(j).values.end()) return static_cast<int64_t>(known->second.size());
    return jobs_.sizes_of(j) ? jobs_.sizes_of(j)->size(capture) : std::nullopt;
  }
  std::vector<CaptureKey> values_of(const MapJob& j, const std::string& capture, int64_t count) const {
    const auto known = jobs_.match_of(j).values.find(capture);
    if (known != jobs_.match_of(j).values.end()) return known->second;
    std::vector<CaptureKey> out;
    for (int64_t i = 0; i < count; ++i) out.push_back({i, {}});
    return out;
  }

  bool emit_tensor(const MapJob& j, size_t p, const FreeValues& key, const std::vector<size_t>& at) {
    const ucl::Part& part = jobs_.rule_of(j).target().parts[p];
    const auto name = layout::name_of(part, jobs_.match_of(j).fixed, jobs_.free_of(j).of_target(p), key);
    if (!name) {
      jobs_.error(j, part.name.span, "ucl.no_name",
                  cat("no name can be made of what ", ticked(jobs_.first_name(j)), " has"));
      return false;
    }
    if (!claim(j, p, *name)) return false;
    std::vector<PartContribution> from;
    Made made;
    for (Source& s : sources_of(j, p, at)) {
      const auto alias = old_[s.tensor].alias;
      made.origins.push_back(alias.value_or(s.tensor));
      made.by_alias |= alias.has_value();
      from.push_back({s.part, {&old_[made.origins.back()], std::move(s.strand)}});
    }
    Tensor t;
    t.name = *name;
    t.state = j.state == state::kOther ? std::string(state::kParam) : j.state;
    if (!make_tensor(catalog_, jobs_, j, p, facts_, from, t)) return false;
    new_.push_back(std::move(t));
    made_.push_back(std::move(made));
    return true;
  }

  // One name for one thing, and read backwards it leads to this rule again.
  bool claim(const MapJob& j, size_t p, const std::string& name) {
    const auto [entry, fresh] = claimed_.emplace(name, Claim{&j, p});
    if (!fresh && entry->second.job->match == j.match && entry->second.part == p) return true;
    const ucl::Span span = jobs_.rule_of(j).target().parts[p].name.span;
    if (!fresh) {
      jobs_.error(j, span, "ucl.two_names",
                  cat(ticked(jobs_.first_name(*entry->second.job)), " and ", ticked(jobs_.first_name(j)),
                      " both become ", ticked(name)));
      return false;
    }
    const auto back = book_.first_target(name, [&](const MapRuleRef& r) { return jobs_.holds(r); });
    const MapBook::PartId own{jobs_.match_of(j).rule, static_cast<uint32_t>(p)};
    if (!back || *back == own) return true;
    const MapRuleRef& taker = book_.rules()[back->rule];
    jobs_
        .error(j, span, "ucl.not_reversible",
               cat(ticked(jobs_.first_name(j)), " becomes ", ticked(name),
                   ", which another rule takes when the map is read backwards"))
        .note(taker.scope.file->source, taker.target().parts[back->part].name.span, "this one comes first");
    return false;
  }

  struct Source {
    uint32_t tensor;
    size_t part;
    Strand strand;
  };

  // What a target tensor is made of; `at` are its free captures' places among their values.
  std::vector<Source> sources_of(const MapJob& j, size_t p, const std::vector<size_t>& at) const {
    std::vector<Source> out;
    if (const Regrouping* regrouping = jobs_.regrouping_of(j))
      for (const Route& route : regrouping->targets[p].routes) add_sources(j, route, at, out);
    if (!out.empty()) return out;
    for (const auto& [place, tensor] : j.tensors) out.push_back({tensor, place.first, {}});  // it is empty
    return out;
  }

  void add_sources(const MapJob& j, const Route& route, const std::vector<size_t>& at,
                   std::vector<Source>& out) const {
    const auto& captures = jobs_.free_of(j).of_source(route.part);
    Strand base = route.strand;
    for (size_t c = 0; c < at.size(); ++c) base.local += static_cast<int64_t>(at[c]) * route.offsets[c];
    // Over the captures that are axes of the target: each value its own source tensor.
    struct Choice {
      FreeValues key;
      int64_t logical = 0;
    };
    std::vector<Choice> choices = {{}};
    for (size_t c = 0; c < captures.size(); ++c) {
      const std::vector<CaptureKey>& values = jobs_.match_of(j).values.at(captures[c]);
      const Route::Pick& pick = route.picks[c];
      const size_t begin = pick.of_target ? at[*pick.of_target] : 0;
      const size_t end = pick.of_target ? begin + 1 : values.size();
      std::vector<Choice> next;
      for (const Choice& choice : choices) {
        for (size_t v = begin; v < end; ++v) {
          next.push_back(choice);
          next.back().key.push_back(values[v]);
          next.back().logical += static_cast<int64_t>(v) * pick.stride;
        }
      }
      choices = std::move(next);
    }
    for (Choice& choice : choices) {
      out.push_back({j.tensors.at({route.part, std::move(choice.key)}), route.part, base});
      out.back().strand.logical += choice.logical;
    }
  }

  // ---- other names of one tensor ----

  bool same_pieces(const Tensor& a, const Tensor& b) const {
    const auto same_axis = [](const Axis& x, const Axis& y) {
      return x.size == y.size && x.start == y.start && x.extent == y.extent && x.stride == y.stride;
    };
    const auto same_piece = [&](const Piece& x, const Piece& y) {
      const auto p = catalog_.axes_of(x), q = catalog_.axes_of(y);
      return x.offset == y.offset && x.file == y.file && x.record == y.record && x.flags == y.flags &&
             std::equal(p.begin(), p.end(), q.begin(), q.end(), same_axis);
    };
    const auto p = catalog_.pieces_of(a.pieces), q = catalog_.pieces_of(b.pieces);
    return std::equal(p.begin(), p.end(), q.begin(), q.end(), same_piece);
  }

  // What came of an alias is one again where the same came of the tensor that it stands for.
  void settle_aliases() {
    std::map<std::pair<std::string, std::vector<uint32_t>>, std::vector<uint32_t>> firsts;
    for (const bool by_alias : {false, true}) {
      for (uint32_t i = 0; i < new_.size(); ++i) {
        if (made_[i].origins.empty() || made_[i].by_alias != by_alias) continue;
        Tensor& t = new_[i];
        auto& others = firsts[{t.state, made_[i].origins}];
        const auto same = std::find_if(others.begin(), others.end(), [&](uint32_t o) {
          const Tensor& f = new_[o];
          return f.shape == t.shape && f.factor == t.factor && f.summand == t.summand && same_pieces(f, t);
        });
        if (!by_alias || same == others.end()) {
          others.push_back(i);
          continue;
        }
        t.alias = *same;
        t.pieces = {};
        t.copies.clear();
        t.averaged_with.clear();
        t.layout = "another name";
      }
    }
  }

  struct Claim {
    const MapJob* job;
    size_t part;
  };

  Catalog& catalog_;
  const std::vector<Tensor>& old_;
  const MapBook& book_;
  const Facts& facts_;
  ucl::Diagnostics& diagnostics_;
  const MapJobs jobs_;
  std::map<std::string, Claim> claimed_;  // new names
  std::vector<Tensor> new_;
  std::vector<Made> made_;            // of each new tensor
  std::vector<std::string> dropped_;  // old names
};

}  // namespace

std::vector<std::string> rename(Catalog& catalog, const ucl::Spec& spec, std::string_view from,
                                std::string_view to, const Settings& settings,
                                ucl::Diagnostics& diagnostics) {
  std::vector<MapBook> books;
  std::vector<ucl::MapRef> maps;
  for (const ucl::MapRef& m : map_chain(spec, from, to)) {
    books.emplace_back(spec, m);
    maps.insert(maps.end(), books.back().maps().begin(), books.back().maps().end());
  }
  Facts facts(spec, {}, settings, diagnostics, maps);
  const std::vector<Tensor> before = catalog.tensors;
  std::vector<std::string> orders;
  for (const MapBook& book : books) {
    if (diagnostics.has_errors()) break;
    Renamer renamer(catalog, book, facts, diagnostics);
    const std::vector<std::string> more = renamer.trusted_orders();
    orders.insert(orders.end(), more.begin(), more.end());
    renamer.run();
  }
  if (diagnostics.has_errors()) {
    catalog.tensors = before;
    return {};
  }
  std::vector<std::string> trusted = facts.trusted();
  trusted.insert(trusted.end(), orders.begin(), orders.end());
  return trusted;
}

}  // namespace uckpt::layout
