// The language: scanner, parser, checks, printer and messages on any text; then its layouts, maps and configs
// on a small checkpoint made for it.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/layout/assemble.h"
#include "lib/layout/renaming.h"
#include "lib/layout/settings_map.h"
#include "lib/ucl/check.h"
#include "lib/ucl/dump.h"
#include "lib/ucl/parse.h"
#include "lib/ucl/printer.h"
#include "lib/ucl/walk.h"

using namespace uckpt::ucl;
using uckpt::Catalog;
using uckpt::RankSet;
using uckpt::Tensor;

namespace {

// A shelf with one spec, which is the program again when it is asked for as a file.
class FuzzImporter : public Importer {
 public:
  explicit FuzzImporter(std::string text) : text_(std::move(text)) {}
  std::optional<std::string> shipped(std::string_view name) override {
    if (name != "a") return std::nullopt;
    return "ucl 1\ngiven n\nlayout a over tp { \"**\" [n@tp, ...] }\nmap a <-> "
           "b { \"{x:**}\" <-> \"{x}\" "
           "}\n";
  }
  std::optional<std::string> beside(std::string_view) override { return text_; }

 private:
  std::string text_;
};

// Canonical text means the same and is its own canonical text.
void check_printing(const Program& program) {
  const std::string printed = print(program);
  Diagnostics diagnostics;
  const Program again = parse(Source("printed", printed), diagnostics);
  if (diagnostics.has_errors() || dump(again) != dump(program) || print(again) != printed) std::abort();
}

// What a program says reaches a terminal: nothing in it may move the cursor.
void check_is_plain(const std::string& text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 ? c != '\n' : c == 0x7f) std::abort();
}

constexpr size_t kMostTensors = 64, kMostAxes = 3, kMostTries = 4;

// Names that a program's patterns take and shapes that could fit, the same ones for the same text.
class World {
 public:
  World(const Spec& spec, const std::string& text) : spec_(spec), random_(std::hash<std::string>()(text)) {
    for (const std::string& name : spec.given_names())
      if (pick(0, 3) != 0) settings_.set[name] = pick(0, 8);
  }

  void join_and_rename() {
    std::vector<std::string> names = spec_.layout_names();
    names.resize(std::min(names.size(), kMostTries));
    for (const std::string& name : names) {
      Catalog catalog = cut(spec_.layout(name));
      Diagnostics diagnostics;
      uckpt::layout::assemble(catalog, spec_, spec_.layout(name), settings_, diagnostics);
      check_said(diagnostics);
      if (!diagnostics.has_errors()) rename_from(catalog, name);
    }
  }

  void rename_wholes() {
    size_t tries = 0;
    each<Map>(spec_.root().program.statements, [&](const Map& m) {
      if (++tries > kMostTries) return;
      there_and_back(wholes(m, true), m.left.text, m.right.text);
      there_and_back(wholes(m, false), m.right.text, m.left.text);
    });
  }

  void translate_settings() {
    size_t tries = 0;
    each<Config>(spec_.root().program.statements, [&](const Config& c) {
      if (++tries > kMostTries) return;
      uckpt::ModelSettings left, right;
      for (const ConfigRule& rule : c.rules) {
        for (const Key& key : rule.left.keys) left.insert_or_assign(key.text, setting());
        for (const Key& key : rule.right.keys) right.insert_or_assign(key.text, setting());
      }
      translate(c.left.text, c.right.text, left);
      translate(c.right.text, c.left.text, right);
    });
  }

 private:
  uckpt::ModelSetting setting() {
    const int64_t number = pick(-1, 4);
    switch (pick(0, 4)) {
      case 0:
        return number > 1;
      case 1:
        return number;
      case 2:
        return static_cast<double>(number) / 2;
      case 3:
        return std::string("x");
      default:
        return std::vector<std::string>{"x"};
    }
  }

  // What was translated is settings of the other naming: they go back.
  void translate(const std::string& a, const std::string& b, const uckpt::ModelSettings& settings) {
    Diagnostics there, back;
    try {
      const auto made = uckpt::layout::translate(spec_, a, b, settings, settings_, there);
      uckpt::layout::translate(spec_, b, a, made.settings, settings_, back);
    } catch (const uckpt::Error& e) {  // two chains of maps
      check_is_plain(e.line());
    }
    check_said(there);
    check_said(back);
  }

  int64_t pick(int64_t a, int64_t b) { return std::uniform_int_distribution<int64_t>(a, b)(random_); }

  static void check_said(const Diagnostics& diagnostics) {
    check_is_plain(diagnostics.text());
    check_is_plain(diagnostics.json());
  }

  void rename_from(const Catalog& catalog, const std::string& naming) {
    std::vector<std::string> others = spec_.namings();
    others.resize(std::min(others.size(), kMostTries));
    for (const std::string& other : others)
      if (other != naming) there_and_back(catalog, naming, other);
  }

  // What went one way goes back.
  void there_and_back(Catalog catalog, const std::string& a, const std::string& b) {
    Diagnostics there, back;
    try {
      uckpt::layout::rename(catalog, spec_, a, b, settings_, there);
      check_said(there);
      if (there.has_errors()) return;
      uckpt::layout::rename(catalog, spec_, b, a, settings_, back);
    } catch (const uckpt::Error& e) {
      check_is_plain(e.line());
    }
    check_said(back);
  }

  Catalog cut(LayoutRef layout) {
    std::vector<std::string> axes;
    for (const MeshAxis& a : layout.layout->mesh)
      if (axes.size() < kMostAxes) axes.push_back(a.name.text);
    settings_.mesh.clear();
    std::vector<uckpt::layout::Coordinate> ranks = {{}};
    for (const std::string& axis : axes) {
      const int64_t size = settings_.mesh[axis] = pick(1, 3);
      std::vector<uckpt::layout::Coordinate> next;
      for (const auto& at : ranks)
        for (int64_t i = 0; i < size; ++i) next.push_back(at), next.back()[axis] = i;
      ranks = std::move(next);
    }
    Catalog catalog;
    std::vector<Tensor> all;
    each<Rule>(layout.layout->items, [&](const Rule& r) {
      const Shape* shape = r.body.kind == Body::Kind::kShape ? &r.body.shape : nullptr;
      add(catalog, all, r.name, shape, r.states);
    });
    const bool lossy = pick(0, 3) == 0;
    for (const auto& at : ranks) {
      RankSet& set = catalog.ranks.emplace_back(RankSet{at, {}});
      for (const Tensor& t : all)
        if (!lossy || pick(0, 15) != 0) set.tensors.push_back(t);
    }
    return catalog;
  }

  Catalog wholes(const Map& map, bool left) {
    Catalog catalog;
    std::vector<Tensor> all;
    each<MapRule>(map.items, [&](const MapRule& r) {
      for (const Part& p : (left ? r.left : r.right).parts)
        add(catalog, all, p.name, p.shape ? &*p.shape : nullptr, {});
    });
    catalog.tensors = std::move(all);
    return catalog;
  }

  void add(Catalog& catalog, std::vector<Tensor>& all, const NamePattern& pattern, const Shape* shape,
           const std::vector<Name>& states) {
    uckpt::Shape sizes;
    for (size_t d = 0; shape && d < std::min<size_t>(shape->dims.size(), 5); ++d)
      sizes.push_back(size_of(shape->dims[d]));
    if (!shape || shape->ellipsis != Ellipsis::kNone) sizes.push_back(pick(1, 4));
    if (uckpt::numel_of(sizes) > 1 << 20) sizes.assign(sizes.size(), 1);
    for (int64_t number = 0; number < 2; ++number) {
      const std::string name = name_of(pattern, number);
      if (all.size() >= kMostTensors) return;
      add_tensor(catalog, all, name, states.empty() ? "fp32" : states.front().text, sizes);
      if (pick(0, 3) == 0) add_tensor(catalog, all, name, "exp_avg_sq", sizes);
      if (pick(0, 3) == 0) add_tensor(catalog, all, name, "step", {});
      if (pattern.is_literal()) return;
    }
  }

  // Numbers are kept; an axis has one small size, but for some: so the sizes can often be solved.
  int64_t size_of(const Dim& dim) {
    int64_t size = 1;
    for (const Factor& f : dim.factors) {
      int64_t own = std::min<int64_t>(f.number, 1000);
      if (f.kind == Factor::Kind::kAxis)
        own = pick(0, 31) == 0 ? pick(0, 9)
                               : axes_.try_emplace(f.axis.text, int64_t{1} << pick(0, 2)).first->second;
      if (!f.blocks.empty()) own = 0;
      for (const Block& b : f.blocks) own += size_of(b.dim);
      size = std::min<int64_t>(size * own, 1 << 20);
    }
    return size;
  }

  std::string name_of(const NamePattern& pattern, int64_t number) {
    std::string out;
    for (const Segment& s : pattern.segments) {
      std::string text = s.kind == Segment::Kind::kRest ? "r.s" : s.pieces.front();
      if (s.kind == Segment::Kind::kCapture && s.capture) {
        const Capture& c = *s.capture;
        text += c.kind == Capture::Kind::kNumber   ? uckpt::cat(number + c.offset)
                : c.kind == Capture::Kind::kChoice ? c.choices[static_cast<size_t>(number) % c.choices.size()]
                                                   : uckpt::cat("t", number);
        text += s.pieces.back();
      }
      for (size_t i = 1; s.kind == Segment::Kind::kGlob && i < s.pieces.size(); ++i)
        text += "w" + s.pieces[i];
      out += (out.empty() ? "" : ".") + text;
    }
    return out;
  }

  void add_tensor(Catalog& catalog, std::vector<Tensor>& all, const std::string& name,
                  const std::string& state, const uckpt::Shape& shape) {
    const int64_t numel = uckpt::numel_of(shape);
    const uint32_t mark = catalog.piece_mark();
    const uint8_t one[4] = {0, 0, 0x80, 0x3f};
    if (shape.empty()) {
      catalog.add_literal(one, 1);
    } else if (numel > 0) {
      catalog.add_flat(0, uckpt::kNoRecord, 0, numel, 0, numel);
    }
    Tensor t;
    t.name = name;
    t.state = state;
    t.dtype = uckpt::DType::kF32;
    t.shape = shape;
    t.pieces = catalog.pieces_since(mark);
    all.push_back(std::move(t));
  }

  const Spec& spec_;
  std::mt19937_64 random_;
  std::map<std::string, int64_t> axes_;
  uckpt::layout::Settings settings_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  Diagnostics diagnostics;
  FuzzImporter importer(text);
  const Spec spec = read_spec(Source("fuzz.ucl", text), importer, diagnostics);
  if (!diagnostics.has_errors()) check_printing(spec.root().program);
  check(spec, diagnostics);
  check_is_plain(diagnostics.text());
  check_is_plain(diagnostics.json());
  if (diagnostics.has_errors()) return 0;
  try {
    World(spec, text).join_and_rename();
    World(spec, text).rename_wholes();
    World(spec, text).translate_settings();
  } catch (const uckpt::Error& e) {  // a limit, or values that differ
    check_is_plain(e.line());
  }
  return 0;
}
