// The collector of messages about a program: all of them at once, each with its place.
//
// Passes add as they find; nothing is printed before the end. A message is one sentence in lower case
// without a full stop, names in backticks; codes are stable dotted words for scripts.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/ucl/source.h"

namespace uckpt::ucl {

enum class Severity : uint8_t { kError, kWarning };

// A second place, and why it matters.
struct Note {
  Source source;
  Span span;
  std::string text;
};

struct Diagnostic {
  Severity severity = Severity::kError;
  std::string code;
  Source source{{}, {}};
  Span span;
  std::string message;
  std::vector<Note> notes;
  std::string hint_text;

  Diagnostic& note(const Source& where, Span place, std::string text);
  Diagnostic& hint(std::string text);
  // "did you mean `X`?" when one of the names that `candidates()` returns is near; nothing otherwise.
  template <class Candidates>
  Diagnostic& suggest(std::string_view name, const Candidates& candidates) {
    if (kept) suggest_from(name, candidates());
    return *this;
  }

  bool kept = true;  // false: there are too many, this one is only counted

 private:
  void suggest_from(std::string_view name, std::span<const std::string> candidates);
};

class Diagnostics {
 public:
  // Puts the source after those known so far: messages come in that order of files.
  void know(const Source& source);

  // The reference is good until the next call.
  Diagnostic& error(const Source& source, Span span, std::string code, std::string message);
  Diagnostic& warning(const Source& source, Span span, std::string code, std::string message);

  size_t errors() const { return errors_; }
  size_t warnings() const { return warnings_; }
  bool has_errors() const { return errors_ > 0; }
  bool empty() const { return errors_ + warnings_ == 0; }

  bool says(std::string_view code) const;  // at least once
  // In the order of files as they were first spoken of, then of places.
  std::vector<Diagnostic> sorted() const;
  // For people: every message with its excerpt, then the counts; at most `limit` messages.
  std::string text(size_t limit = 50) const;
  // For programs: one JSON object. Lines and columns count from 1, `begin` and `end` are bytes.
  std::string json() const;

 private:
  Diagnostic& add(Severity severity, const Source& source, Span span, std::string code, std::string message);

  std::vector<Diagnostic> all_;
  std::vector<Source> sources_;  // as they were first spoken of
  Diagnostic overflow_;          // where the rest goes
  size_t errors_ = 0, warnings_ = 0;
};

}  // namespace uckpt::ucl
