#include "lib/ucl/pattern_index.h"

#include <algorithm>

namespace uckpt::ucl {

namespace {

// A name as a query: its segments are texts.
struct NameQuery {
  std::string_view name;
  std::vector<std::string_view> parts;

  size_t size() const { return parts.size(); }
  // How far from the start, and from the end, segments may be compared one by one.
  size_t reach_before() const { return size(); }
  size_t reach_behind() const { return size(); }
  std::optional<std::string_view> literal(size_t i) const { return parts[i]; }
  bool accepted(const Segment& by, size_t i) const { return accepts(by, parts[i]); }
  // Segment by segment it fits; of captures of one name only all of them together tell.
  bool confirmed(const NamePattern& pattern, bool repeats) const {
    return !repeats || match(pattern, name).has_value();
  }
  bool may_end_without_rest() const { return true; }
};

// A pattern as a query: all that it matches.
struct PatternQuery {
  const NamePattern& narrow;

  size_t size() const { return narrow.segments.size(); }
  size_t reach_before() const { return narrow.rest < 0 ? size() : static_cast<size_t>(narrow.rest); }
  size_t reach_behind() const {
    return narrow.rest < 0 ? size() : size() - static_cast<size_t>(narrow.rest) - 1;
  }
  std::optional<std::string_view> literal(size_t i) const {
    if (narrow.segments[i].kind != Segment::Kind::kLiteral) return std::nullopt;
    return narrow.segments[i].pieces[0];
  }
  bool accepted(const Segment& by, size_t i) const { return accepts_all(by, narrow.segments[i]); }
  bool confirmed(const NamePattern& pattern, bool) const { return covers(pattern, narrow); }
  bool may_end_without_rest() const { return narrow.rest < 0; }
};

// Equal for segments that match the same texts.
std::string key_of(const Segment& segment) {
  std::string key = std::to_string(static_cast<int>(segment.kind));
  const auto add = [&key](std::string_view text) { (key += '.') += text; };  // no piece holds a dot
  for (const std::string& piece : segment.pieces) add(piece);
  if (segment.capture) {
    add(std::to_string(static_cast<int>(segment.capture->kind)));
    add(std::to_string(segment.capture->offset));
    for (const std::string& choice : segment.capture->choices) add(choice);
  }
  return key;
}

}  // namespace

uint32_t PatternIndex::child(uint32_t node, const Segment& segment) {
  const auto fresh = static_cast<uint32_t>(nodes_.size());
  const bool literal = segment.kind == Segment::Kind::kLiteral;
  auto& map = literal ? nodes_[node].literal : nodes_[node].others;
  const auto [slot, is_new] = map.try_emplace(literal ? segment.pieces[0] : key_of(segment), fresh);
  if (!is_new) return slot->second;
  if (!literal) nodes_[node].wide.emplace_back(&segment, fresh);
  nodes_.emplace_back();
  return fresh;
}

void PatternIndex::add(const NamePattern& pattern, uint32_t id) {
  if (!pattern.valid) return;
  const size_t count = pattern.segments.size();
  const size_t before = pattern.rest < 0 ? count : static_cast<size_t>(pattern.rest);
  uint32_t node = 0;
  for (size_t i = 0; i < before; ++i) node = child(node, pattern.segments[i]);
  if (pattern.rest >= 0) {
    if (nodes_[node].rest == 0) {
      nodes_[node].rest = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
    }
    node = nodes_[node].rest;
    for (size_t i = count; i > before + 1; --i) node = child(node, pattern.segments[i - 1]);
  }
  nodes_[node].ends.push_back({&pattern, id, captures_repeat(pattern)});
}

// One query on its way through the nodes.
template <class Query>
class PatternIndex::Walk {
 public:
  Walk(const std::vector<Node>& nodes, const Query& query) : nodes_(nodes), query_(query) {}

  std::vector<uint32_t> run() {
    visit(0, 0);
    std::sort(found_.begin(), found_.end());
    return std::move(found_);
  }
  uint64_t work() const { return work_; }

 private:
  void visit(uint32_t at_node, size_t at) {
    const Node& node = nodes_[at_node];
    if (at == query_.size() && query_.may_end_without_rest()) take(node.ends);
    if (node.rest != 0 && at < query_.size()) visit_behind(node.rest, at, 0);
    if (at < query_.reach_before()) children(node, at, [&](uint32_t next) { visit(next, at + 1); });
  }

  // `before` segments from the start and `behind` from the end are spoken for; `**` takes at least one
  // between.
  void visit_behind(uint32_t at_node, size_t before, size_t behind) {
    const Node& node = nodes_[at_node];
    take(node.ends);
    if (behind >= query_.reach_behind() || before + behind + 1 >= query_.size()) return;
    children(node, query_.size() - behind - 1,
             [&](uint32_t next) { visit_behind(next, before, behind + 1); });
  }

  template <class Go>
  void children(const Node& node, size_t segment, const Go& go) {
    work_ += 1 + node.wide.size();
    if (const auto text = query_.literal(segment))
      if (const auto found = node.literal.find(*text); found != node.literal.end()) go(found->second);
    for (const auto& [by, next] : node.wide)
      if (query_.accepted(*by, segment)) go(next);
  }

  void take(const std::vector<Entry>& ends) {
    work_ += ends.size();
    for (const Entry& e : ends)
      if (query_.confirmed(*e.pattern, e.repeats)) found_.push_back(e.id);
  }

  const std::vector<Node>& nodes_;
  const Query& query_;
  std::vector<uint32_t> found_;
  uint64_t work_ = 0;
};

std::vector<uint32_t> PatternIndex::matching(std::string_view name) const {
  const NameQuery query{name, split_name(name)};
  return Walk<NameQuery>(nodes_, query).run();
}

std::vector<uint32_t> PatternIndex::covering(const NamePattern& narrow, uint64_t& work) const {
  if (!narrow.valid) return {};
  const PatternQuery query{narrow};
  Walk<PatternQuery> walk(nodes_, query);
  std::vector<uint32_t> found = walk.run();
  work += walk.work();
  return found;
}

}  // namespace uckpt::ucl
