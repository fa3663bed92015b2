#include "lib/formats/deepspeed/rules.h"

#include <map>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/deepspeed/affine_rule.h"
#include "lib/formats/deepspeed/builder.h"
#include "lib/ucl/draft.h"

namespace uckpt::deepspeed {

namespace {

// One parameter's fragments: their shapes, by rank.
struct Name {
  std::string name;
  std::vector<Shape> shapes;
  bool is_buffer = false;
};

struct Rule {
  std::string body, reason;
};

// What one list of patterns says, with what it stands for.
Patterns patterns_of(const std::vector<std::string>& texts) {
  Patterns out;
  for (const std::string& t : texts) out.add(t);
  return out;
}

class RuleMaker {
 public:
  RuleMaker(const UniversalInfo& info, int64_t tp)
      : info_(info),
        tp_(tp),
        vocabulary_(patterns_of(info.vocabulary)),
        replicated_(patterns_of(info.replicated)),
        averaged_(patterns_of(info.averaged)),
        row_(patterns_of(info.row_parallel)),
        two_(patterns_of(info.two_sub_params)) {
    for (const SubParams& s : info.sub_params) {
      for (const std::string& p : s.patterns) {
        subs_.add(p);
        sub_of_.push_back({&s, p});
      }
    }
    for (const AffineMap& m : info.affine) affine_.add(m.pattern);
  }

  // The map of a parameter, if it has one.
  const AffineMap* map_of(const std::string& name) const {
    const auto i = affine_.match(name);
    return i ? &info_.affine[*i] : nullptr;
  }

  // In DeepSpeed's order of precedence. No body: what its affine map says, no shape expression does.
  Rule of(const Name& n) const {
    Rule rule = shape_of(n);
    if (rule.body.empty()) return rule;
    if (vocabulary_.match(n.name) && !n.is_buffer) add_vocabulary(n, rule);
    return rule;
  }

 private:
  Rule shape_of(const Name& n) const {
    if (const auto i = affine_.match(n.name)) {
      const auto body = body_of(info_.affine[*i], tp_);
      return {body.value_or(""), "affine_map"};
    }
    if (replicated_.match(n.name)) return {"replicate", "tp_replicated_parameter_patterns"};
    if (averaged_.match(n.name)) return {"partial mean over tp", "parameter_to_average_patterns"};
    if (two_.match(n.name))
      return {cat("[(s0: half@tp | s1: half@tp)", rest(n, 0), "]"), "parameter_with_2_sub_params_cat_dim_0"};
    if (const auto i = subs_.match(n.name)) return sub_params(n, *sub_of_[*i].first, sub_of_[*i].second);
    if (row_.match(n.name)) {
      if (n.shapes[0].size() < 2) throw unfit(n, "parameter_with_row_parallelism_patterns", 2);
      return {cat("[rows, columns@tp", rest(n, 1), "]"), "parameter_with_row_parallelism_patterns"};
    }
    if (n.is_buffer) return {"replicate", "a buffer, which no pattern names"};
    if (n.shapes[0].empty()) return {"replicate", "no pattern names it, and it has no dims"};
    return {cat("[rows@tp", rest(n, 0), "]"), "no pattern names it: joined along the first dim"};
  }

  static Error unfit(const Name& n, std::string_view key, size_t dims) {
    return refused("deepspeed.sizes", cat(key, " names it: expected at least ", dims, " dims, found shape ",
                                          shape_text(n.shapes[0])))
        .in_tensor(n.name);
  }

  // What stands for the dims behind `dim`.
  static std::string rest(const Name& n, size_t dim) {
    if (n.shapes[0].size() <= dim) throw unfit(n, "universal_checkpoint_info", dim + 1);
    return n.shapes[0].size() == dim + 1 ? "" : ", ...";
  }

  Rule sub_params(const Name& n, const SubParams& s, const std::string& pattern) const {
    if (n.shapes[0].size() <= s.dim) throw unfit(n, "parameter_with_sub_params", s.dim + 1);
    std::string out = "[";
    for (size_t d = 0; d < s.dim; ++d) out += cat("d", d, ", ");
    const auto widths = info_.shard_widths.find(pattern);
    const size_t count = s.equal ? static_cast<size_t>(*s.equal) : s.sizes.size();
    for (size_t i = 0; i < count; ++i) {
      out += cat(i ? " | " : count > 1 ? "(" : "", count > 1 ? cat("s", i, ": ") : std::string());
      out += s.equal ? std::string("part@tp") : cat(s.sizes[i], share_text(widths, i));
    }
    out += count > 1 ? ")" : "";
    return {cat(out, rest(n, s.dim), "]"), "parameter_with_sub_params"};
  }

  template <class Widths>
  std::string share_text(const Widths& widths, size_t i) const {
    if (widths == info_.shard_widths.end() || i >= widths->second.size()) return "@tp[even]";
    std::string out;
    for (const int64_t w : widths->second[i]) out += cat(out.empty() ? "@tp[" : ",", w);
    return out + "]";
  }

  // The first dim has filler at its end: only `original_vocab_size` rows are real.
  void add_vocabulary(const Name& n, Rule& rule) const {
    const auto real = info_.original_vocabulary;
    if (!real || *real < 1)
      throw refused("deepspeed.pattern",
                    "there are vocabulary_parameter_patterns, but no original_vocab_size");
    if (n.shapes[0].empty()) throw unfit(n, "vocabulary_parameter_patterns", 1);
    const bool is_cut = rule.body.starts_with("[rows@tp");
    int64_t rows = 0;
    for (const Shape& s : n.shapes) rows = is_cut ? rows + s[0] : s[0];
    if (rows < *real)
      throw refused("deepspeed.sizes",
                    cat("expected at least ", *real, " rows (original_vocab_size), found ", rows))
          .in_tensor(n.name);
    const std::string padded = rows == *real ? cat(*real) : cat(*real, " pad(", rows, ")");
    if (is_cut) {
      rule.body = cat("[", padded, " ", rule.body.substr(rule.body.find("@tp")));
    } else if (rule.body.starts_with("[rows, ")) {
      rule.body = cat("[", padded, rule.body.substr(rule.body.find(", ")));
    } else if (rule.body == "replicate" || rule.body.starts_with("partial")) {
      rule.body = cat("[", padded, n.shapes[0].size() > 1 ? ", ...]" : "]",
                      rule.body == "replicate" ? "" : cat(" ", rule.body));
    } else if (rows != *real) {
      throw refused("deepspeed.pattern", "a padded vocabulary of sub-parameters is not read")
          .in_tensor(n.name);
    }
    rule.reason += ", vocabulary_parameter_patterns";
  }

  const UniversalInfo& info_;
  const int64_t tp_;
  Patterns vocabulary_, replicated_, averaged_, row_, two_, subs_, affine_;
  std::vector<std::pair<const SubParams*, std::string>> sub_of_;
};

std::vector<Name> names_of(const Catalog& catalog) {
  std::vector<Name> out;
  std::map<std::string_view, size_t> known;
  for (const RankSet& set : catalog.ranks) {
    for (const Tensor& t : set.tensors) {
      const auto [entry, fresh] = known.emplace(t.name, out.size());
      if (fresh) out.push_back({t.name, {}, t.state == state::kBuffer});
      Name& n = out[entry->second];
      // The first state that is no number says the shape; one entry a rank set.
      const auto rank = static_cast<size_t>(&set - catalog.ranks.data());
      if (n.shapes.size() == rank && (t.state == state::kMaster || t.state == state::kParam || n.is_buffer))
        n.shapes.push_back(t.shape);
    }
  }
  std::erase_if(out, [](const Name& n) { return n.shapes.empty(); });
  return out;
}

}  // namespace

std::string rules_of(const UniversalInfo& info, Catalog& catalog) {
  if (!info.unsupported.empty()) {
    throw refused("deepspeed.unsupported", cat("DeepSpeed says that it could not describe some parameters: ",
                                               escape(info.unsupported.front(), 150)))
        .hint("describe them in a UCL file and give it with --spec");
  }
  const auto tp = static_cast<int64_t>(catalog.ranks.size());
  const RuleMaker maker(info, tp);
  ucl::Draft draft;
  std::string scattered;
  for (const Name& n : names_of(catalog)) {
    Rule rule = maker.of(n);
    if (!rule.body.empty()) {
      draft.add(n.name, std::move(rule.body), std::move(rule.reason));
      continue;
    }
    catalog.scattered.emplace(n.name, scattered_by(*maker.map_of(n.name), tp));
    scattered += cat("# \"", escape(n.name, 200),
                     "\" lies in boxes of its affine map that no shape says: it needs no rule\n");
  }
  return draft.text("deepspeed", "tp", "from the checkpoint's universal_checkpoint_info") + scattered;
}

std::string rules_of_padding(const Catalog& catalog, const PaddedRows& padded) {
  if (padded.empty()) return {};
  ucl::Draft draft;
  std::set<std::string_view> done;
  for (const Tensor& t : catalog.tensors) {
    const bool is_weight = t.state == state::kMaster || t.state == state::kParam || t.state == state::kBuffer;
    if (!is_weight || !done.insert(t.name).second) continue;
    const auto rows = padded.find(t.name);
    if (rows == padded.end()) {
      draft.add(t.name, "replicate", "one rank has all of it");
    } else {
      draft.add(t.name, cat("[", t.shape[0], " pad(", rows->second, ")", t.shape.size() > 1 ? ", ...]" : "]"),
                "vocabulary_parameter_patterns");
    }
  }
  return draft.text("deepspeed", "tp", "from the checkpoint's universal_checkpoint_info, for one rank");
}

}  // namespace uckpt::deepspeed
