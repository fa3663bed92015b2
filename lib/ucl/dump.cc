#include "lib/ucl/dump.h"

#include "lib/base/text.h"
#include "lib/ucl/text_of.h"

namespace uckpt::ucl {

namespace {

// One line a node, children indented.
class Dumper {
 public:
  std::string take() { return std::move(out_); }

  void visit(const Program& p) {
    node("program", [&] {
      for (const Statement& s : p.statements) std::visit([this](const auto& n) { visit(n); }, s);
    });
  }

  void visit(const Shape& s) {
    const char* where[] = {"", " ...first", " ...last"};
    node(cat("shape", where[static_cast<int>(s.ellipsis)]), [&] {
      for (const Dim& d : s.dims) visit(d);
    });
  }

  void visit(const Expr& e) {
    const char* kinds[] = {"number ", "name ", "sum", "product", "min"};
    std::string head = kinds[static_cast<int>(e.kind)];
    if (e.kind == Expr::Kind::kNumber) head += std::to_string(e.number);
    node(head + e.name, [&] {
      for (const Operand& o : e.operands) {
        if (o.inverted) leaf("inverted");
        visit(o.expr);
      }
    });
  }

 private:
  template <class Children>
  void node(const std::string& head, Children children) {
    leaf(head);
    ++depth_;
    children();
    --depth_;
  }
  void leaf(const std::string& text) { out_ += cat(std::string(depth_ * 2, ' '), text, "\n"); }
  void name(std::string_view role, const Name& n) { leaf(cat(role, " ", n.text)); }
  template <class List>
  void all(const List& list) {
    for (const auto& item : list) visit(item);
  }
  template <class Node>
  void maybe(const std::optional<Node>& n) {
    if (n) visit(*n);
  }

  // ---- facts ----
  void visit(const Version& v) { leaf(cat("ucl ", v.number)); }
  void visit(const Import& i) { leaf(cat("import ", escape(i.path))); }
  void visit(const Key& k) {
    leaf(cat(k.negated ? "not-" : "", k.quoted ? "quoted-" : "", "key ", escape(k.text),
             k.equals ? cat(" equals ", escape(*k.equals)) : ""));
  }
  void visit(const GivenVar& v) {
    node("var " + v.name.text, [&] {
      all(v.keys);
      maybe(v.fallback);
    });
  }
  void visit(const Given& g) {
    node("given", [&] { all(g.vars); });
  }
  void visit(const Binding& b) {
    node("binding " + b.name.text, [&] { visit(b.value); });
  }
  void visit(const Where& w) {
    node("where", [&] { all(w.bindings); });
  }

  // ---- shapes ----
  void visit(const Dim& d) {
    node("dim", [&] { all(d.factors); });
  }
  void visit(const Factor& f) {
    const char* kinds[] = {"axis ", "number ", "group", "concat"};
    std::string head = kinds[static_cast<int>(f.kind)];
    if (f.kind == Factor::Kind::kNumber) head += std::to_string(f.number);
    node(head + f.axis.text, [&] {
      for (const Block& b : f.blocks) node("block " + b.label.text, [&] { visit(b.dim); });
      if (f.pad) node("pad", [&] { visit(*f.pad); });
      maybe(f.cut);
    });
  }
  void visit(const Cut& c) {
    node("cut", [&] { all(c.axes); });
  }
  void visit(const CutAxis& a) {
    const char* kinds[] = {"", " even", " chunk", " sizes"};
    std::string text = cat("over ", a.axis.text, kinds[static_cast<int>(a.share)]);
    for (int64_t s : a.sizes) text += cat(" ", s);
    leaf(text);
  }

  // ---- layouts ----
  void visit(const MeshAxis& m) {
    leaf(
        cat("mesh ", m.name.text, m.parts ? cat(" = ", m.parts->first.text, " ", m.parts->second.text) : ""));
  }
  void visit(const Layout& l) {
    node("layout " + l.name.text, [&] {
      all(l.mesh);
      for (const LayoutItem& i : l.items) std::visit([this](const auto& n) { visit(n); }, i);
    });
  }
  void visit(const LayoutUse& u) { name("use", u.layout); }
  void visit(const Index& i) {
    node(cat("index ", i.name.text, i.local ? " local" : ""), [&] {
      maybe(i.count);
      visit(i.cut);
    });
  }
  void visit(const Value& v) {
    node(v.times ? "times" : "plus", [&] { visit(v.expr); });
  }
  void visit(const Body& b) {
    const char* kinds[] = {"shape", "replicate", "partial", "unique", "opaque", "drop", "tied", "unknown"};
    node(cat("body ", kinds[static_cast<int>(b.kind)]), [&] {
      if (b.kind == Body::Kind::kShape) visit(b.shape);
      if (b.kind == Body::Kind::kTied) visit(b.tied);
      maybe(b.value);
      if (b.partial) name("partial", *b.partial);
    });
  }
  void visit(const On& on) {
    std::string text = "on " + on.axis.text;
    const char* kinds[] = {" first", " last", " "};
    for (const Place& p : on.places) {
      text += kinds[static_cast<int>(p.kind)];
      if (p.kind == Place::Kind::kNumber) text += std::to_string(p.number);
    }
    leaf(text);
  }
  void visit(const Condition& c) {
    const char* kinds[] = {"true", "false", "compare"};
    node(cat("when ", kinds[static_cast<int>(c.kind)]), [&] {
      visit(c.left);
      if (c.kind != Condition::Kind::kCompare) return;
      leaf(cat("comparison ", static_cast<int>(c.comparison)));
      visit(c.right);
    });
  }
  void visit(const NamePattern& p) { leaf(cat("pattern ", escape(p.text))); }
  void visit(const Rule& r) {
    node(r.optional ? "optional rule" : "rule", [&] {
      visit(r.name);
      visit(r.body);
      all(r.on);
      if (r.dtype) name("dtype", *r.dtype);
      for (const Name& s : r.states) name("state", s);
      all(r.when);
    });
  }

  // ---- maps ----
  void visit(const Map& m) {
    node(cat("map ", m.left.text, " ", m.right.text), [&] {
      for (const MapItem& i : m.items) std::visit([this](const auto& n) { visit(n); }, i);
    });
  }
  void visit(const MapUse& u) { leaf(cat("use ", u.left.text, " ", u.right.text)); }
  void visit(const Part& p) {
    node(p.label ? "part " + p.label->text : "part", [&] {
      visit(p.name);
      maybe(p.shape);
      maybe(p.value);
    });
  }
  void visit(const Side& s) {
    node(s.drop ? "side drop" : "side", [&] { all(s.parts); });
  }
  void visit(const MapRule& r) {
    node(r.optional ? "optional map-rule" : "map-rule", [&] {
      visit(r.left);
      visit(r.right);
      all(r.when);
    });
  }

  // ---- settings ----
  void visit(const Constant& c) {
    const char* kinds[] = {"bool", "whole", "decimal", "text", "texts", "size"};
    leaf(cat("constant ", kinds[c.value.index()], " ", escape(text_of(c))));
  }
  void visit(const ConfigSide& s) {
    node(s.drop     ? "side drop"
         : s.off    ? "side off"
         : s.equals ? "side equals"
                    : "side",
         [&] {
           all(s.keys);
           all(s.values);
         });
  }
  void visit(const ConfigRule& r) {
    node(r.optional ? "optional config-rule" : "config-rule", [&] {
      visit(r.left);
      visit(r.right);
      all(r.when);
    });
  }
  void visit(const Config& c) {
    node(cat("config ", c.left.text, " ", c.right.text), [&] { all(c.rules); });
  }

  // ---- convert ----
  void visit(const Convert& c) {
    node("convert", [&] {
      for (const ConvertItem& i : c.items) std::visit([this](const auto& n) { visit(n); }, i);
    });
  }
  void visit(const Endpoint& e) {
    node(cat(e.is_source ? "from " : "to ", e.format.text), [&] {
      if (e.naming) name("as", *e.naming);
      for (const Setting& s : e.settings) {
        const auto* number = std::get_if<int64_t>(&s.value);
        leaf(cat("set ", s.name.text, " ", number ? std::to_string(*number) : std::get<Name>(s.value).text));
      }
    });
  }
  void visit(const DropNames& d) {
    node("drop", [&] { all(d.names); });
  }
  void visit(const DTypeChoice& d) {
    node("dtype " + d.dtype.text, [&] { all(d.names); });
  }
  void visit(const StateChoice& s) {
    for (const Name& n : s.states) name("state", n);
  }

  std::string out_;
  size_t depth_ = 0;
};

template <class Node>
std::string dump_any(const Node& node) {
  Dumper d;
  d.visit(node);
  return d.take();
}

}  // namespace

std::string dump(const Program& program) { return dump_any(program); }
std::string dump(const Shape& shape) { return dump_any(shape); }
std::string dump(const Expr& expr) { return dump_any(expr); }

}  // namespace uckpt::ucl
