// The tokens of one source, all of them before the parser starts, and its comments.
#pragma once

#include <vector>

#include "lib/ucl/diagnostics.h"

namespace uckpt::ucl {

struct Token {
  int kind;  // Grammar::token
  Span span;
  bool first_on_line;
};

// `# …` up to the end of its line, with the `#`.
struct Comment {
  Span span;
  bool first_on_line;
  uint32_t next_token;  // index of the token behind it; the number of tokens if there is none
};

class Tokens {
 public:
  // Reports what is no token, and stops early (`cut_short`) where the text as a whole is refused: too long,
  // not UTF-8, nested too deep.
  Tokens(const Source& source, Diagnostics& diagnostics);

  const std::vector<Token>& all() const { return tokens_; }
  const std::vector<Comment>& comments() const { return comments_; }
  bool cut_short() const { return cut_short_; }

  // For the scanner: what it found at [at, at + size), size being what `advance` was told last.
  void advance(uint32_t size);
  void newline() { line_is_empty_ = true; }
  void comment();
  int number(int kind, int bad);
  int decimal(int kind, int bad);
  int bad(int kind, std::string code, std::string_view what, std::string hint);
  int bad_string(int kind, bool is_open);

 private:
  bool text_is_good();
  void scan();  // ucl.ll
  void report(Span span, std::string code, std::string message, std::string hint);
  bool push(int kind);           // false: stop
  bool count_nesting(int kind);  // false: too deep

  const Source& source_;
  Diagnostics& diagnostics_;
  std::vector<Token> tokens_;
  std::vector<Comment> comments_;
  Span here_;
  uint32_t depth_ = 0;
  bool line_is_empty_ = true;
  bool cut_short_ = false;
  Span bad_line_{1, 0};  // the line with the last bad token: one message a line is enough
};

}  // namespace uckpt::ucl
