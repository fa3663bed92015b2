#include "lib/ucl/parser_state.h"

#include <algorithm>
#include <charconv>

#include "lib/base/text.h"
#include "ucl_parser.hh"

namespace uckpt::ucl {

namespace {

using T = Grammar::token;

constexpr size_t kMaxSyntaxErrors = 100;  // then the rest of the file is not looked at

// Keywords that stand nowhere but at the start of a statement.
bool begins_statement(int kind) {
  return kind == T::UCL || kind == T::IMPORT || kind == T::GIVEN || kind == T::LAYOUT || kind == T::MAP ||
         kind == T::CONFIG || kind == T::CONVERT;
}

bool has_block(int statement) {
  return statement == T::LAYOUT || statement == T::MAP || statement == T::CONFIG || statement == T::CONVERT;
}

// Behind these an expression, a list or a side goes on, on whatever line.
bool leaves_open(int kind) {
  switch (kind) {
    case T::COMMA:
    case T::BAR:
    case T::ARROW:
    case T::ASSIGN:
    case T::EQUAL:
    case T::COLON:
    case T::AT:
    case T::PLUS:
    case T::MINUS:
    case T::STAR:
    case T::SLASH:
    case T::LEFT_PAREN:
    case T::LEFT_BRACKET:
    case T::TO:
    case T::FOR:
    case T::ON:
      return true;
    default:
      return false;
  }
}

}  // namespace

// ---- the token stream
// ----------------------------------------------------------------------------------------

int ParserState::kind_at(size_t token) const {
  return token < tokens_.all().size() ? tokens_.all()[token].kind : static_cast<int>(T::END);
}

int ParserState::next(Span* span) {
  if (panic_) {
    panic_ = false;
    const Resume resume = find_resume();
    cursor_ = resumed_ = resume.token;
    const uint32_t at =
        cursor_ < tokens_.all().size() ? tokens_.all()[cursor_].span.begin : source_.whole().end;
    *span = {at, at};
    if (resume.sync == T::SYNC_TOP) in_block_ = false;
    return resume.sync;
  }
  if (cursor_ >= tokens_.all().size()) {
    const uint32_t end = tokens_.all().empty() ? 0 : tokens_.all().back().span.end;
    *span = {end, end};
    follow(T::END);
    return T::END;
  }
  const Token& token = tokens_.all()[cursor_++];
  *span = token.span;
  follow(token.kind);
  if (token.kind == T::DECIMAL && !(statement_ == T::CONFIG && in_block_)) {
    diagnostics_.error(source_, token.span, "ucl.number",
                       cat("`", source_.text(token.span), "` is no number here: sizes are whole"));
    return T::BAD;
  }
  if (token.kind == T::LEFT_BRACE) block_begin_ = token.span;
  return token.kind;
}

// Which statement the parser is in, and whether in its block: all that recovery must know.
void ParserState::follow(int kind) {
  open_block_.reset();
  if (begins_statement(kind) || kind == T::END) {
    if (in_block_) open_block_ = block_begin_;
    statement_ = kind;
    in_block_ = false;
  } else if (kind == T::LEFT_BRACE) {
    in_block_ = has_block(statement_);
  } else if (kind == T::RIGHT_BRACE) {
    in_block_ = false;
    statement_ = 0;
  }
}

// Does a line that begins with this token begin an item of the block?
bool ParserState::begins_item(size_t token) const {
  if (!tokens_.all()[token].first_on_line) return false;
  if (token > 0 && leaves_open(tokens_.all()[token - 1].kind)) return false;
  const int kind = tokens_.all()[token].kind;
  if (statement_ == T::CONVERT)
    return kind == T::FROM || kind == T::TO || kind == T::DROP || kind == T::DTYPE || kind == T::STATES;
  if (statement_ == T::CONFIG)
    return kind == T::NAME || kind == T::STRING || kind == T::NOT || kind == T::OPTIONAL || kind == T::DROP;
  if (kind == T::STRING || kind == T::OPTIONAL || kind == T::WHERE || kind == T::USE) return true;
  if (statement_ == T::LAYOUT) return kind == T::INDEX;
  return kind == T::DROP || (kind == T::NAME && kind_at(token + 1) == T::COLON);
}

ParserState::Resume ParserState::resume_in_block(size_t from) const {
  for (size_t i = from; i < tokens_.all().size(); ++i) {
    const int kind = kind_at(i);
    if (begins_statement(kind)) return {T::SYNC_TOP, i};
    if (kind == T::RIGHT_BRACE || begins_item(i)) return {T::SYNC_ITEM, i};
  }
  return {T::SYNC_TOP, tokens_.all().size()};
}

ParserState::Resume ParserState::resume_in_head(size_t from) const {
  for (size_t i = from; i < tokens_.all().size(); ++i) {
    if (begins_statement(kind_at(i))) return {T::SYNC_TOP, i};
    if (kind_at(i) == T::LEFT_BRACE) return {T::SYNC_BLOCK, i};
  }
  return {T::SYNC_TOP, tokens_.all().size()};
}

ParserState::Resume ParserState::resume_at_top(size_t from) const {
  int depth = 0;
  for (size_t i = from; i < tokens_.all().size(); ++i) {
    const Token& token = tokens_.all()[i];
    if (begins_statement(token.kind)) return {T::SYNC_TOP, i};
    if (token.kind == T::WHERE && token.first_on_line && depth <= 0) return {T::SYNC_TOP, i};
    depth += (token.kind == T::LEFT_BRACE) - (token.kind == T::RIGHT_BRACE);
  }
  return {T::SYNC_TOP, tokens_.all().size()};
}

ParserState::Resume ParserState::find_resume() const {
  const size_t end = tokens_.all().size();
  if (syntax_errors_ >= kMaxSyntaxErrors) return {T::SYNC_TOP, end};
  size_t from = cursor_ > 0 ? cursor_ - 1 : 0;  // the token that did not fit
  if (from == resumed_ && from < end) ++from;
  if (in_block_) return resume_in_block(from);
  return has_block(statement_) ? resume_in_head(from) : resume_at_top(from);
}

// ---- leaves
// --------------------------------------------------------------------------------------------------

Name ParserState::name_behind(Span keyword) const {
  const auto& all = tokens_.all();
  const auto token = std::lower_bound(all.begin(), all.end(), keyword.end,
                                      [](const Token& t, uint32_t at) { return t.span.begin < at; });
  if (token == all.end() || token->kind != T::NAME) return {};
  return name(token->span);
}

int64_t ParserState::number(Span span) const {
  const std::string_view digits = source_.text(span);
  int64_t value = 0;  // the scanner let only numbers through that fit
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

double ParserState::decimal(Span span) const {
  const std::string_view digits = source_.text(span);
  double value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

// ---- expressions
// ---------------------------------------------------------------------------------------------

Expr ParserState::name_expr(Span span) const {
  return {Expr::Kind::kName, 0, std::string(source_.text(span)), {}, span};
}

Expr ParserState::number_expr(Span span) const { return {Expr::Kind::kNumber, number(span), {}, {}, span}; }

Expr ParserState::min_expr(Expr left, Expr right, Span span) const {
  Expr out{Expr::Kind::kMin, 0, {}, {}, span};
  out.operands.push_back({std::move(left), false});
  out.operands.push_back({std::move(right), false});
  return out;
}

Expr ParserState::chain(Expr::Kind kind, Expr left, Expr right, bool inverted, Span span) const {
  if (left.kind != kind) {
    Expr first = std::move(left);
    left = Expr{kind, 0, {}, {}, {}};
    left.operands.push_back({std::move(first), false});
  }
  left.operands.push_back({std::move(right), inverted});
  left.span = span;
  return left;
}

// ---- shapes
// --------------------------------------------------------------------------------------------------

void ParserState::add_dim(Shape& shape, Dim dim) {
  if (shape.ellipsis == Ellipsis::kLast) {
    diagnostics_
        .error(source_, shape.ellipsis_span, "ucl.ellipsis",
               "`...` stands between dims: it may be first or last")
        .note(source_, dim.span, "this dim follows it");
    shape.ellipsis = Ellipsis::kFirst;  // one message is enough
  }
  shape.dims.push_back(std::move(dim));
}

void ParserState::add_ellipsis(Shape& shape, Span span) {
  if (shape.ellipsis != Ellipsis::kNone) {
    diagnostics_.error(source_, span, "ucl.ellipsis", "`...` stands twice in one shape")
        .note(source_, shape.ellipsis_span, "the first one");
    return;
  }
  shape.ellipsis = shape.dims.empty() ? Ellipsis::kFirst : Ellipsis::kLast;
  shape.ellipsis_span = span;
}

// ---- rules
// ---------------------------------------------------------------------------------------------------

Body ParserState::plain_body(Body::Kind kind, Span span) const {
  Body body;
  body.kind = kind;
  body.span = span;
  return body;
}

Body ParserState::shape_body(Shape shape, std::optional<Value> value, std::optional<Name> partial,
                             Span span) const {
  Body body = plain_body(Body::Kind::kShape, span);
  body.shape = std::move(shape);
  body.value = std::move(value);
  body.partial = std::move(partial);
  return body;
}

Body ParserState::replicate_body(std::optional<Value> value, Span span) const {
  Body body = plain_body(Body::Kind::kReplicate, span);
  body.value = std::move(value);
  return body;
}

Body ParserState::partial_body(Name axis, Span span) const {
  Body body = plain_body(Body::Kind::kPartial, span);
  body.partial = std::move(axis);
  return body;
}

Body ParserState::tied_body(Span name, Span span) {
  Body body = plain_body(Body::Kind::kTied, span);
  body.tied = pattern(name);
  return body;
}

void ParserState::set_dtype(Rule& rule, Span span) {
  if (rule.dtype) {
    diagnostics_.error(source_, span, "ucl.modifier_twice", "the rule has two dtypes")
        .note(source_, rule.dtype->span, "the first one");
    return;
  }
  rule.dtype = name(span);
}

void ParserState::set_states(Rule& rule, std::vector<Name> states, Span keyword) {
  if (!rule.states.empty()) {
    diagnostics_.error(source_, keyword, "ucl.modifier_twice", "the rule has two lists of states")
        .note(source_, rule.states.front().span, "the first one");
    return;
  }
  rule.states = std::move(states);
}

void ParserState::add_conditions(std::vector<Condition>& to, std::vector<Condition> more) const {
  for (Condition& c : more) to.push_back(std::move(c));
}

Rule ParserState::rule(bool optional, Rule rule, Span modified, Span all) const {
  rule.optional = optional;
  rule.span = optional ? all : modified;
  return rule;
}

MapRule ParserState::map_rule(bool optional, Side left, Side right, std::vector<Condition> when,
                              Span span) const {
  if (!optional) span.begin = left.span.begin;
  return {optional, std::move(left), std::move(right), std::move(when), span, {}};
}

ConfigRule ParserState::config_rule(bool optional, ConfigSide left, ConfigSide right,
                                    std::vector<Condition> when, Span span) const {
  if (!optional) span.begin = left.span.begin;
  return {optional, std::move(left), std::move(right), std::move(when), span, {}};
}

Constant ParserState::size_constant(Expr expr, Span span) const {
  if (expr.kind == Expr::Kind::kNumber) return {expr.number, span};
  return {std::move(expr), span};
}

}  // namespace uckpt::ucl
