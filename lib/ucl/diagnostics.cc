#include "lib/ucl/diagnostics.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "lib/base/text.h"

namespace uckpt::ucl {

namespace {

constexpr size_t kMaxKept = 200;         // of a hostile program's messages; the rest are only counted
constexpr size_t kMaxCandidates = 1000;  // compared with a name
constexpr size_t kShortestMistyped = 3;  // any short name is near any other

std::string_view word(Severity severity) { return severity == Severity::kError ? "error" : "warning"; }

std::string place_text(const Source& source, Span span) {
  const Position at = source.position(span.begin);
  return cat(escape(source.name()), ":", at.line, ":", at.column);
}

std::string plural(size_t count, std::string_view noun) {
  return cat(human_count(count), " ", noun, count == 1 ? "" : "s");
}

std::string text_of(const Diagnostic& d) {
  std::string out =
      cat(place_text(d.source, d.span), ": ", word(d.severity), ": ", d.message, " [", d.code, "]\n");
  out += excerpt(d.source, d.span);
  for (const Note& n : d.notes)
    out += cat(place_text(n.source, n.span), ": note: ", n.text, "\n", excerpt(n.source, n.span));
  if (!d.hint_text.empty()) out += cat("  hint: ", d.hint_text, "\n");
  return out;
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += cat("\\u", hex(static_cast<unsigned char>(c), 4));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// A file name may hold anything: broken UTF-8, which JSON cannot hold, or what would move a cursor.
std::string json_name(const Source& source) {
  return json_string(escape(source.name(), std::numeric_limits<size_t>::max()));
}

std::string json_place(const Source& source, Span span) {
  const Position from = source.position(span.begin), to = source.position(span.end);
  return cat("\"file\":", json_name(source), ",\"line\":", from.line, ",\"column\":", from.column,
             ",\"end_line\":", to.line, ",\"end_column\":", to.column, ",\"begin\":", span.begin,
             ",\"end\":", span.end);
}

std::string json_of(const Diagnostic& d) {
  std::string out =
      cat("{\"severity\":\"", word(d.severity), "\",\"code\":", json_string(d.code), ",",
          json_place(d.source, d.span), ",\"message\":", json_string(d.message), ",\"notes\":[");
  for (size_t i = 0; i < d.notes.size(); ++i) {
    const Note& n = d.notes[i];
    out +=
        cat(i > 0 ? "," : "", "{", json_place(n.source, n.span), ",\"message\":", json_string(n.text), "}");
  }
  out += "]";
  if (!d.hint_text.empty()) out += cat(",\"hint\":", json_string(d.hint_text));
  return out + "}";
}

}  // namespace

Diagnostic& Diagnostic::note(const Source& where, Span place, std::string text) {
  notes.push_back({where, place, std::move(text)});
  return *this;
}

Diagnostic& Diagnostic::hint(std::string text) {
  hint_text = std::move(text);
  return *this;
}

void Diagnostic::suggest_from(std::string_view name, std::span<const std::string> candidates) {
  if (name.size() < kShortestMistyped) return;
  const auto some = candidates.first(std::min(candidates.size(), kMaxCandidates));
  if (const auto near = nearest(name, some)) hint(cat("did you mean `", *near, "`?"));
}

Diagnostic& Diagnostics::error(const Source& source, Span span, std::string code, std::string message) {
  ++errors_;
  return add(Severity::kError, source, span, std::move(code), std::move(message));
}

Diagnostic& Diagnostics::warning(const Source& source, Span span, std::string code, std::string message) {
  ++warnings_;
  return add(Severity::kWarning, source, span, std::move(code), std::move(message));
}

void Diagnostics::know(const Source& source) {
  if (std::find(sources_.begin(), sources_.end(), source) == sources_.end()) sources_.push_back(source);
}

Diagnostic& Diagnostics::add(Severity severity, const Source& source, Span span, std::string code,
                             std::string message) {
  know(source);
  const bool kept = all_.size() < kMaxKept;
  Diagnostic& made = kept ? all_.emplace_back() : overflow_ = Diagnostic();
  made.severity = severity;
  made.code = std::move(code);
  made.source = source;
  made.span = span;
  made.message = std::move(message);
  made.kept = kept;
  return made;
}

bool Diagnostics::says(std::string_view code) const {
  return std::ranges::any_of(all_, [&](const Diagnostic& d) { return d.code == code; });
}

std::vector<Diagnostic> Diagnostics::sorted() const {
  std::vector<Diagnostic> out = all_;
  const auto key = [this](const Diagnostic& d) {
    const auto file = std::find(sources_.begin(), sources_.end(), d.source) - sources_.begin();
    return std::tuple(file, d.span.begin, d.span.end);
  };
  std::stable_sort(out.begin(), out.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  return out;
}

std::string Diagnostics::text(size_t limit) const {
  const std::vector<Diagnostic> all = sorted();
  const size_t shown = std::min(limit, all.size()), total = errors_ + warnings_;
  std::string out;
  for (size_t i = 0; i < shown; ++i) out += text_of(all[i]);
  if (shown < total) out += cat("… and ", human_count(total - shown), " more\n");
  if (errors_ > 0) out += plural(errors_, "error");
  if (warnings_ > 0) out += cat(errors_ > 0 ? ", " : "", plural(warnings_, "warning"));
  return out.empty() ? out : out + "\n";
}

std::string Diagnostics::json() const {
  std::string out = "{\"uckpt\":1,\"diagnostics\":[";
  const std::vector<Diagnostic> all = sorted();
  for (size_t i = 0; i < all.size(); ++i) out += cat(i > 0 ? "," : "", json_of(all[i]));
  return out + cat("],\"errors\":", errors_, ",\"warnings\":", warnings_, "}");
}

}  // namespace uckpt::ucl
