#include "lib/ucl/printer.h"

#include "lib/base/text.h"
#include "lib/ucl/page.h"
#include "lib/ucl/text_of.h"

namespace uckpt::ucl {

namespace {

constexpr size_t kIndent = 4;

using Cells = std::vector<std::string>;

bool fits(size_t indent, Columns columns, const Cells& cells) {
  return indent + width_of(run_together(columns, cells)) <= kPageWidth;
}

// Lists whose members may stand on a line each: `given`, `where`.
struct Row {
  Cells cells;
  const Comments* comments;
};

class Printer {
 public:
  std::string print(const Program& program) {
    const Statement* before = nullptr;
    for (const Statement& s : program.statements) {
      if (before && (is_block(*before) || is_block(s))) page_.blank();
      std::visit([this](const auto& node) { print_item(0, node); }, s);
      before = &s;
    }
    page_.comments(0, program.tail);
    return page_.text();
  }

 private:
  static bool is_block(const Statement& s) {
    return std::holds_alternative<Layout>(s) || std::holds_alternative<Map>(s) ||
           std::holds_alternative<Config>(s) || std::holds_alternative<Convert>(s);
  }

  template <class Node>
  void print_item(size_t indent, const Node& node) {
    above(indent, node.comments);
    print(indent, node);
  }

  void above(size_t indent, const Comments& comments) {
    if (comments.blank_above) page_.blank();
    page_.comments(indent, comments.above);
  }

  template <class Items>
  void print_block(const std::string& head, const Items& items, const Comments& comments) {
    if (items.empty() && comments.tail.empty() && comments.behind.empty())
      return page_.line(0, head + " {}", comments.after);
    page_.begin_block(head + " {", comments.behind);
    for (const auto& item : items)
      std::visit([this](const auto& node) { this->print_item(kIndent, node); }, item);
    page_.comments(kIndent, comments.tail);
    page_.line(0, "}", comments.after);
  }

  // `keyword a, b, c`, on one line if that fits and nobody comments a member but the last.
  void print_list(size_t indent, std::string keyword, const std::vector<Row>& rows) {
    page_.comments(indent, rows.front().comments->above);
    std::string one = keyword;
    bool breaks = false;
    for (const Row& row : rows) {
      const bool last = &row == &rows.back();
      one += cat(&row == &rows.front() ? "" : ", ", run_together(Columns::kFacts, row.cells));
      breaks |= !last && !row.comments->behind.empty();
      breaks |= &row != &rows.front() && !row.comments->above.empty();
    }
    if (!breaks && indent + width_of(one) <= kPageWidth)
      return page_.line(indent, one, rows.back().comments->behind);
    for (const Row& row : rows) {
      const bool first = &row == &rows.front();
      if (!first) page_.comments(indent + keyword.size(), row.comments->above);
      Cells cells = row.cells;
      cells.front().insert(0, first ? keyword : std::string(keyword.size(), ' '));
      if (&row != &rows.back()) cells.back() += ",";
      page_.line(indent, Columns::kFacts, cells, row.comments->behind);
    }
  }

  // ---- statements ----

  void print(size_t indent, const Version& v) {
    page_.line(indent, cat("ucl ", v.number), v.comments.behind);
  }
  void print(size_t indent, const Import& i) {
    page_.line(indent, "import " + ucl::quoted(i.path), i.comments.behind);
  }

  void print(size_t indent, const Given& given) {
    std::vector<Row> rows;
    for (const GivenVar& v : given.vars) {
      Cells cells = {v.name.text};
      if (!v.keys.empty()) cells.push_back("from " + joined(v.keys, " | "));
      if (v.fallback) cells.push_back("= " + text_of(*v.fallback));
      rows.push_back({cells, &v.comments});
    }
    print_list(indent, "given ", rows);
  }

  void print(size_t indent, const Where& where) {
    std::vector<Row> rows;
    for (const Binding& b : where.bindings)
      rows.push_back({{b.name.text, "= " + text_of(b.value)}, &b.comments});
    print_list(indent, "where ", rows);
  }

  // ---- layouts ----

  void print(size_t, const Layout& layout) {
    const std::string over = layout.mesh.empty() ? "" : " over " + joined(layout.mesh);
    print_block(cat("layout ", layout.name.text, over), layout.items, layout.comments);
  }
  void print(size_t indent, const Index& index) {
    const std::string count = index.count ? cat(" < ", text_of(*index.count)) : "";
    const std::string text =
        cat("index ", index.name.text, count, " ", text_of(index.cut), index.local ? " local" : "");
    page_.line(indent, text, index.comments.behind);
  }
  void print(size_t indent, const LayoutUse& use) {
    page_.line(indent, "use " + use.layout.text, use.comments.behind);
  }

  static std::string modifiers_of(const Rule& rule) {
    std::string out = joined(rule.on, " ");
    const auto add = [&out](const std::string& text) {
      if (!text.empty()) out += (out.empty() ? "" : " ") + text;
    };
    if (rule.dtype) add("dtype " + rule.dtype->text);
    if (!rule.states.empty()) add("states " + joined(rule.states));
    add(text_of(rule.when));
    return out;
  }

  void print(size_t indent, const Rule& rule) {
    const std::string name = (rule.optional ? "optional " : "") + text_of(rule.name);
    const std::string body = text_of(rule.body), modifiers = modifiers_of(rule);
    const std::string& comment = rule.comments.behind;
    if (fits(indent, Columns::kRules, {name, body, modifiers}))
      return page_.line(indent, Columns::kRules, {name, body, modifiers}, comment);
    const size_t inner = indent + kIndent;
    if (!modifiers.empty() && fits(indent, Columns::kRules, {name, body})) {
      page_.line(indent, run_together(Columns::kRules, {name, body}));
      return page_.line(inner, modifiers, comment);
    }
    page_.line(indent, name);
    if (modifiers.empty() || fits(inner, Columns::kRules, {body, modifiers}))
      return page_.line(inner, run_together(Columns::kRules, {body, modifiers}), comment);
    page_.line(inner, body);
    page_.line(inner, modifiers, comment);
  }

  // ---- maps ----

  void print(size_t, const Map& map) {
    print_block(cat("map ", map.left.text, " <-> ", map.right.text), map.items, map.comments);
  }
  void print(size_t indent, const MapUse& use) {
    page_.line(indent, cat("use ", use.left.text, " <-> ", use.right.text), use.comments.behind);
  }

  static std::string side_text(const Side& side) { return side.drop ? "drop" : joined(side.parts); }

  // Do comments force the parts onto lines of their own? Those of the last part need not.
  static bool parts_break(const Side& side) {
    for (const Part& p : side.parts) {
      if (&p != &side.parts.front() && !p.comments.above.empty()) return true;
      if (&p != &side.parts.back() && !p.comments.behind.empty()) return true;
    }
    return false;
  }
  static const std::string& last_comment(const Side& side) {
    static const std::string none;
    return side.parts.empty() ? none : side.parts.back().comments.behind;
  }

  void print(size_t indent, const MapRule& rule) {
    // What stands before a side's first part would be read as standing before the rule.
    for (const Side* side : {&rule.left, &rule.right})
      if (!side->parts.empty()) page_.comments(indent, side->parts.front().comments.above);
    const std::string left = (rule.optional ? "optional " : "") + side_text(rule.left);
    const std::string right = "<-> " + side_text(rule.right), when = text_of(rule.when);
    const std::string& part_comment = last_comment(rule.right);
    const std::string& rule_comment = rule.comments.behind;

    const bool breaks = parts_break(rule.left) || parts_break(rule.right) ||
                        !last_comment(rule.left).empty() || (!part_comment.empty() && !rule_comment.empty());
    if (!breaks && fits(indent, Columns::kMapRules, {left, right, when}))
      return page_.line(indent, Columns::kMapRules, {left, right, when},
                        part_comment.empty() ? rule_comment : part_comment);
    print_side(indent, rule.optional ? "optional " : "", rule.left, "", "");
    print_side(indent + kIndent, "<-> ", rule.right, when, rule_comment);
  }

  // The lines of one side, the first one begun by `head`; `when` and its comment at the end of the last line,
  // or on one of their own.
  void print_side(size_t indent, const std::string& head, const Side& side, const std::string& when,
                  const std::string& comment) {
    const std::string& part_comment = last_comment(side);
    const std::string all = head + side_text(side);
    const bool when_alone = !part_comment.empty() && !comment.empty();
    const std::string tail = when.empty() || when_alone ? "" : " " + when;
    const std::string& end_comment = part_comment.empty() ? comment : part_comment;
    if (!parts_break(side) && indent + width_of(all + tail) <= kPageWidth) {
      page_.line(indent, all + tail, end_comment);
    } else if (side.parts.size() < 2) {
      page_.line(indent, all, when.empty() ? end_comment : part_comment);
      if (!when.empty()) page_.line(indent + kIndent, when, comment);
      return;
    } else {
      print_parts(indent, head, side, tail, end_comment);
    }
    if (when_alone) page_.line(indent + kIndent, when, comment);
  }

  void print_parts(size_t indent, const std::string& head, const Side& side, const std::string& tail,
                   const std::string& end_comment) {
    for (const Part& p : side.parts) {
      const bool first = &p == &side.parts.front(), last = &p == &side.parts.back();
      if (!first) page_.comments(indent + head.size(), p.comments.above);
      const std::string text = text_of(p) + (last ? tail : ",");
      page_.line(indent + (first ? 0 : head.size()), (first ? head : "") + text,
                 last ? end_comment : p.comments.behind);
    }
  }

  // ---- settings ----

  void print(size_t, const Config& config) {
    const std::string head = cat("config ", config.left.text, " <-> ", config.right.text);
    if (config.rules.empty() && config.comments.tail.empty() && config.comments.behind.empty())
      return page_.line(0, head + " {}", config.comments.after);
    page_.begin_block(head + " {", config.comments.behind);
    for (const ConfigRule& rule : config.rules) print_item(kIndent, rule);
    page_.comments(kIndent, config.comments.tail);
    page_.line(0, "}", config.comments.after);
  }

  void print(size_t indent, const ConfigRule& rule) {
    const std::string left = (rule.optional ? "optional " : "") + text_of(rule.left);
    const std::string right = "<-> " + text_of(rule.right), when = text_of(rule.when);
    if (fits(indent, Columns::kMapRules, {left, right, when}))
      return page_.line(indent, Columns::kMapRules, {left, right, when}, rule.comments.behind);
    page_.line(indent, left);
    page_.line(indent + kIndent, right + (when.empty() ? "" : " " + when), rule.comments.behind);
  }

  // ---- convert ----

  void print(size_t, const Convert& convert) { print_block("convert", convert.items, convert.comments); }

  void print(size_t indent, const Endpoint& e) {
    page_.line(indent, Columns::kEndpoints,
               {e.is_source ? "from" : "to", e.format.text, e.naming ? "as " + e.naming->text : "",
                e.settings.empty() ? "" : "with " + joined(e.settings)},
               e.comments.behind);
  }
  void print(size_t indent, const DropNames& d) { print_names(indent, "drop ", d.names, d.comments); }
  void print(size_t indent, const DTypeChoice& d) {
    const std::string head = "dtype " + d.dtype.text;
    if (d.names.empty()) return page_.line(indent, head, d.comments.behind);
    print_names(indent, head + " for ", d.names, d.comments);
  }
  void print(size_t indent, const StateChoice& s) {
    page_.line(indent, "states " + joined(s.states), s.comments.behind);
  }

  void print_names(size_t indent, const std::string& head, const std::vector<NamePattern>& names,
                   const Comments& comments) {
    const std::string one = head + joined(names);
    if (indent + width_of(one) <= kPageWidth) return page_.line(indent, one, comments.behind);
    for (const NamePattern& n : names) {
      const bool first = &n == &names.front(), last = &n == &names.back();
      page_.line(indent + (first ? 0 : head.size()), cat(first ? head : "", text_of(n), last ? "" : ","),
                 last ? comments.behind : "");
    }
  }

  Page page_;
};

}  // namespace

std::string print(const Program& program) { return Printer().print(program); }

}  // namespace uckpt::ucl
