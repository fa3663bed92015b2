#include "lib/convert/found_spec.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <vector>

#include "lib/base/text.h"
#include "lib/layout/fragments.h"
#include "lib/layout/map_book.h"
#include "lib/layout/messages.h"
#include "lib/layout/renaming.h"
#include "lib/layout/rule_book.h"
#include "lib/ucl/importer.h"
#include "lib/ucl/walk.h"

namespace uckpt {

namespace {

constexpr std::string_view kProgramBegins = "ucl 1\n# the family was told by its names\n";

// What is said of names, before any shape is looked at.
bool is_about_names(const ucl::Diagnostics& diagnostics) {
  static constexpr std::string_view kCodes[] = {"ucl.no_rule",        "ucl.unused_rule", "ucl.missing_number",
                                                "ucl.wildcard_local", "ucl.no_name",     "ucl.missing_part",
                                                "ucl.number_gap",     "ucl.two_names"};
  return std::ranges::any_of(kCodes, [&](std::string_view code) { return diagnostics.says(code); });
}

// How many maps lead from a naming to another; nothing if none do.
std::optional<size_t> distance(const ucl::Spec& spec, std::string_view from, std::string_view to) {
  if (from == to) return 0;
  try {
    return layout::map_chain(spec, from, to).size();
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<std::string> namings_of(const ucl::Spec& spec) {
  std::vector<std::string> out = spec.namings();
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::string nearest_of(const ucl::Spec& spec, std::string_view naming,
                       const std::vector<std::string>& among) {
  std::string out;
  size_t least = 0;
  for (const std::string& other : among) {
    const auto maps = distance(spec, naming, other);
    if (!maps || (!out.empty() && *maps >= least)) continue;
    out = other;
    least = *maps;
  }
  return out;
}

// One of the specs, over one checkpoint.
class Candidate {
 public:
  // `explains`: also how far from fitting a layout is that does not know all names, which takes a while.
  Candidate(const Catalog& catalog, std::string name, const ucl::Spec& spec, const layout::Settings& settings,
            bool explains)
      : catalog_(catalog), name_(std::move(name)), spec_(spec), settings_(settings), explains_(explains) {
    ucl::each<ucl::Layout>(spec_.root().program.statements,
                           [&](const ucl::Layout& l) { layouts_.push_back(l.name.text); });
  }

  struct Fit {
    FoundSpec found;
    size_t distance, unused;  // maps on the way to the layout; rules that take nothing
    auto key() const { return std::tie(distance, unused, found.spec, found.naming); }
  };

  // A naming that does not fit, and the first reason.
  struct Misfit {
    size_t strangers = 0;     // names that it does not know
    bool leads_away = false;  // no map goes on from it to where it should
    size_t errors = 0;
    std::string naming, reason;
    auto key() const { return std::tie(strangers, leads_away, errors); }
  };
  // The one that knows the most names and leads on, with the fewest reasons.
  const std::optional<Misfit>& nearest() const { return nearest_; }

  void add_fits(std::string_view as, std::vector<Fit>& out) {
    for (const std::string& naming : layouts_) {
      const auto unused = unused_rules(naming);
      if (!unused) continue;
      if (leads_to(naming, as))
        out.push_back({{name_, naming, naming, leads_to(naming, "hf")}, 0, *unused});
      else
        note_misfit({0, true, 0, naming, cat("no map leads from it to `", escape(as), "`")});
    }
    if (!catalog_.ranks.empty()) return;
    for (const std::string& naming : namings_of(spec_)) {
      if (spec_.layout(naming) || !leads_to(naming, as)) continue;
      const std::string layout = nearest_layout(naming);
      if (!layout.empty() && fits_map(naming, layout))
        out.push_back({{name_, naming, layout}, *distance(spec_, naming, layout), 0});
    }
  }

 private:
  bool leads_to(const std::string& naming, std::string_view as) const {
    if (as.empty()) return true;
    return std::ranges::any_of(namings_of(spec_), [&](const std::string& other) {
      return (other == as || other.starts_with(cat(as, "_"))) && distance(spec_, naming, other);
    });
  }

  std::string nearest_layout(const std::string& naming) const { return nearest_of(spec_, naming, layouts_); }

  // Nothing if the names do not fit.
  std::optional<size_t> unused_rules(const std::string& naming) {
    layout::Settings settings = settings_;
    std::optional<Catalog> whole;
    if (catalog_.ranks.empty()) {
      as_one_rank(whole.emplace(catalog_));
      settings = joined(std::move(settings));
    }
    const Catalog& catalog = whole ? *whole : catalog_;
    ucl::Diagnostics said;
    const layout::RuleBook book(spec_, spec_.layout(naming));
    layout::Facts facts(spec_, book.layouts(), settings, said);
    facts.take_defaults();
    if (!layout::takes_names_of(catalog.ranks.front(), catalog, book, facts)) {
      if (explains_)
        note_strangers(naming, catalog.ranks.front(),
                       layout::strangers_of(catalog.ranks.front(), catalog, book, facts));
      return std::nullopt;
    }
    const layout::Sorted sorted = layout::sort_fragments(catalog, book, facts, said, true);
    if (is_about_names(said)) return note_misfit(naming, said, has_strangers(said)), std::nullopt;
    std::set<uint32_t> used;
    for (const layout::Match& m : sorted.matches) used.insert(m.rule);
    return book.rules().size() - used.size();
  }

  bool fits_map(const std::string& naming, const std::string& layout) {
    Catalog copy = catalog_;
    ucl::Diagnostics said;
    try {
      (void)layout::rename(copy, spec_, naming, layout, settings_, said);
    } catch (const Error&) {
      return false;
    }
    if (!is_about_names(said)) return true;
    note_misfit(naming, said, has_strangers(said) ? strangers_of_map(naming, layout) : 0);
    return false;
  }

  static bool has_strangers(const ucl::Diagnostics& said) { return said.says("ucl.no_rule"); }

  // At least one, which a condition may leave without its rule.
  size_t strangers_of_map(const std::string& naming, const std::string& layout) const {
    const layout::MapBook book(spec_, layout::map_chain(spec_, naming, layout).front());
    const auto is_stranger = [&](const Tensor& t) {
      return !book.first_source(t.name, [](const layout::MapRuleRef&) { return true; });
    };
    const auto count = std::ranges::count_if(catalog_.tensors, is_stranger);
    return std::max<size_t>(1, static_cast<size_t>(count));
  }

  // A layout that knows none of the names is not near.
  void note_strangers(const std::string& naming, const RankSet& set, const std::set<std::string>& names) {
    if (std::ranges::all_of(set.tensors, [&](const Tensor& t) { return names.contains(t.name); })) return;
    const std::vector<std::string> list(names.begin(), names.end());
    note_misfit({list.size(), false, list.size(), naming,
                 cat("no rule takes ", list.size(),
                     list.size() == 1 ? " name: " : " names: ", layout::quoted_names(list))});
  }

  void note_misfit(const std::string& naming, const ucl::Diagnostics& said, size_t strangers) {
    note_misfit({strangers, false, said.errors(), naming, said.sorted().front().message});
  }

  void note_misfit(Misfit misfit) {
    if (!nearest_ || misfit.key() < nearest_->key()) nearest_ = std::move(misfit);
  }

  const Catalog& catalog_;
  const std::string name_;
  const ucl::Spec& spec_;
  const layout::Settings& settings_;
  const bool explains_;
  std::vector<std::string> layouts_;  // of the spec itself, not of what it imports
  std::optional<Misfit> nearest_;
};

std::optional<FoundSpec> best(const std::vector<Candidate::Fit>& fits) {
  const auto least = std::ranges::min_element(
      fits, [](const Candidate::Fit& a, const Candidate::Fit& b) { return a.key() < b.key(); });
  return least == fits.end() ? std::nullopt : std::optional(least->found);
}

}  // namespace

std::optional<FoundSpec> find_spec(const Catalog& catalog, std::string_view folder, std::string_view as,
                                   const layout::Settings& settings, std::string* nearest) {
  std::vector<Candidate::Fit> fits;
  std::optional<Candidate::Misfit> least;
  const auto look = [&](bool explains) {
    for (const ucl::Shipped& s : ucl::shipped_specs()) {
      if (!folder.empty() && !s.name.starts_with(cat(folder, "/"))) continue;
      ucl::Diagnostics said;
      const ucl::Spec spec = ucl::open_spec(std::string(s.name), said);
      if (said.has_errors()) continue;
      Candidate candidate(catalog, std::string(s.name), spec, settings, explains);
      candidate.add_fits(as, fits);
      const auto& misfit = candidate.nearest();
      if (!explains || !misfit || (least && !(misfit->key() < least->key()))) continue;
      least = misfit;
      *nearest = cat("the nearest is `", misfit->naming, "` of ", s.name, ": ", misfit->reason);
    }
  };
  look(false);
  if (fits.empty() && nearest) look(true);
  return best(fits);
}

std::optional<FoundSpec> find_naming(const Catalog& catalog, const ucl::Spec& spec, std::string_view as,
                                     const layout::Settings& settings) {
  std::vector<Candidate::Fit> fits;
  Candidate(catalog, "", spec, settings, false).add_fits(as, fits);
  return best(fits);
}

std::string nearest_layout(const ucl::Spec& spec, std::string_view naming) {
  return nearest_of(spec, naming, spec.layout_names());
}

std::string program_of(const std::string& spec, const std::string& naming) {
  return cat(kProgramBegins, "import \"", spec, "\"\n\nconvert {\n    from input as ", naming, "\n}\n");
}

bool is_program_of(std::string_view rules) { return rules.starts_with(kProgramBegins); }

std::string resolve_naming(const ucl::Spec& spec, std::string_view from, const std::string& as) {
  const std::vector<std::string> all = namings_of(spec);
  if (as.empty() || std::ranges::find(all, as) != all.end()) return as;
  std::vector<std::string> nearest;
  size_t least = 0;
  for (const std::string& naming : all) {
    const auto maps = naming.starts_with(cat(as, "_")) ? distance(spec, from, naming) : std::nullopt;
    if (!maps || (!nearest.empty() && *maps > least)) continue;
    if (nearest.empty() || *maps < least) nearest.clear();
    least = *maps;
    nearest.push_back(naming);
  }
  if (nearest.size() > 1)
    throw trouble("usage.as", cat("--as ", escape(as, 60), " may be ", nearest[0], " or ", nearest[1],
                                  ": expected to be told which"));
  return nearest.empty() ? as : nearest.front();
}

layout::Settings joined(layout::Settings settings) {
  settings.is_joined = true;
  settings.mesh["pp"] = settings.mesh["vp"] = 1;
  return settings;
}

void as_one_rank(Catalog& catalog) {
  RankSet all;
  std::vector<Tensor> rest;
  std::vector<bool> is_loose;  // it belongs to no parameter
  std::vector<uint32_t> moved;
  for (Tensor& t : catalog.tensors) {
    is_loose.push_back(t.state == state::kOther || t.state == state::kObjects);
    std::vector<Tensor>& list = is_loose.back() ? rest : all.tensors;
    moved.push_back(static_cast<uint32_t>(list.size()));
    list.push_back(std::move(t));
  }
  for (size_t i = 0; i < moved.size(); ++i) {
    Tensor& t = (is_loose[i] ? rest : all.tensors)[moved[i]];
    if (!t.alias) continue;
    const uint32_t target = *t.alias;
    if (is_loose[target] == is_loose[i]) {
      t.alias = moved[target];
    } else {
      t.alias.reset();
      t.pieces = (is_loose[target] ? rest : all.tensors)[moved[target]].pieces;
    }
  }
  catalog.tensors = std::move(rest);
  catalog.ranks.push_back(std::move(all));
}

}  // namespace uckpt
