// Settings: keys that are said twice, values where none can be, and namings that no map joins.
#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/text_of.h"
#include "lib/ucl/walk.h"

namespace uckpt::ucl {

namespace {

// A condition counts by its text: rules with the same one hold together.
struct Said {
  Span span;
  bool always;
  std::string when;
};
using KeysSaid = std::map<std::string, std::vector<Said>, std::less<>>;

void check_namings(const Context& c, const Config& config) {
  if (config.left.empty()) return;
  const Span names = join(config.left.span, config.right.span);
  const ConfigRef first = c.spec.config(config.left.text, config.right.text);
  if (first && first.config != &config) {
    c.error(names, "ucl.name_twice",
            cat("the settings of `", config.left.text, "` and `", config.right.text, "` are declared twice"))
        .note(first.file->source, join(first.config->left.span, first.config->right.span), "the first time");
  }
  if (c.spec.map(config.left.text, config.right.text) || c.unsure()) return;
  c.error(names, "ucl.unknown_map",
          cat("there is no map between `", config.left.text, "` and `", config.right.text, "`"))
      .suggest(cat(config.left.text, " <-> ", config.right.text), [&] { return c.spec.map_names(); });
}

// Of the rules that speak of a key, one at most may hold.
void check_key(const Context& c, const ConfigRule& rule, const Key& key, KeysSaid& said) {
  std::vector<Said>& before = said[key.text];
  const std::string when = text_of(rule.when);
  for (const Said& s : before) {
    if (!s.always && !when.empty() && s.when != when) continue;
    c.error(key.span, "ucl.config_key", cat("the setting `", key.text, "` is spoken of twice"))
        .note(c.file.source, s.span, "the first time");
    break;
  }
  before.push_back({key.span, when.empty(), when});
}

void check_side(const Context& c, const ConfigRule& rule, const ConfigSide& side, const ConfigSide& other,
                KeysSaid& said) {
  if (side.drop) return;
  if (side.off) {
    for (const Key& key : side.keys) check_key(c, rule, key, said);
    if (!other.drop)
      c.error(side.span, "ucl.config_value", "settings that must be off have none that they correspond to")
          .hint("the other side is `drop`: `off qk_l2_norm, quick_geglu <-> drop`");
    return;
  }
  if (side.equals && !other.equals)
    c.error(side.span, "ucl.config_value", "`==` stands on one side: a value corresponds to a value")
        .hint("as in `qk_layernorm == true <-> model_type == \"qwen3\"`");
  for (const Key& key : side.keys)
    if (!side.equals) check_key(c, rule, key, said);
  if (other.drop && side.values.empty())
    c.error(
         side.span, "ucl.config_value",
         cat("nothing says what `", side.keys.front().text, "` is where the other side has no such setting"))
        .hint("a value follows: `swiglu = true <-> drop`");
  if (!other.drop && !side.equals && side.values.size() > 1)
    c.error(side.values[1].span, "ucl.config_value", "a default is one value")
        .note(c.file.source, side.values.front().span, "the first one");
  Scope scope;
  scope.givens_only = true;
  for (const Constant& v : side.values) {
    if (const auto* expr = std::get_if<Expr>(&v.value)) check_expr(c, scope, *expr);
  }
}

}  // namespace

void check_config(const Context& context, const Config& config) {
  check_namings(context, config);
  KeysSaid left, right;
  for (const ConfigRule& rule : config.rules) {
    if (rule.left.drop && rule.right.drop)
      context.error(rule.span, "ucl.map_drop", "a rule that drops both sides says nothing");
    check_side(context, rule, rule.left, rule.right, left);
    check_side(context, rule, rule.right, rule.left, right);
    check_when(context, {}, rule.when);
  }
}

}  // namespace uckpt::ucl
