#include "lib/ucl/comments.h"

#include <algorithm>

#include "ucl_parser.hh"

namespace uckpt::ucl {

namespace {

using T = Grammar::token;

constexpr size_t kNone = SIZE_MAX;

// A node that comments can belong to.
struct Anchor {
  Span span;
  Comments* comments;
  bool is_block;
  size_t parent;
  bool settled = false;  // the blank line between the comments above and the node is in place
};

// Every anchor of a program in the order of the text, outer ones before inner ones.
class AnchorList {
 public:
  explicit AnchorList(Program& program) {
    for (Statement& s : program.statements) std::visit([this](auto& node) { visit(node); }, s);
  }
  std::vector<Anchor> take() { return std::move(anchors_); }

 private:
  template <class Node>
  void add(Node& node, bool is_block = false) {
    while (parent_ != kNone && !anchors_[parent_].span.contains(node.span))
      parent_ = anchors_[parent_].parent;
    anchors_.push_back({node.span, &node.comments, is_block, parent_, false});
    parent_ = anchors_.size() - 1;
  }
  template <class Items>
  void visit_all(Items& items) {
    for (auto& item : items) std::visit([this](auto& node) { this->visit(node); }, item);
  }

  template <class Leaf>
  void visit(Leaf& leaf) {
    add(leaf);
  }
  void visit(Given& given) {
    add(given);
    for (GivenVar& v : given.vars) add(v);
  }
  void visit(Where& where) {
    add(where);
    for (Binding& b : where.bindings) add(b);
  }
  void visit(Layout& layout) {
    add(layout, true);
    visit_all(layout.items);
  }
  void visit(Map& map) {
    add(map, true);
    visit_all(map.items);
  }
  void visit(MapRule& rule) {
    add(rule);
    for (Side* side : {&rule.left, &rule.right})
      for (Part& p : side->parts) add(p);
  }
  void visit(Config& config) {
    add(config, true);
    for (ConfigRule& r : config.rules) add(r);
  }
  void visit(Convert& convert) {
    add(convert, true);
    visit_all(convert.items);
  }

  std::vector<Anchor> anchors_;
  size_t parent_ = kNone;
};

class Attacher {
 public:
  Attacher(const Source& source, const Tokens& tokens, Program& program)
      : source_(source), tokens_(tokens.all()), program_(program), anchors_(AnchorList(program).take()) {}

  void attach(const std::vector<Comment>& comments) {
    for (const Comment& c : comments) c.first_on_line ? attach_line(c) : attach_behind(c);
    for (size_t a = 0; a < anchors_.size(); ++a) settle(a);
  }

 private:
  std::string text(const Comment& c) const { return std::string(source_.text(c.span)); }

  // Is the line above the one of this offset blank?
  bool blank_before(uint32_t offset) const {
    int newlines = 0;
    const std::string_view all = source_.text();
    while (offset > 0 && newlines < 2) {
      const char c = all[--offset];
      if (c == '\n') {
        ++newlines;
      } else if (c != ' ' && c != '\t' && c != '\r') {
        break;
      }
    }
    return newlines == 2;
  }

  // The last anchor that begins at or before the token, or none.
  size_t last_begun(Span token) const {
    const auto after = std::upper_bound(anchors_.begin(), anchors_.end(), token.begin,
                                        [](uint32_t at, const Anchor& a) { return at < a.span.begin; });
    return after == anchors_.begin() ? kNone : static_cast<size_t>(after - anchors_.begin()) - 1;
  }
  // The same or the innermost one around it that contains the token.
  size_t innermost(Span token) const {
    size_t a = last_begun(token);
    while (a != kNone && !anchors_[a].span.contains(token)) a = anchors_[a].parent;
    return a;
  }
  // The outermost anchor that begins with the token.
  size_t beginning_at(Span token) const {
    const auto first = std::lower_bound(anchors_.begin(), anchors_.end(), token.begin,
                                        [](const Anchor& a, uint32_t at) { return a.span.begin < at; });
    return first != anchors_.end() && first->span.begin == token.begin
               ? static_cast<size_t>(first - anchors_.begin())
               : kNone;
  }

  void attach_behind(const Comment& c) {
    if (c.next_token == 0) return attach_line(c);
    const Token& token = tokens_[c.next_token - 1];
    const bool goes_on = token.kind == T::COMMA || token.kind == T::ARROW;
    const size_t a = goes_on ? last_begun(token.span) : innermost(token.span);
    if (a == kNone) {
      program_.tail.push_back(text(c));
      return;
    }
    const Anchor& anchor = anchors_[a];
    if (anchor.is_block && token.kind == T::RIGHT_BRACE) return put(anchor.comments->after, a, c);
    const bool midst = anchor.span.end > c.span.begin && !(anchor.is_block && token.kind == T::LEFT_BRACE);
    midst ? put_above(a, c) : put(anchor.comments->behind, a, c);
  }

  void attach_line(const Comment& c) {
    if (c.next_token == tokens_.size()) return put_tail(program_.tail, c, program_.statements.empty());
    const Token& token = tokens_[c.next_token];
    if (const size_t a = beginning_at(token.span); a != kNone) return put_leading(a, c);
    const size_t a = innermost(token.span);
    if (a == kNone) return put_tail(program_.tail, c, program_.statements.empty());
    if (anchors_[a].is_block && anchors_[a].span.end == token.span.end) {
      const bool empty = a + 1 == anchors_.size() || anchors_[a + 1].parent != a;
      return put_tail(anchors_[a].comments->tail, c, empty);
    }
    put_above(a, c);
  }

  void put(std::string& place, size_t anchor, const Comment& c) {
    if (place.empty()) {
      place = text(c);
    } else {
      put_above(anchor, c);
    }
  }

  void put_tail(std::vector<std::string>& tail, const Comment& c, bool nothing_before) {
    if (blank_before(c.span.begin) && !(nothing_before && tail.empty())) tail.emplace_back();
    tail.push_back(text(c));
  }

  // On a line of its own, right before the node.
  void put_leading(size_t a, const Comment& c) {
    Comments& comments = *anchors_[a].comments;
    const bool blank = blank_before(c.span.begin);
    if (comments.above.empty()) {
      comments.blank_above = blank;
    } else if (blank) {
      comments.above.emplace_back();
    }
    comments.above.push_back(text(c));
  }

  // Out of the midst of the node.
  void put_above(size_t a, const Comment& c) {
    settle(a);
    anchors_[a].comments->above.push_back(text(c));
  }

  void settle(size_t a) {
    Anchor& anchor = anchors_[a];
    if (anchor.settled) return;
    anchor.settled = true;
    const bool blank = blank_before(anchor.span.begin);
    if (anchor.comments->above.empty()) {
      anchor.comments->blank_above = blank;
    } else if (blank) {
      anchor.comments->above.emplace_back();
    }
  }

  const Source& source_;
  const std::vector<Token>& tokens_;
  Program& program_;
  std::vector<Anchor> anchors_;
};

}  // namespace

void attach_comments(const Source& source, const Tokens& tokens, Program& program) {
  Attacher(source, tokens, program).attach(tokens.comments());
}

}  // namespace uckpt::ucl
