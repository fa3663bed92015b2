#include "lib/layout/settings_map.h"

#include <algorithm>
#include <cmath>

#include "lib/base/text.h"
#include "lib/layout/map_book.h"
#include "lib/tensor/setting_lists.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::layout {

namespace {

using Value = std::optional<ModelSetting>;

std::optional<double> number_of(const ModelSetting& v) {
  if (const auto* truth = std::get_if<bool>(&v)) return *truth ? 1 : 0;
  if (const auto* whole = std::get_if<int64_t>(&v)) return static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&v)) return *real;
  return std::nullopt;
}

// 1 and true and 1.0 are the same: who writes a setting is not careful about its type.
bool same(const ModelSetting& a, const ModelSetting& b) {
  const auto x = number_of(a), y = number_of(b);
  return x && y ? *x == *y : a == b;
}

std::optional<bool> truth_of(const ModelSetting& v) {
  const auto n = number_of(v);
  return n ? std::optional(*n != 0) : std::nullopt;
}

std::string shown(const ModelSetting& v) {
  return std::visit([](const auto& value) { return ucl::text_of(ucl::Constant{value, {}}); }, v);
}

int64_t whole_argument(const ModelSetting& v, bool& is_whole) {
  const auto* truth = std::get_if<bool>(&v);
  const auto* whole = std::get_if<int64_t>(&v);
  is_whole = truth || whole;
  return truth ? static_cast<int64_t>(*truth) : whole ? *whole : 0;
}

// One `config`, read from one naming to the other.
class Hop {
 public:
  Hop(const ucl::ConfigRef& ref, const Facts& facts, const ModelSettings& before,
      ucl::Diagnostics& diagnostics)
      : ref_(ref), facts_(facts), before_(before), diagnostics_(diagnostics) {}

  TranslatedSettings run() {
    for (const ucl::ConfigRule& rule : ref_.config->rules)
      if (facts_.holds(rule.when, {ref_.file}).value_or(false)) apply(rule);
    out_.known = true;
    return std::move(out_);
  }

 private:
  void apply(const ucl::ConfigRule& rule) {
    const ucl::ConfigSide& from = ref_.reversed ? rule.right : rule.left;
    const ucl::ConfigSide& to = ref_.reversed ? rule.left : rule.right;
    check_places(from);
    if (from.off) return check_off(from);
    if (to.off) return;
    if (to.drop) return check(from);
    if (from.equals) {
      if (has_one_of(from)) put(to, constant(to.values.front()), false);
      return;
    }
    const bool is_truth = to.keys.front().negated || (!from.drop && from.keys.front().negated);
    if (from.drop) {
      if (!rule.optional && !to.values.empty()) put(to, constant(to.values.front()), is_truth);
      return;
    }
    const bool has_default = !to.values.empty() && !is_size(to);
    Value value = size_of(from);
    if (!value) value = stored(from);
    if (!value) value = size_of(to);
    if (!value && !from.values.empty()) value = constant(from.values.front());
    if (value || (!has_default && !rule.optional)) put(to, std::move(value), is_truth);
  }

  void put(const ucl::ConfigSide& to, Value value, bool is_truth) {
    const ucl::Key& key = to.keys.front();
    if (out_.settings.contains(key.text)) return;  // by an earlier rule, of a value
    if (value && is_truth) {
      const auto truth = truth_of(*value);
      value = truth ? Value(*truth != key.negated) : std::nullopt;
    }
    if (value) {
      out_.settings.insert_or_assign(key.text, std::move(*value));
    } else {
      out_.lacking.push_back(key.text);
    }
  }

  // A constant of the source's side: what the input says must agree.
  void check(const ucl::ConfigSide& side) {
    for (const ucl::Key& key : side.keys) {
      const auto found = entries(key);
      for (const auto& [name, value] : found)
        if (!agrees(side, value)) return differs(side.span, name, value, ucl::joined(side.values, " or "));
      if (!found.empty()) return;
    }
  }

  // One setting in two places: "rope_theta" and "rope_parameters.rope_theta". Which of them counts depends on
  // who reads.
  void check_places(const ucl::ConfigSide& side) {
    const auto name_of = [](std::string_view key) { return key.substr(key.rfind('.') + 1); };
    const ucl::Key* first = nullptr;
    for (const ucl::Key& key : side.keys) {
      const Value here = stored(key), before = first ? stored(*first) : std::nullopt;
      if (before && here && name_of(first->text) == name_of(key.text) && !same(*before, *here))
        return differs(key.span, key.text, *here,
                       cat(shown(*before), " as in `", escape(first->text, 80), "`"));
      if (!first && here) first = &key;
    }
  }

  void check_off(const ucl::ConfigSide& side) {
    for (const ucl::Key& key : side.keys) {
      for (const auto& [name, value] : entries(key)) {
        if (truth_of(value) == false) continue;
        differs(key.span, name, value, "false, 0 or no value");
        break;
      }
    }
  }

  void differs(ucl::Span at, std::string_view name, const ModelSetting& value, const std::string& expected) {
    diagnostics_
        .error(ref_.file->source, at, "ucl.setting_differs",
               cat("the input's setting `", escape(name, 80), "` is ", escape(shown(value), 80),
                   ": expected ", expected))
        .hint("the map is of models that have it so: expected a spec of the model's own family");
  }

  // What the input says under the key, without the key's `not`: a value, or each item of a list.
  std::vector<std::pair<std::string, ModelSetting>> entries(const ucl::Key& key) const {
    std::vector<std::pair<std::string, ModelSetting>> out;
    if (const Value found = stored(key)) out.emplace_back(key.text, *found);
    const std::string list = cat(key.text, "[");
    for (auto at = before_.lower_bound(list); at != before_.end() && at->first.starts_with(list); ++at)
      if (list_of_item(at->first) == key.text) out.emplace_back(at->first, at->second);
    return out;
  }

  // A list of texts agrees, too, where each of them does.
  bool agrees(const ucl::ConfigSide& side, const ModelSetting& found) const {
    if (is_one_of(side, found)) return true;
    const auto* texts = std::get_if<std::vector<std::string>>(&found);
    return texts && !texts->empty() &&
           std::all_of(texts->begin(), texts->end(),
                       [&](const std::string& text) { return is_one_of(side, ModelSetting(text)); });
  }

  bool has_one_of(const ucl::ConfigSide& side) const {
    const Value found = stored(side);
    return found && is_one_of(side, *found);
  }

  bool is_one_of(const ucl::ConfigSide& side, const ModelSetting& found) const {
    return std::any_of(side.values.begin(), side.values.end(), [&](const ucl::Constant& v) {
      const Value wanted = constant(v);
      return wanted ? same(*wanted, found) : !side.equals;  // what is not known cannot differ
    });
  }

  // A value, as it is without the key's `not`.
  Value stored(const ucl::ConfigSide& side) const {
    for (const ucl::Key& key : side.keys)
      if (before_.contains(key.text)) return stored(key);
    return std::nullopt;
  }
  Value stored(const ucl::Key& key) const {
    const auto found = before_.find(key.text);
    if (found == before_.end()) return std::nullopt;
    if (!key.negated) return found->second;
    const auto truth = truth_of(found->second);
    return truth ? Value(!*truth) : std::nullopt;
  }

  static bool is_size(const ucl::ConfigSide& side) {
    return !side.values.empty() && std::holds_alternative<ucl::Expr>(side.values.front().value);
  }
  Value size_of(const ucl::ConfigSide& side) const {
    return is_size(side) ? constant(side.values.front()) : std::nullopt;
  }
  Value constant(const ucl::Constant& c) const {
    if (const auto* expr = std::get_if<ucl::Expr>(&c.value)) {
      const auto size =
          facts_.evaluate(*expr, {ref_.file}, [](std::string_view) { return Linear::beyond(); });
      return size.value() ? Value(*size.value()) : std::nullopt;
    }
    Value out;
    std::visit(
        [&](const auto& v) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(v)>, ucl::Expr>) out = v;
        },
        c.value);
    return out;
  }

  const ucl::ConfigRef ref_;
  const Facts& facts_;
  const ModelSettings& before_;
  ucl::Diagnostics& diagnostics_;
  TranslatedSettings out_;
};

}  // namespace

TranslatedSettings translate(const ucl::Spec& spec, std::string_view from, std::string_view to,
                             const ModelSettings& settings, const Settings& known_sizes,
                             ucl::Diagnostics& diagnostics) {
  ucl::Diagnostics told_before;  // by the maps of the tensors, which have the same facts
  Facts facts(spec, {}, known_sizes, told_before);
  facts.take_defaults();
  TranslatedSettings out{settings, false, {}};
  for (const ucl::MapRef& m : map_chain(spec, from, to)) {
    const std::string &left = m.map->left.text, &right = m.map->right.text;
    const ucl::ConfigRef config = m.reversed ? spec.config(right, left) : spec.config(left, right);
    if (config) out = Hop(config, facts, ModelSettings(out.settings), diagnostics).run();
  }
  return out;
}

void translate_settings(Catalog& catalog, const ucl::Spec& spec, std::string_view from, std::string_view to,
                        const Settings& known_sizes, ucl::Diagnostics& diagnostics) {
  TranslatedSettings made = translate(spec, from, to, catalog.settings, known_sizes, diagnostics);
  catalog.settings_are = made.known ? SettingsAre::kTranslated : SettingsAre::kOfOldNames;
  catalog.settings_lack = std::move(made.lacking);
  if (!made.known) return;
  catalog.settings = std::move(made.settings);
  for (const auto& [key, value] : catalog.settings) {
    bool is_whole = false;
    const int64_t number = whole_argument(value, is_whole);
    if (is_whole) catalog.arguments.insert_or_assign(key, number);
  }
}

void keep_what_was_set(Catalog& catalog, const ucl::Spec& spec, const Settings& settings) {
  for (const auto& [name, value] : settings.set) {
    const ucl::GivenRef given = spec.given(name);
    if (!given) continue;
    std::vector<ucl::Key> keys;  // that the value itself stands under
    for (const ucl::Key& key : given.var->keys)
      if (!key.equals) keys.push_back(key);
    if (keys.empty()) continue;
    const auto known = std::find_if(keys.begin(), keys.end(),
                                    [&](const ucl::Key& k) { return catalog.settings.contains(k.text); });
    const ucl::Key& key = known == keys.end() ? keys.front() : *known;
    const auto before = catalog.settings.find(key.text);
    const bool is_truth =
        key.negated || (before != catalog.settings.end() && std::holds_alternative<bool>(before->second));
    const int64_t number = key.negated ? static_cast<int64_t>(value == 0) : value;
    catalog.settings.insert_or_assign(key.text, is_truth ? ModelSetting(number != 0) : ModelSetting(number));
    catalog.arguments.insert_or_assign(key.text, number);
  }
}

}  // namespace uckpt::layout
