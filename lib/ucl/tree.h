// The tree of one source file, as written. Every node carries the bytes it came from.
//
// Plain values in the order of the text: rules keep their order, because the first that matches wins.
// Nodes that stand on lines of their own carry the comments around them, so that the printer keeps them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lib/ucl/expr.h"
#include "lib/ucl/name_pattern.h"
#include "lib/ucl/shape.h"
#include "lib/ucl/span.h"

namespace uckpt::ucl {

// The comments of one node, each with its `#`. An empty line in `above` or `tail` is a blank line.
struct Comments {
  std::vector<std::string> above;  // on lines of their own before the node
  std::string behind;              // at the end of the node's line; of a block: behind its `{`
  bool blank_above = false;        // a blank line parts the node (with its comments) from the one before
  std::vector<std::string> tail;   // of a block: before its `}`
  std::string after;               // of a block: behind its `}`
};

// ---- facts
// -------------------------------------------------------------------------------------------------

// `num_attention_heads`, `not untie_embeddings`, `"a key.with dots"`, `model_type == "mistral"`.
struct Key {
  bool negated = false, quoted = false;
  std::string text;                   // without quotes and escapes
  std::optional<std::string> equals;  // of a given: whether the setting is this text
  Span span;
};

// `heads from num_attention_heads | n_head = 32`.
struct GivenVar {
  Name name;
  std::vector<Key> keys;
  std::optional<Expr> fallback;
  Span span;
  Comments comments;
};

struct Given {
  std::vector<GivenVar> vars;
  Span span;
  Comments comments;
};

// `r = heads / groups`.
struct Binding {
  Name name;
  Expr value;
  Span span;
  Comments comments;
};

struct Where {
  std::vector<Binding> bindings;
  Span span;
  Comments comments;
};

// ---- conditions and values
// ---------------------------------------------------------------------------------

enum class Comparison : uint8_t { kLess, kLessEqual, kGreater, kGreaterEqual, kEqual, kNotEqual };

struct Condition {
  enum class Kind : uint8_t {
    kTrue,     // `left` is not 0
    kFalse,    // `left`, a name, is 0: `not tie`
    kCompare,  // `left` comparison `right`
  };
  Kind kind = Kind::kTrue;
  Expr left, right;
  Comparison comparison = Comparison::kEqual;
  Span span;
};

// `* 1/tp` or `+ 1`: what a rank holds is the logical value times, or plus, that.
struct Value {
  bool times = true;
  Expr expr;
  Span span;
};

// ---- layouts
// -----------------------------------------------------------------------------------------------

// `tp`, or `tp = tg * tr`: two parts of one mesh axis, the outer one first.
struct MeshAxis {
  Name name;
  std::optional<std::pair<Name, Name>> parts;
  Span span;
};

// `index e @ep local`: which ranks hold the names with `{e}`, by its number.
struct Index {
  Name name;
  std::optional<Expr> count;  // its numbers are below
  Cut cut;
  bool local = false;
  Span span;
  Comments comments;
};

struct Body {
  enum class Kind : uint8_t {
    kShape,      // `shape`
    kReplicate,  // whole on every rank, as `[...]`
    kPartial,    // only `partial mean over AXIS`
    kUnique,
    kOpaque,
    kDrop,
    kTied,     // another name of the tensor `tied`
    kUnknown,  // `?`
  };
  Kind kind = Kind::kUnknown;
  Shape shape;                  // kShape
  std::optional<Value> value;   // kShape, kReplicate
  std::optional<Name> partial;  // the mesh axis of `partial mean over`: kPartial, and kShape where written
  NamePattern tied;             // kTied
  Span span;
};

struct Place {
  enum class Kind : uint8_t { kFirst, kLast, kNumber };
  Kind kind = Kind::kNumber;
  int64_t number = 0;
  Span span;
};

// `on pp first, last`.
struct On {
  Name axis;
  std::vector<Place> places;
  Span span;
};

struct Rule {
  bool optional = false;
  NamePattern name;
  Body body;
  std::vector<On> on;
  std::optional<Name> dtype;
  std::vector<Name> states;
  std::vector<Condition> when;
  Span span;
  Comments comments;
};

// `use megatron_llama`.
struct LayoutUse {
  Name layout;
  Span span;
  Comments comments;
};

using LayoutItem = std::variant<Rule, Index, Where, LayoutUse>;

struct Layout {
  Name name;  // empty where the parser lost it
  std::vector<MeshAxis> mesh;
  std::vector<LayoutItem> items;
  bool complete = true;  // false: its head did not parse, so its mesh is not known
  Span span;
  Comments comments;
};

// ---- maps
// --------------------------------------------------------------------------------------------------

// `q: "model.layers.{i}.q_proj.weight" [g r d, h] + 1`.
struct Part {
  std::optional<Name> label;
  NamePattern name;
  std::optional<Shape> shape;
  std::optional<Value> value;
  Span span;
  Comments comments;
};

// One side of a rule: a list of parts, or `drop` (no parts).
struct Side {
  bool drop = false;
  std::vector<Part> parts;
  Span span;
};

struct MapRule {
  bool optional = false;
  Side left, right;
  std::vector<Condition> when;
  Span span;
  Comments comments;
};

// `use megatron_llama <-> hf_llama`.
struct MapUse {
  Name left, right;
  Span span;
  Comments comments;
};

using MapItem = std::variant<MapRule, Where, MapUse>;

struct Map {
  Name left, right;  // empty where the parser lost them
  std::vector<MapItem> items;
  Span span;
  Comments comments;
};

// ---- settings
// --------------------------------------------------------------------------------------------------

// `true`, `-1`, `1e-05`, `"llama"`, `["LlamaForCausalLM"]`, or sizes of the program: `heads * head_dim`.
struct Constant {
  using Texts = std::vector<std::string>;
  std::variant<bool, int64_t, double, std::string, Texts, Expr> value;  // an Expr names a given
  Span span;
};

// One side of a rule: a setting by its keys (the first one is written, any is read) and what is said of its
// value; several settings that must be off; or `drop` (no keys).
struct ConfigSide {
  bool drop = false;
  bool off = false;
  bool equals = false;  // `== value`: the rule is of settings that have this value
  std::vector<Key> keys;
  std::vector<Constant> values;
  Span span;
};

// `norm_epsilon <-> rms_norm_eps = 1e-05`, `drop <-> model_type = "llama" | "mistral"`,
// `qk_layernorm == true <-> model_type == "qwen3"`.
struct ConfigRule {
  bool optional = false;
  ConfigSide left, right;
  std::vector<Condition> when;
  Span span;
  Comments comments;
};

struct Config {
  Name left, right;  // empty where the parser lost them
  std::vector<ConfigRule> rules;
  Span span;
  Comments comments;
};

// ---- convert
// -----------------------------------------------------------------------------------------------

// `tp = 2`, `version = v3`.
struct Setting {
  Name name;
  std::variant<int64_t, Name> value;
  Span span;
};

// `to megatron as megatron_llama with tp = 2, pp = 4`.
struct Endpoint {
  bool is_source = false;
  Name format;
  std::optional<Name> naming;
  std::vector<Setting> settings;
  Span span;
  Comments comments;
};

// `drop "a", "b"`.
struct DropNames {
  std::vector<NamePattern> names;
  Span span;
  Comments comments;
};

// `dtype bf16 for "a", "b"`; without names: for all the rest. `keep`: as the source has it.
struct DTypeChoice {
  bool keep = false;
  Name dtype;
  std::vector<NamePattern> names;
  Span span;
  Comments comments;
};

// `states fp32, exp_avg`: which to write.
struct StateChoice {
  std::vector<Name> states;
  Span span;
  Comments comments;
};

using ConvertItem = std::variant<Endpoint, DropNames, DTypeChoice, StateChoice>;

struct Convert {
  std::vector<ConvertItem> items;
  Span span;
  Comments comments;
};

// ---- the program
// -------------------------------------------------------------------------------------------

// `ucl 1`.
struct Version {
  int64_t number = 0;
  Span span;
  Comments comments;
};

// `import "megatron/llama"`.
struct Import {
  std::string path;  // without quotes and escapes
  Span path_span;    // with the quotes
  Span span;
  Comments comments;
};

using Statement = std::variant<Version, Import, Given, Where, Layout, Map, Config, Convert>;

struct Program {
  std::vector<Statement> statements;
  std::vector<std::string> tail;  // comments at the end of the file
  // False after a syntax error: something is missing from the tree, so that a name which is not found
  // may well be in the part that was lost.
  bool complete = true;
};

// The span of any item.
template <class Item>
Span span_of(const Item& item) {
  return std::visit([](const auto& node) { return node.span; }, item);
}

}  // namespace uckpt::ucl
