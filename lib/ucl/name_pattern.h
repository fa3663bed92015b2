// Patterns over parameter names: `"layers.{i}.mlp.experts.{e+3}.{p:weight|bias}"`, `"**._extra_state"`.
//
// A pattern matches whole names, segment by segment (dots part them). At most one segment is `**`, and a
// segment that captures holds no other wildcard: so a name matches in at most one way, in linear time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/ucl/span.h"

namespace uckpt::ucl {

class Diagnostics;
class Source;

struct Capture {
  enum class Kind : uint8_t {
    kNumber,  // `{i}`, `{i+3}`: a decimal number without leading zeros, less `offset`
    kText,    // `{x:*}`: any text within the segment, or none
    kChoice,  // `{p:weight|bias}`: one of `choices`
    kRest,    // `{x:**}`: one or more whole segments
  };
  Name name;
  Kind kind = Kind::kNumber;
  bool bare = false;  // written `{x}`: a number, or what `{x:…}` on the other side of a map is
  int64_t offset = 0;
  std::vector<std::string> choices;
  Span span;  // with the braces

  bool same_kind(const Capture& other) const { return kind == other.kind && choices == other.choices; }
};

struct Segment {
  enum class Kind : uint8_t {
    kLiteral,  // pieces[0]
    kGlob,     // `*norm*`: the texts around the stars, one more than there are stars
    kCapture,  // pieces[0], the capture, pieces[1]
    kRest,     // `**` or `{x:**}`
  };
  Kind kind = Kind::kLiteral;
  std::vector<std::string> pieces;  // without escapes
  std::optional<Capture> capture;   // always of kCapture; of kRest where written `{x:**}`
  Span span;
};

struct NamePattern {
  std::string text;  // as written, with its escapes, without the quotes
  std::vector<Segment> segments;
  int rest = -1;       // index of the `**` segment
  bool valid = false;  // false: a diagnostic said why; it matches nothing
  Span span;           // with the quotes

  // In order; a name that stands twice must take the same both times.
  std::vector<const Capture*> captures() const;
  const Capture* find(std::string_view name) const;
  // A `*` or `**` that no capture takes, so that the name cannot be made again from the captures.
  bool has_wildcard() const;
  // One name, no wildcard and no capture.
  bool is_literal() const;
};

// Reads what stands between the quotes of the string at `span`.
NamePattern parse_name_pattern(const Source& source, Span span, Diagnostics& diagnostics);
// A string that is no pattern (a key, an import): only `\"` and `\\` are escapes.
std::string parse_plain_string(const Source& source, Span span, Diagnostics& diagnostics);

// What a capture took: the text, or for a number its value (less the offset).
struct CaptureValue {
  std::string name, text;
  int64_t number = 0;
};
using CaptureValues = std::vector<CaptureValue>;  // each name once

// Do two captures have one name, so that they must take the same?
bool captures_repeat(const NamePattern& pattern);
// Nothing if the name does not match.
std::optional<CaptureValues> match(const NamePattern& pattern, std::string_view name);
// The name that has these captures; nothing if one is missing or does not fit, or a wildcard stands in the
// pattern. `match` of the result gives the same captures.
std::optional<std::string> produce(const NamePattern& pattern, const CaptureValues& values);

// Does one segment take a text, or all that another segment takes? The second errs on the side of no.
bool accepts(const Segment& segment, std::string_view text);
bool accepts_all(const Segment& segment, const Segment& other);
// The segments of a name: what stands between the dots.
std::vector<std::string_view> split_name(std::string_view name);

// Does `wide` match every name that `narrow` matches? Errs on the side of no.
bool covers(const NamePattern& wide, const NamePattern& narrow);
// Is there a name that both match? Exact but for globs, where it errs on the side of yes.
bool could_meet(const NamePattern& a, const NamePattern& b);

}  // namespace uckpt::ucl
