#include "lib/ucl/tokens.h"

#include <charconv>

#include "lib/base/text.h"
#include "ucl_parser.hh"

namespace uckpt::ucl {

namespace {

using T = Grammar::token;

constexpr uint32_t kMaxNesting = 200;

// Where the first byte stands that is not UTF-8, or the size of the text.
size_t first_broken(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t size = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (size > 1 && !valid_utf8(text.substr(i, size))) return i;
    i += size;
  }
  return text.size();
}

// What some editors put before UTF-8 text.
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

}  // namespace

Tokens::Tokens(const Source& source, Diagnostics& diagnostics) : source_(source), diagnostics_(diagnostics) {
  if (text_is_good()) {
    scan();
  } else {
    cut_short_ = true;
  }
}

bool Tokens::text_is_good() {
  const std::string_view text = source_.text();
  if (text.size() > kMaxSourceBytes) {
    diagnostics_.error(source_, {0, 0}, "ucl.limit_size",
                       cat("the file has ", human_count(text.size()), " bytes, more than the ",
                           human_count(kMaxSourceBytes), " that a program may have"));
    return false;
  }
  if (valid_utf8(text)) return true;
  const auto at = static_cast<uint32_t>(first_broken(text));
  diagnostics_.error(source_, {at, at + 1}, "ucl.utf8", cat("byte ", at, " of the file is not UTF-8"));
  return false;
}

void Tokens::advance(uint32_t size) { here_ = {here_.end, here_.end + size}; }

void Tokens::comment() {
  Span span = here_;
  while (source_.text()[span.end - 1] == '\r' || source_.text()[span.end - 1] == ' ') --span.end;
  comments_.push_back({span, line_is_empty_, static_cast<uint32_t>(tokens_.size())});
}

int Tokens::number(int kind, int bad_kind) {
  int64_t value = 0;
  const std::string_view digits = source_.text(here_);
  if (std::from_chars(digits.data(), digits.data() + digits.size(), value).ec == std::errc{}) return kind;
  return bad(bad_kind, "ucl.number", "is more than a 64-bit number holds", "");
}

int Tokens::decimal(int kind, int bad_kind) {
  double value = 0;
  const std::string_view digits = source_.text(here_);
  if (std::from_chars(digits.data(), digits.data() + digits.size(), value).ec == std::errc{}) return kind;
  return bad(bad_kind, "ucl.number", "is more than a 64-bit number holds", "");
}

int Tokens::bad(int kind, std::string code, std::string_view what, std::string hint) {
  if (here_.begin == 0 && source_.text(here_) == kByteOrderMark)
    hint = "this is a byte-order mark: save the file as plain UTF-8, without one";
  report(here_, std::move(code), cat("`", escape(source_.text(here_), 60), "` ", what), std::move(hint));
  return kind;
}

int Tokens::bad_string(int kind, bool is_open) {
  if (is_open) {
    report(here_, "ucl.string", "the string is not closed on its line", "");
    return kind;
  }
  uint32_t at = here_.begin;
  while (at < here_.end && !is_control(source_.text()[at])) ++at;
  report({at, at + 1}, "ucl.string", "a control character stands in a string", "");
  return kind;
}

void Tokens::report(Span span, std::string code, std::string message, std::string hint) {
  const Span line = source_.line_at(here_.begin);
  if (line == bad_line_) return;
  bad_line_ = line;
  diagnostics_.error(source_, span, std::move(code), std::move(message)).hint(std::move(hint));
}

bool Tokens::push(int kind) {
  tokens_.push_back({kind, here_, line_is_empty_});
  line_is_empty_ = false;
  return count_nesting(kind);
}

bool Tokens::count_nesting(int kind) {
  if (kind == T::LEFT_PAREN || kind == T::LEFT_BRACKET || kind == T::LEFT_BRACE) ++depth_;
  if ((kind == T::RIGHT_PAREN || kind == T::RIGHT_BRACKET || kind == T::RIGHT_BRACE) && depth_ > 0) --depth_;
  if (depth_ <= kMaxNesting) return true;
  diagnostics_.error(source_, here_, "ucl.limit_depth",
                     cat("brackets are nested more than ", kMaxNesting, " deep here"));
  cut_short_ = true;
  return false;
}

}  // namespace uckpt::ucl
