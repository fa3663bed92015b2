#include "lib/ucl/check.h"

#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/walk.h"

namespace uckpt::ucl {

namespace {

class FactCollector {
 public:
  explicit FactCollector(ProgramFacts& facts) : facts_(facts) {}

  void collect(const Program& program) {
    each<Where>(program.statements, [this](const Where& w) { add(w); });
    each<Layout>(program.statements, [this](const Layout& l) { add(l); });
    each<Map>(program.statements, [this](const Map& m) {
      each<Where>(m.items, [this](const Where& w) { add(w); });
      each<MapRule>(m.items, [this](const MapRule& r) {
        for (const Side* side : {&r.left, &r.right})
          for (const Part& p : side->parts)
            if (p.shape) add(*p.shape);
      });
    });
  }

 private:
  void add(const Layout& layout) {
    for (const MeshAxis& m : layout.mesh) {
      facts_.mesh_names.insert(m.name.text);
      if (m.parts) facts_.mesh_names.insert({m.parts->first.text, m.parts->second.text});
    }
    each<Where>(layout.items, [this](const Where& w) { add(w); });
    each<Rule>(layout.items, [this](const Rule& r) { add(r.body.shape); });
  }
  void add(const Where& where) {
    for (const Binding& b : where.bindings) add(b.value);
  }
  void add(const Shape& shape) {
    each_factor(shape, [this](const Factor& f) {
      if (f.kind == Factor::Kind::kAxis) facts_.sizing.insert(f.axis.text);
      if (f.pad) add(*f.pad);
    });
  }
  void add(const Expr& expr) {
    each_name(expr, [this](const std::string& name, Span) { facts_.sizing.insert(name); });
  }

  ProgramFacts& facts_;
};

// What the checks cost grows with the number of blocks times the size of those they use.
bool has_too_many_blocks(const Spec& spec, Diagnostics& diagnostics) {
  constexpr size_t kMaxBlocks = 500;
  size_t blocks = 0;
  for (const auto& file : spec.files())
    for (const Statement& s : file->program.statements) {
      if (!std::holds_alternative<Layout>(s) && !std::holds_alternative<Map>(s) &&
          !std::holds_alternative<Config>(s))
        continue;
      if (++blocks <= kMaxBlocks) continue;
      diagnostics.error(file->source, span_of(s), "ucl.limit_blocks",
                        cat("the program has more than ", kMaxBlocks, " layouts, maps and configs"));
      return true;
    }
  return false;
}

}  // namespace

ProgramFacts::ProgramFacts(const Spec& spec) {
  FactCollector collector(*this);
  for (const auto& file : spec.files()) collector.collect(file->program);
}

void check(const Spec& spec, Diagnostics& diagnostics) {
  if (has_too_many_blocks(spec, diagnostics)) return;
  const ProgramFacts facts(spec);
  for (const auto& file : spec.files()) {
    const Context context{spec, facts, *file, diagnostics, where_places(file->program.statements)};
    check_statements(context);
    check_facts(context);
    each<Layout>(file->program.statements, [&](const Layout& l) { check_layout(context, l); });
    each<Map>(file->program.statements, [&](const Map& m) { check_map(context, m); });
    each<Config>(file->program.statements, [&](const Config& s) { check_config(context, s); });
  }
}

}  // namespace uckpt::ucl
