// What the generated parser calls: the token stream, the making of nodes, and the reporting of syntax errors.
//
// Recovery. After a syntax error the stream, not the parser, decides where to go on, because it knows the
// lines: it skips to the next line that begins an item (or to the block's end, the next statement, the end of
// the file) and hands the parser one SYNC token that says which of these it is. Each error thus costs one
// item, and the next error is reported again.
#pragma once

#include <vector>

#include "lib/ucl/diagnostics.h"
#include "lib/ucl/tokens.h"
#include "lib/ucl/tree.h"

namespace uckpt::ucl {

// What people call a token kind: `"<->"`, `a name`.
std::string token_text(int kind);

class ParserState {
 public:
  ParserState(const Source& source, const Tokens& tokens, Diagnostics& diagnostics)
      : source_(source), tokens_(tokens), diagnostics_(diagnostics) {}

  Program take() { return std::move(program_); }

  // The token stream.
  int next(Span* span);
  void syntax_error(int found, const std::vector<int>& expected, Span span);
  void not_closed(int found, Span span);
  const Token* last_of_line_above() const;
  void fail(Span span, const std::string& message);

  // Leaves.
  Name name(Span span) const { return {std::string(source_.text(span)), span}; }
  // The name that follows a keyword whose statement was lost, if one does.
  Name name_behind(Span keyword) const;
  int64_t number(Span span) const;
  double decimal(Span span) const;
  std::string plain(Span span) { return parse_plain_string(source_, span, diagnostics_); }
  NamePattern pattern(Span span) { return parse_name_pattern(source_, span, diagnostics_); }

  // Expressions.
  Expr name_expr(Span span) const;
  Expr number_expr(Span span) const;
  Expr min_expr(Expr left, Expr right, Span span) const;
  // `left + right` and the like; a chain of the same kind grows.
  Expr chain(Expr::Kind kind, Expr left, Expr right, bool inverted, Span span) const;

  // Shapes.
  void add_dim(Shape& shape, Dim dim);
  void add_ellipsis(Shape& shape, Span span);

  // Rules.
  Body shape_body(Shape shape, std::optional<Value> value, std::optional<Name> partial, Span span) const;
  Body replicate_body(std::optional<Value> value, Span span) const;
  Body partial_body(Name axis, Span span) const;
  Body plain_body(Body::Kind kind, Span span) const;
  Body tied_body(Span name, Span span);
  void set_dtype(Rule& rule, Span name);
  void set_states(Rule& rule, std::vector<Name> states, Span keyword);
  void add_conditions(std::vector<Condition>& to, std::vector<Condition> more) const;
  // An absent `optional` is an empty place before the rule, which then begins behind it.
  Rule rule(bool optional, Rule rule, Span modified, Span all) const;
  MapRule map_rule(bool optional, Side left, Side right, std::vector<Condition> when, Span span) const;
  ConfigRule config_rule(bool optional, ConfigSide left, ConfigSide right, std::vector<Condition> when,
                         Span span) const;
  // A lone number is no expression.
  Constant size_constant(Expr expr, Span span) const;

  template <class Node>
  void add(Node node) {
    program_.statements.emplace_back(std::move(node));
  }

 private:
  struct Resume {
    int sync;
    size_t token;
  };
  Resume find_resume() const;
  Resume resume_in_block(size_t from) const;
  Resume resume_in_head(size_t from) const;
  Resume resume_at_top(size_t from) const;
  bool begins_item(size_t token) const;
  int kind_at(size_t token) const;
  void follow(int kind);

  const Source& source_;
  const Tokens& tokens_;
  Diagnostics& diagnostics_;
  Program program_;

  size_t cursor_ = 0;          // of the next token to hand out
  bool panic_ = false;         // the next token is a SYNC
  size_t resumed_ = SIZE_MAX;  // where the last recovery went on: the next must get further
  size_t syntax_errors_ = 0;
  int statement_ = 0;  // the keyword of the statement that the parser is in
  bool in_block_ = false;
  Span block_begin_;                // the `{` of that block
  std::optional<Span> open_block_;  // the block that was open where the text ended or a statement began
  Span last_error_;
};

}  // namespace uckpt::ucl
