// uckpt inspect: what is this?
#include <CLI/CLI.hpp>
#include <limits>
#include <set>

#include "lib/base/text.h"
#include "lib/formats/format.h"
#include "tools/json_view.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

constexpr size_t kMostShown = 20;
constexpr int64_t kMostLines = 1000;

std::vector<std::string> classes_of(const Catalog& catalog, GlobalClass wanted) {
  std::vector<std::string> names;
  for (const auto& [name, kind] : catalog.globals) {
    if (kind == wanted) names.push_back(name);
  }
  return names;
}

// The text answer, from the most to the least urgent.
class Page {
 public:
  Page(const Catalog& catalog, Out& out) : catalog_(catalog), summary_(summarise(catalog)), out_(out) {}

  void print() {
    out_.line(cat(escape(catalog_.description), ": ", escape(catalog_.path)));
    print_dangers();
    print_refusal();
    print_facts();
    print_states();
    print_lists();
  }

 private:
  void print_dangers() {
    const std::vector<std::string> dangerous = classes_of(catalog_, GlobalClass::kDangerous);
    if (dangerous.empty()) return;
    out_.line("\nDANGEROUS: the pickles in here name these; uckpt runs nothing and converts nothing of it");
    list(dangerous);
  }
  void print_refusal() {
    if (!catalog_.refusal) return;
    out_.line(cat("\ncannot be converted: ", catalog_.refusal->line()));
    if (const std::string hint = hint_of(*catalog_.refusal); !hint.empty())
      out_.line(cat("hint: ", escape(hint, 400)));
  }
  void print_facts() {
    using enum Table::Align;
    Table table({kLeft, kLeft});
    // A reader may tell more of what we count ourselves: its word comes first.
    std::set<std::string> told;
    const auto row = [&](const std::string& key, std::string value) {
      if (told.insert(key).second) table.row({key, std::move(value)});
    };
    row("kind", catalog_.kind);
    if (catalog_.iteration) row("iteration", cat(*catalog_.iteration));
    if (catalog_.zero_stage) row("ZeRO stage", cat(*catalog_.zero_stage));
    if (const std::string mesh = mesh_text(); !mesh.empty()) row("mesh", mesh);
    for (const auto& [key, value] : catalog_.facts) row(key, value);
    row("parameters", human_count(static_cast<uint64_t>(summary_.model_parameters)));
    if (!summary_.module_dtypes.empty()) row("module weights", joined(summary_.module_dtypes));
    row("files", cat(catalog_.files.size(), ", ", human_bytes(static_cast<uint64_t>(summary_.file_bytes))));
    if (!catalog_.refusal && summary_.refused.empty()) row("complete", "yes, every tensor can be converted");
    out_.line("");
    table.print(out_);
  }
  void print_states() {
    using enum Table::Align;
    Table table({kLeft, kRight, kRight, kRight, kLeft});
    table.row({"STATE", "TENSORS", "ELEMENTS", "BYTES", "DTYPES"});
    const auto row = [&](const StateCount& c, const std::string& name) {
      table.row({name, human_count(static_cast<uint64_t>(c.tensors)),
                 human_count(static_cast<uint64_t>(c.parameters)),
                 human_bytes(static_cast<uint64_t>(c.bytes)), joined(c.dtypes)});
    };
    for (const StateCount& c : summary_.states) row(c, c.state);
    if (summary_.states.size() != 1) row(summary_.total, "total");
    out_.line("");
    table.print(out_);
  }
  void print_lists() {
    std::vector<std::string> tied, objects;
    for (const auto& group : summary_.tied) {
      std::string line;
      for (const std::string& path : group) line += cat(line.empty() ? "" : " = ", path);
      tied.push_back(std::move(line));
    }
    for (const Object& o : catalog_.objects) {
      objects.push_back(o.size > 0 ? cat(o.origin, "  ", human_bytes(static_cast<uint64_t>(o.size)))
                                   : o.origin);
    }
    section("tensors that cannot be converted", summary_.refusals);
    section("tied", tied);
    section("other state (--metadata shows it)", objects);
    section("unknown classes, kept as data", classes_of(catalog_, GlobalClass::kUnknown));
    section("warnings", catalog_.warnings);
  }
  void section(std::string_view title, const std::vector<std::string>& lines) {
    if (lines.empty()) return;
    out_.line(
        cat("\n", title, lines.size() > kMostShown ? cat(" (", lines.size(), ")") : std::string(), ":"));
    list(lines);
  }
  void list(const std::vector<std::string>& lines) {
    for (size_t i = 0; i < std::min(lines.size(), kMostShown); ++i)
      out_.line(cat("  ", escape(lines[i], 400)));
    if (lines.size() > kMostShown)
      out_.line(cat("  and ", lines.size() - kMostShown, " more (--json lists all)"));
  }
  std::string mesh_text() const {
    std::string text;
    const auto axis = [&](std::string_view name, int64_t size) {
      if (size > 1) text += cat(text.empty() ? "" : ", ", name, " ", size);
    };
    axis("tp", catalog_.mesh.tp);
    axis("pp", catalog_.mesh.pp);
    axis("dp", catalog_.mesh.dp);
    axis("ep", catalog_.mesh.ep);
    return text;
  }

  const Catalog& catalog_;
  Summary summary_;
  Out& out_;
};

// A JSON document, a member a line, so that long lists can be compared by diff.
class JsonPage {
 public:
  JsonPage(const Catalog& catalog, Out& out) : catalog_(catalog), summary_(summarise(catalog)), out_(out) {}

  void print() {
    out_.print("{\"uckpt\": 1");
    text("path", catalog_.path);
    text("kind", catalog_.kind);
    text("description", catalog_.description);
    member("iteration", catalog_.iteration ? cat(*catalog_.iteration) : "null");
    member("zero_stage", catalog_.zero_stage ? cat(*catalog_.zero_stage) : "null");
    const Mesh& m = catalog_.mesh;
    member("mesh",
           cat(R"({"tp": )", m.tp, R"(, "pp": )", m.pp, R"(, "dp": )", m.dp, R"(, "ep": )", m.ep, "}"));
    member("facts", facts());
    member("files", cat(catalog_.files.size()));
    member("file_bytes", cat(summary_.file_bytes));
    member("parameters", cat(summary_.model_parameters));
    member("module_dtypes", json_strings(summary_.module_dtypes));
    member("convertible", catalog_.refusal || !summary_.refused.empty() ? "false" : "true");
    member("refusal", refusal());
    member("states", states());
    member("refused_tensors", refused_tensors());
    member("tied", tied());
    member("objects", objects());
    member("dangerous_classes", json_strings(classes_of(catalog_, GlobalClass::kDangerous)));
    member("unknown_classes", json_strings(classes_of(catalog_, GlobalClass::kUnknown)));
    member("warnings", json_strings(catalog_.warnings));
    out_.line("}");
  }

 private:
  void member(std::string_view name, const std::string& json) {
    out_.print(cat(",\n \"", name, "\": ", json));
  }
  void text(std::string_view name, std::string_view value) { member(name, json_string(value)); }

  template <class Range, class Item>
  static std::string list(const Range& range, Item&& item) {
    std::string out = "[";
    for (const auto& element : range) out += cat(out.size() > 1 ? ", " : "", item(element));
    return out + "]";
  }
  std::string facts() const {
    return list(catalog_.facts, [](const auto& f) {
      return cat("[", json_string(f.first), ", ", json_string(f.second), "]");
    });
  }
  std::string refusal() const {
    if (!catalog_.refusal) return "null";
    const Error& e = *catalog_.refusal;
    return cat(R"({"code": )", json_string(e.code()), R"(, "message": )", json_string(e.line()), "}");
  }
  std::string states() const {
    return list(summary_.states, [](const StateCount& c) {
      return cat("\n  {\"state\": ", json_string(c.state), ", \"tensors\": ", c.tensors,
                 ", \"elements\": ", c.parameters, ", \"bytes\": ", c.bytes,
                 ", \"dtypes\": ", json_strings(c.dtypes), "}");
    });
  }
  std::string refused_tensors() const {
    return list(summary_.refused, [&](uint32_t i) {
      const Tensor& t = catalog_.tensors[i];
      return cat("\n  {\"tensor\": ", json_string(t.path()), ", \"reason\": ", json_string(t.refusal), "}");
    });
  }
  std::string tied() const {
    return list(summary_.tied, [](const std::vector<std::string>& group) { return json_strings(group); });
  }
  std::string objects() const {
    return list(catalog_.objects, [](const Object& o) {
      return cat("\n  {\"origin\": ", json_string(o.origin), ", \"bytes\": ", o.size, "}");
    });
  }

  const Catalog& catalog_;
  Summary summary_;
  Out& out_;
};

class Inspect final : public Verb {
 public:
  std::string_view name() const override { return "inspect"; }
  std::string_view summary() const override { return "Tell what a checkpoint is and holds"; }
  std::string_view usage() const override { return "PATH"; }
  std::string_view examples() const override {
    return "  uckpt inspect checkpoints/global_step1000    one tag of a DeepSpeed run\n"
           "  uckpt inspect checkpoints/                   the newest tag (follows `latest`)\n"
           "  uckpt inspect pytorch_model.bin              a torch.save file; nothing in it is run\n"
           "  uckpt inspect --metadata model.pt            arguments, schedulers, random states, …\n"
           "  uckpt inspect --json model.h5 | jq .states\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("PATH", path_, "A checkpoint: folder or file")->type_name("");
    app.add_flag("--metadata", metadata_, "Show everything that is not a tensor instead");
    app.add_flag("-a,--all", all_, cat("With --metadata: more than ", kMostLines, " lines, and long ones"));
    app.add_flag("--json", json_, "Answer in JSON");
    rules_.add(app);
    open_.add(app);
  }
  int run(Out& out) override {
    require(path_, "PATH");
    OpenOptions options = open_.checked();
    options.want_objects = metadata_;
    const Catalog catalog = open_whole(path_, options, rules_.checked(), true);
    if (metadata_) {
      json_ ? print_objects_json(catalog, out) : print_objects(catalog, out);
    } else if (json_) {
      JsonPage(catalog, out).print();
    } else {
      Page(catalog, out).print();
    }
    return 0;
  }

 private:
  void print_objects(const Catalog& catalog, Out& out) const {
    int64_t left = all_ ? std::numeric_limits<int64_t>::max() - 1 : kMostLines;
    for (const Object& o : catalog.objects) {
      out.line(cat("# ", escape(o.origin)));
      const int64_t lines = print_json(out, o.json, left, all_);
      if (lines > left) {
        out.line(cat("# cut after ", kMostLines, " lines: -a shows all"));
        return;
      }
      left -= lines;
    }
  }
  static void print_objects_json(const Catalog& catalog, Out& out) {
    out.print(cat("{\"uckpt\": 1,\n \"path\": ", json_string(catalog.path), ",\n \"objects\": ["));
    for (size_t i = 0; i < catalog.objects.size(); ++i) {
      const Object& o = catalog.objects[i];
      out.print(cat(i > 0 ? "," : "", "\n  {\"origin\": ", json_string(o.origin), ", \"value\": "));
      out.print(o.json.empty() ? "null" : o.json);
      out.print("}");
    }
    out.line("]}");
  }

  std::string path_;
  bool metadata_ = false, all_ = false, json_ = false;
  OpenFlags open_;
  RuleFlags rules_;
};

}  // namespace

std::unique_ptr<Verb> make_inspect() { return std::make_unique<Inspect>(); }

}  // namespace uckpt::cli
