// Reading a name pattern from the text between its quotes.
#include "lib/ucl/name_pattern.h"

#include <algorithm>
#include <charconv>

#include "lib/base/text.h"
#include "lib/ucl/diagnostics.h"

namespace uckpt::ucl {

namespace {

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class PatternReader {
 public:
  PatternReader(const Source& source, Span span, Diagnostics& diagnostics)
      : source_(source), diagnostics_(diagnostics), at_(span.begin + 1), end_(span.end - 1) {
    pattern_.span = span;
    pattern_.text = source.text({at_, end_});
    pattern_.valid = true;
  }

  NamePattern read() {
    if (at_ == end_) fail(pattern_.span, "ucl.pattern_empty", "the name is empty");
    if (pattern_.text.size() > kMaxBytes ||
        std::count(pattern_.text.begin(), pattern_.text.end(), '.') >= kMaxSegments) {
      fail(pattern_.span, "ucl.limit_name",
           cat("the name is longer than ", human_count(kMaxBytes), " bytes or ", kMaxSegments, " segments"));
      return std::move(pattern_);
    }
    while (true) {
      read_segment();
      if (at_ == end_) break;
      ++at_;  // the dot
    }
    check_repeated_captures();
    return std::move(pattern_);
  }

 private:
  Diagnostic& fail(Span span, std::string code, std::string message) {
    pattern_.valid = false;
    return diagnostics_.error(source_, span, std::move(code), std::move(message));
  }
  char peek() const { return at_ < end_ ? source_.text()[at_] : '\0'; }

  void read_segment() {
    Segment segment;
    segment.span = {at_, at_};
    segment.pieces.emplace_back();
    uint32_t stars = 0;
    Span star;
    while (at_ < end_ && peek() != '.') {
      const uint32_t start = at_;
      const char c = peek();
      if (c == '*') {
        ++at_;
        ++stars;
        star = {start, at_};
        segment.pieces.emplace_back();
      } else if (c == '{') {
        read_capture(segment);
      } else if (c == '}') {
        fail({at_, at_ + 1}, "ucl.pattern_brace", "`}` without `{`")
            .hint("a brace in a name is written `\\}`");
        ++at_;
      } else {
        segment.pieces.back() += read_character();
      }
    }
    segment.span.end = at_;
    settle(segment, stars, star);
    if (segment.kind == Segment::Kind::kRest) note_rest(segment.span);
    pattern_.segments.push_back(std::move(segment));
  }

  // What kind of segment it is, now that it is known what stands in it.
  void settle(Segment& segment, uint32_t stars, Span star) {
    const std::string_view text = source_.text(segment.span);
    const bool rest_capture = segment.capture && segment.capture->kind == Capture::Kind::kRest;
    if (segment.capture && stars > 0) {
      fail(star, "ucl.pattern_mixed", "`*` beside a capture in one segment of the name")
          .note(source_, segment.capture->span, "the segment captures here")
          .hint("capture the whole text, as `{x:*}`, or part the segment");
    }
    if (rest_capture || text.find("**") != std::string_view::npos) {
      const bool alone = rest_capture ? segment.span == segment.capture->span : text == "**";
      if (!alone && !(segment.capture && stars > 0) && stars_together(text))
        fail(segment.span, "ucl.pattern_rest", "`**` takes whole segments: it stands alone between dots");
      segment.kind = Segment::Kind::kRest;
    } else if (segment.capture) {
      segment.kind = Segment::Kind::kCapture;
      segment.pieces.resize(2);
    } else {
      segment.kind = stars > 0 ? Segment::Kind::kGlob : Segment::Kind::kLiteral;
    }
  }

  // Two stars side by side that no backslash escapes, in a capture or out of it.
  static bool stars_together(std::string_view text) {
    for (size_t i = 0; i + 1 < text.size(); ++i) {
      if (text[i] == '\\') {
        ++i;
      } else if (text[i] == '*' && text[i + 1] == '*') {
        return true;
      }
    }
    return false;
  }

  void note_rest(Span span) {
    const int here = static_cast<int>(pattern_.segments.size());
    if (pattern_.rest >= 0) {
      fail(span, "ucl.pattern_rest", "`**` stands twice in one name, which could then match in two ways")
          .note(source_, pattern_.segments[static_cast<size_t>(pattern_.rest)].span, "the first one");
    } else {
      pattern_.rest = here;
    }
  }

  // One character of literal text, without its escape.
  std::string read_character() {
    if (peek() != '\\') return std::string(1, source_.text()[at_++]);
    const char escaped = at_ + 1 < end_ ? source_.text()[at_ + 1] : '\0';
    const Span span{at_, std::min(at_ + 2, end_)};
    at_ = span.end;
    if (escaped != '\0' && std::string_view("*{}\"\\").find(escaped) != std::string_view::npos)
      return std::string(1, escaped);
    fail(span, "ucl.escape", cat("`", escape(source_.text(span)), "` is no escape"))
        .hint("a backslash stands only before `*`, `{`, `}`, `\"` and `\\`");
    return {};
  }

  void read_capture(Segment& segment) {
    const uint32_t start = at_;
    const std::optional<uint32_t> close = closing_brace();
    if (!close) {
      fail({start, start + 1}, "ucl.pattern_brace", "`{` without `}`")
          .hint("a brace in a name is written `\\{`");
      at_ = end_;
      return;
    }
    Capture capture;
    capture.span = {start, *close + 1};
    at_ = start + 1;
    const bool good = read_capture_body(capture, *close);
    at_ = *close + 1;
    if (!good) return;
    if (segment.capture) {
      fail(capture.span, "ucl.pattern_two_captures", "a segment of a name holds at most one capture")
          .note(source_, segment.capture->span, "the first one");
      return;
    }
    segment.capture = std::move(capture);
    segment.pieces.emplace_back();
  }

  // The `}` that ends the capture at `at_`, or nothing.
  std::optional<uint32_t> closing_brace() const {
    for (uint32_t i = at_ + 1; i < end_; ++i) {
      if (source_.text()[i] == '\\') {
        ++i;
      } else if (source_.text()[i] == '}') {
        return i;
      } else if (source_.text()[i] == '{') {
        return std::nullopt;
      }
    }
    return std::nullopt;
  }

  bool read_capture_body(Capture& capture, uint32_t close) {
    const uint32_t name = at_;
    while (at_ < close && is_word(peek())) ++at_;
    capture.name = {std::string(source_.text({name, at_})), {name, at_}};
    const std::string_view rest = source_.text({at_, close});
    if (capture.name.empty() || is_digit(capture.name.text[0])) return malformed(capture);
    if (rest.empty()) {
      capture.bare = true;
      return true;
    }
    if (rest[0] == '+') return read_offset(capture, rest.substr(1));
    if (rest[0] != ':') return malformed(capture);
    if (rest == ":*" || rest == ":**") {
      capture.kind = rest == ":*" ? Capture::Kind::kText : Capture::Kind::kRest;
      return true;
    }
    ++at_;
    return read_choices(capture, close);
  }

  bool malformed(const Capture& capture) {
    fail(capture.span, "ucl.pattern_capture",
         cat("`", escape(source_.text(capture.span), 60), "` is no capture"))
        .hint("captures are `{i}`, `{i+3}`, `{x:*}`, `{x:**}` and `{p:weight|bias}`");
    return false;
  }

  bool read_offset(Capture& capture, std::string_view digits) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), capture.offset);
    const bool whole = end == digits.data() + digits.size() && !digits.empty() && is_digit(digits[0]);
    if (error != std::errc{} || !whole || capture.offset > kMaxOffset) return malformed(capture);
    return true;
  }

  bool read_choices(Capture& capture, uint32_t close) {
    capture.kind = Capture::Kind::kChoice;
    capture.choices.emplace_back();
    while (at_ < close) {
      if (peek() == '|') {
        capture.choices.emplace_back();
        ++at_;
      } else if (peek() == '.' || peek() == '*') {
        return malformed(capture);
      } else {
        capture.choices.back() += read_character();
      }
    }
    auto sorted = capture.choices;
    std::sort(sorted.begin(), sorted.end());
    if (sorted.front().empty()) return malformed(capture);
    if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
      fail(capture.span, "ucl.pattern_capture",
           cat("`", escape(*twice, 60), "` stands twice among the choices of `", capture.name.text, "`"));
      return false;
    }
    return true;
  }

  void check_repeated_captures() {
    const auto all = pattern_.captures();
    for (size_t i = 0; i < all.size(); ++i) {
      const auto first =
          std::find_if(all.begin(), all.end(), [&](const Capture* c) { return c->name == all[i]->name; });
      if (*first == all[i] || (*first)->same_kind(*all[i])) continue;
      fail(all[i]->span, "ucl.capture_differs",
           cat("the capture `", all[i]->name.text, "` is used twice in the name, differently"))
          .note(source_, (*first)->span, "first used here");
    }
  }

  static constexpr int64_t kMaxOffset = 1'000'000'000;
  static constexpr size_t kMaxBytes = 2000;
  static constexpr int kMaxSegments = 100;

  const Source& source_;
  Diagnostics& diagnostics_;
  NamePattern pattern_;
  uint32_t at_, end_;
};

}  // namespace

std::vector<const Capture*> NamePattern::captures() const {
  std::vector<const Capture*> out;
  for (const Segment& s : segments)
    if (s.capture) out.push_back(&*s.capture);
  return out;
}

const Capture* NamePattern::find(std::string_view name) const {
  for (const Segment& s : segments)
    if (s.capture && s.capture->name.text == name) return &*s.capture;
  return nullptr;
}

bool NamePattern::has_wildcard() const {
  return std::any_of(segments.begin(), segments.end(), [](const Segment& s) {
    return s.kind == Segment::Kind::kGlob || (s.kind == Segment::Kind::kRest && !s.capture);
  });
}

bool NamePattern::is_literal() const {
  return valid && std::all_of(segments.begin(), segments.end(),
                              [](const Segment& s) { return s.kind == Segment::Kind::kLiteral; });
}

NamePattern parse_name_pattern(const Source& source, Span span, Diagnostics& diagnostics) {
  return PatternReader(source, span, diagnostics).read();
}

std::string parse_plain_string(const Source& source, Span span, Diagnostics& diagnostics) {
  const std::string_view text = source.text({span.begin + 1, span.end - 1});
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const uint32_t at = span.begin + 1 + static_cast<uint32_t>(i++);
    if (i < text.size() && (text[i] == '"' || text[i] == '\\')) {
      out += text[i];
    } else {
      const Span bad{at, std::min(at + 2, span.end - 1)};
      diagnostics.error(source, bad, "ucl.escape", cat("`", escape(source.text(bad)), "` is no escape"))
          .hint("in this string a backslash stands only before `\"` and `\\`");
    }
  }
  return out;
}

}  // namespace uckpt::ucl
