// The wording of syntax errors: what was expected, what was found, and what was probably meant.
#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/parser_state.h"
#include "ucl_parser.hh"

namespace uckpt::ucl {

namespace {

using T = Grammar::token;
using Kinds = std::vector<int>;

// Kinds that people think of as one thing. Earlier rows are tried first.
struct Phrase {
  Kinds kinds;
  std::string text;
  std::string among_others = text;  // where more than these are expected
};

const std::vector<Phrase>& phrases() {
  static const std::vector<Phrase> all = {
      {{T::UCL, T::IMPORT, T::GIVEN, T::WHERE, T::LAYOUT, T::MAP, T::CONFIG, T::CONVERT, T::END},
       "a statement (`given`, `where`, `import`, `layout`, `map`, `config` or `convert`)",
       "the end of the statement"},
      {{T::STRING, T::OPTIONAL, T::INDEX, T::WHERE, T::USE, T::RIGHT_BRACE},
       "a rule, `index`, `where`, `use` or `}`",
       "the end of the rule"},
      {{T::STRING, T::OPTIONAL, T::DROP, T::NAME, T::WHERE, T::USE, T::RIGHT_BRACE},
       "a rule, `where`, `use` or `}`",
       "the end of the rule"},
      {{T::NAME, T::STRING, T::NOT, T::OPTIONAL, T::DROP, T::RIGHT_BRACE},
       "a setting, `optional`, `drop` or `}`",
       "the end of the rule"},
      {{T::FROM, T::TO, T::DROP, T::DTYPE, T::STATES, T::RIGHT_BRACE},
       "`from`, `to`, `drop`, `dtype`, `states` or `}`",
       "the end of this choice"},
      {{T::LEFT_BRACKET, T::REPLICATE, T::PARTIAL, T::UNIQUE, T::OPAQUE, T::DROP, T::TIED, T::QUERY},
       "a body (a shape in `[ ]`, `replicate`, `partial`, `unique`, `opaque`, `drop` or `tied to`)"},
      {{T::ON, T::DTYPE, T::STATES, T::WHEN}, "a modifier (`on`, `dtype`, `states`, `when`)"},
      {{T::LESS, T::LESS_EQUAL, T::GREATER, T::GREATER_EQUAL, T::EQUAL, T::NOT_EQUAL}, "a comparison"},
      {{T::PLUS, T::MINUS, T::STAR, T::SLASH}, "an operator"},
      {{T::NAME, T::NUMBER, T::LEFT_PAREN, T::MIN, T::TRUE, T::FALSE, T::DECIMAL, T::STRING, T::MINUS,
        T::LEFT_BRACKET},
       "a value"},
      {{T::NAME, T::STRING, T::NOT, T::DROP, T::OFF}, "a key, `off` or `drop`"},
      {{T::NAME, T::NUMBER, T::LEFT_PAREN, T::MIN, T::NOT}, "a condition"},
      {{T::NAME, T::NUMBER, T::LEFT_PAREN, T::MIN}, "a size"},
      {{T::NAME, T::NUMBER, T::LEFT_PAREN}, "a factor"},
      {{T::NAME, T::STRING, T::NOT}, "a key"},
      {{T::FIRST, T::LAST, T::NUMBER}, "`first`, `last` or a number"},
  };
  return all;
}

bool is_word(std::string_view text) { return !text.empty() && text[0] >= 'a' && text[0] <= 'z'; }

// `a name`, `a number`, `a string`, `the end of the file`: kinds that have no text of their own.
bool has_own_text(int kind) {
  return kind != T::NAME && kind != T::NUMBER && kind != T::DECIMAL && kind != T::STRING && kind != T::END &&
         kind != T::BAD;
}

bool is_reserved(int kind) { return has_own_text(kind) && is_word(token_text(kind)); }

std::string shown(int kind) {
  return has_own_text(kind) ? cat("`", token_text(kind), "`") : token_text(kind);
}

std::string list_text(const std::vector<std::string>& words) {
  std::string out;
  for (size_t i = 0; i < words.size(); ++i)
    out += cat(i == 0 ? "" : i + 1 == words.size() ? " or " : ", ", words[i]);
  return out;
}

bool has(const Kinds& kinds, int kind) { return std::find(kinds.begin(), kinds.end(), kind) != kinds.end(); }

std::string expected_text(Kinds left) {
  std::vector<std::string> words, last;
  for (const Phrase& p : phrases()) {
    if (!std::all_of(p.kinds.begin(), p.kinds.end(), [&](int k) { return has(left, k); })) continue;
    const bool alone = left.size() == p.kinds.size();
    const bool ends = !alone && p.among_others != p.text;  // the way out is told last
    (ends ? last : words).push_back(alone ? p.text : p.among_others);
    std::erase_if(left, [&](int k) { return has(p.kinds, k); });
  }
  for (int kind : left) words.push_back(shown(kind));
  words.insert(words.end(), last.begin(), last.end());
  return list_text(words);
}

std::string found_text(int kind, std::string_view text) {
  if (kind == T::NAME) return cat("the name `", escape(text, 60), "`");
  if (kind == T::NUMBER || kind == T::DECIMAL) return cat("the number ", text);
  if (kind == T::STRING) return cat("the string `", escape(text, 60), "`");
  return shown(kind);
}

// What was probably meant, where that is all but certain; else nothing.
std::string hint_for(int found, std::string_view text, const Kinds& expected) {
  if (found == T::ASSIGN && has(expected, T::EQUAL)) return "equality is written `==`";
  if (found == T::COMMA && has(expected, T::BAR)) return "blocks are parted by `|`";
  if (found == T::PAD) return "`pad(N)` stands right behind its axis, before `@`";
  if (found == T::STRING && expected == Kinds{T::NAME}) return "this name is written without quotes";
  if (is_reserved(found) && has(expected, T::NAME)) return cat("`", text, "` is a reserved word");
  if (found != T::NAME) return {};
  std::vector<std::string> words;
  for (int kind : expected)
    if (is_reserved(kind)) words.push_back(token_text(kind));
  if (const auto near = nearest(text, words)) return cat("did you mean `", *near, "`?");
  if (has(expected, T::STRING) && !has(expected, T::NAME))
    return "names of parameters stand in double quotes";
  return {};
}

// Could a statement or an item begin here? Then what stands before it is whole.
bool may_begin_anew(const Kinds& expected) {
  return has(expected, T::LAYOUT) || has(expected, T::OPTIONAL) || has(expected, T::STATES);
}

}  // namespace

void ParserState::syntax_error(int found, const std::vector<int>& expected, Span span) {
  panic_ = true;
  program_.complete = false;
  ++syntax_errors_;
  if (found == T::BAD) return;  // the scanner has told
  if (syntax_errors_ > 1 && span == last_error_) return;
  last_error_ = span;
  if (open_block_ && has(expected, T::RIGHT_BRACE)) return not_closed(found, span);
  const std::string_view text = source_.text(span);
  Diagnostic& d =
      diagnostics_.error(source_, span, "ucl.syntax",
                         cat("expected ", expected_text(expected), ", found ", found_text(found, text)));
  const Token* before = last_of_line_above();
  if (before && !may_begin_anew(expected)) {
    d.note(source_, before->span, "expected behind this");
  } else {
    d.hint(hint_for(found, text, expected));
  }
}

// The token before the one that did not fit, if that begins a new line.
const Token* ParserState::last_of_line_above() const {
  const auto& all = tokens_.all();
  if (cursor_ < 2 || cursor_ > all.size() || !all[cursor_ - 1].first_on_line) return nullptr;
  const Token& before = all[cursor_ - 2];
  return before.kind == T::LEFT_BRACE || before.kind == T::RIGHT_BRACE ? nullptr : &before;
}

// The text ends, or the next statement begins, where the block could have ended.
void ParserState::not_closed(int found, Span span) {
  diagnostics_
      .error(source_, span, "ucl.syntax", cat("expected `}`, found ", found_text(found, source_.text(span))))
      .note(source_, *open_block_, "the block that begins here is not closed");
}

void ParserState::fail(Span span, const std::string& message) {
  panic_ = true;
  program_.complete = false;
  diagnostics_.error(source_, span, "ucl.syntax", message);
}

}  // namespace uckpt::ucl
