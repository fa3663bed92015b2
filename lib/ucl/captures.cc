#include "lib/ucl/captures.h"

#include <algorithm>

#include "lib/base/text.h"

namespace uckpt::ucl {

namespace {

class Resolver {
 public:
  Resolver(const Source& source, Diagnostics& diagnostics) : source_(source), diagnostics_(diagnostics) {}

  // The patterns of one rule, in the order of the text.
  void resolve(const std::vector<NamePattern*>& patterns) {
    std::vector<Capture> written;  // the first of each name that says its kind
    for (NamePattern* p : patterns)
      for (const Capture* c : p->captures())
        if (!c->bare && p->valid) note_written(written, *p, *c);
    for (NamePattern* p : patterns)
      for (Segment& s : p->segments)
        if (s.capture && s.capture->bare) adopt(*p, s, written);
  }

 private:
  void note_written(std::vector<Capture>& written, NamePattern& pattern, const Capture& c) {
    const auto first =
        std::find_if(written.begin(), written.end(), [&](const auto& w) { return w.name == c.name; });
    if (first == written.end()) {
      written.push_back(c);
    } else if (!first->same_kind(c)) {
      differs(pattern, c, *first);
    }
  }

  void differs(NamePattern& pattern, const Capture& c, const Capture& first) {
    pattern.valid = false;
    diagnostics_
        .error(source_, c.span, "ucl.capture_differs",
               cat("the capture `", c.name.text, "` is used twice in the rule, differently"))
        .note(source_, first.span, "first used here");
  }

  void adopt(NamePattern& pattern, Segment& segment, const std::vector<Capture>& written) {
    Capture& c = *segment.capture;
    const auto first =
        std::find_if(written.begin(), written.end(), [&](const auto& w) { return w.name == c.name; });
    if (first == written.end() || !pattern.valid) return;
    c.kind = first->kind;
    c.choices = first->choices;
    if (c.kind == Capture::Kind::kRest) become_rest(pattern, segment, *first);
  }

  void become_rest(NamePattern& pattern, Segment& segment, const Capture& first) {
    const auto here = static_cast<int>(&segment - pattern.segments.data());
    const bool alone = segment.span == segment.capture->span;
    if (!alone || pattern.rest >= 0) {
      pattern.valid = false;
      diagnostics_
          .error(source_, segment.capture->span, "ucl.pattern_rest",
                 alone ? "two captures of whole segments stand in one name"
                       : "the capture takes whole segments: it stands alone between dots")
          .note(source_, first.span, "it is `**` here");
      return;
    }
    segment.kind = Segment::Kind::kRest;
    pattern.rest = here;
  }

  const Source& source_;
  Diagnostics& diagnostics_;
};

}  // namespace

void resolve_captures(const Source& source, Program& program, Diagnostics& diagnostics) {
  Resolver resolver(source, diagnostics);
  for (Statement& s : program.statements) {
    if (auto* map = std::get_if<Map>(&s)) {
      for (MapItem& item : map->items) {
        auto* rule = std::get_if<MapRule>(&item);
        if (!rule) continue;
        std::vector<NamePattern*> patterns;
        for (Side* side : {&rule->left, &rule->right})
          for (Part& p : side->parts) patterns.push_back(&p.name);
        resolver.resolve(patterns);
      }
    } else if (auto* layout = std::get_if<Layout>(&s)) {
      for (LayoutItem& item : layout->items) {
        auto* rule = std::get_if<Rule>(&item);
        if (rule && rule->body.kind == Body::Kind::kTied) resolver.resolve({&rule->name, &rule->body.tied});
      }
    }
  }
}

}  // namespace uckpt::ucl
