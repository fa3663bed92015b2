// uckpt ls: the tensors, one a line.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <optional>

#include "lib/base/text.h"
#include "lib/formats/format.h"
#include "lib/io/input.h"
#include "lib/tensor/collapse.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

std::string how_it_lies(const Catalog& catalog, const Tensor& t) {
  if (!t.refusal.empty()) return "cannot be converted";
  if (t.alias) return cat("= ", catalog.tensors[*t.alias].path());
  return t.layout;
}

// The one file that holds the tensor, if it is one.
std::optional<std::string> only_file(const Catalog& catalog, const Tensor& t) {
  const auto pieces = catalog.pieces_of(t.pieces);
  if (pieces.empty() || pieces.front().file == kLiteral) return std::nullopt;
  const FileId file = pieces.front().file;
  if (!std::ranges::all_of(pieces, [&](const Piece& p) { return p.file == file; })) return std::nullopt;
  return catalog.files[file]->name();
}

std::string json_of(const Catalog& catalog, const Tensor& t) {
  std::string text = cat(R"({"name": )", json_string(t.name), R"(, "state": )", json_string(t.state),
                         R"(, "dtype": ")", name_of(t.dtype), R"(", "shape": )", shape_text(t.shape),
                         R"(, "bytes": )", bytes_of(t), R"(, "layout": )", json_string(t.layout),
                         R"(, "pieces": )", t.pieces.count, R"(, "copies": )", t.copies.size());
  if (t.alias) text += cat(R"(, "alias_of": )", json_string(catalog.tensors[*t.alias].path()));
  if (!t.refusal.empty()) text += cat(R"(, "refusal": )", json_string(t.refusal));
  if (const auto file = only_file(catalog, t)) text += cat(R"(, "file": )", json_string(*file));
  return text + "}";
}

class Ls final : public Verb {
 public:
  std::string_view name() const override { return "ls"; }
  std::string_view summary() const override { return "List the tensors of a checkpoint"; }
  std::string_view usage() const override { return "PATH[::GLOB]"; }
  std::string_view examples() const override {
    return "  uckpt ls checkpoints/global_step1000            numbered layers on one line\n"
           "  uckpt ls -a 'model.h5::fp32/*.bias'             every tensor that matches, each on its own\n"
           "  uckpt ls --states exp_avg --drop '*norm*' ckpt/\n"
           "  uckpt ls --json model.safetensors | jq -r '.tensors[].name'\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("PATH", path_, "A checkpoint, and maybe a pattern on `name` or `state/name`")
        ->type_name("");
    app.add_flag("-a,--all", all_, "Each tensor on a line of its own");
    app.add_flag("--json", json_, "Answer in JSON; lists each tensor");
    select_.add(app);
    rules_.add(app);
    open_.add(app);
  }
  int run(Out& out) override {
    require(path_, "PATH");
    split_pattern();
    OpenOptions options = open_.checked();
    options.want_objects = false;
    const Catalog catalog = open_whole(path_, options, rules_.checked(), true);
    const std::vector<const Tensor*> tensors = chosen(catalog);
    json_ ? print_json_list(catalog, tensors, out) : print_list(catalog, tensors, out);
    if (!tensors.empty() || catalog.tensors.empty()) return 0;
    out.flush();
    throw nothing_matches(catalog);
  }

 private:
  // A path that is there as it stands has no pattern in it.
  void split_pattern() {
    const size_t colons = path_.rfind("::");
    std::error_code ignored;
    if (colons == std::string::npos || std::filesystem::exists(path_, ignored)) return;
    select_.selection.select.push_back(path_.substr(colons + 2));
    path_.resize(colons);
  }
  std::vector<const Tensor*> chosen(const Catalog& catalog) const {
    std::vector<const Tensor*> out;
    for (const Tensor& t : catalog.tensors) {
      if (select_.selection.takes(t)) out.push_back(&t);
    }
    std::ranges::stable_sort(out, {}, [](const Tensor* t) { return state_rank(t->state); });
    return out;
  }
  Error nothing_matches(const Catalog& catalog) const {
    Error e = refused("select.nothing", "no tensor matches").in_file(path_);
    if (select_.selection.select.size() != 1) return e;
    std::vector<std::string> names;
    for (const Tensor& t : catalog.tensors) names.push_back(t.name);
    if (const auto near = nearest(select_.selection.select.front(), names))
      e.hint(cat("did you mean `", *near, "`?"));
    return e;
  }
  void print_json_list(const Catalog& catalog, const std::vector<const Tensor*>& tensors, Out& out) const {
    out.print(cat("{\"uckpt\": 1,\n \"path\": ", json_string(catalog.path),
                  ",\n \"kind\": ", json_string(catalog.kind), ",\n \"tensors\": ["));
    for (size_t i = 0; i < tensors.size(); ++i)
      out.print(cat(i > 0 ? "," : "", "\n  ", json_of(catalog, *tensors[i])));
    out.line(cat("],\n \"warnings\": ", json_strings(catalog.warnings), "}"));
  }
  void print_list(const Catalog& catalog, const std::vector<const Tensor*>& tensors, Out& out) const {
    for (const std::string& w : catalog.warnings) print_warning(w);
    using enum Table::Align;
    Table table({kLeft, kLeft, kLeft, kLeft, kLeft, kRight});
    if (!tensors.empty()) table.row({"NAME", "STATE", "DTYPE", "SHAPE", "LAYOUT", "BYTES"});
    for (const NameGroup& group : grouped(catalog, tensors)) {
      const Tensor& t = *tensors[group.members.front()];
      const auto times = static_cast<int64_t>(group.members.size());
      table.row({times > 1 ? cat(group.name, " ×", times) : group.name, t.state,
                 std::string(name_of(t.dtype)), shape_text(t.shape), how_it_lies(catalog, t),
                 human_bytes(static_cast<uint64_t>(capped_mul(bytes_of(t), times)))});
    }
    table.print(out);
    print_total(tensors, out);
    for (const std::string& line : refusal_lines(tensors))
      out.line(cat("cannot be converted: ", escape(line, 400)));
  }
  std::vector<NameGroup> grouped(const Catalog& catalog, const std::vector<const Tensor*>& tensors) const {
    std::vector<NamedItem> items;
    for (const Tensor* t : tensors) {
      items.push_back(
          {t->name, cat(t->state, "|", name_of(t->dtype), shape_text(t->shape), how_it_lies(catalog, *t))});
    }
    if (!all_) return collapse_names(items);
    std::vector<NameGroup> groups;
    for (size_t i = 0; i < items.size(); ++i) groups.push_back({items[i].name, {i}});
    return groups;
  }
  static void print_total(const std::vector<const Tensor*>& tensors, Out& out) {
    int64_t elements = 0, bytes = 0;
    for (const Tensor* t : tensors) {
      if (t->alias) continue;
      elements = capped_add(elements, numel_of(t->shape));
      bytes = capped_add(bytes, bytes_of(*t));
    }
    out.line(cat(counted(static_cast<int64_t>(tensors.size()), "tensor"), ", ", counted(elements, "element"),
                 ", ", human_bytes(static_cast<uint64_t>(bytes))));
  }

  std::string path_;
  bool all_ = false, json_ = false;
  SelectFlags select_;
  OpenFlags open_;
  RuleFlags rules_;
};

}  // namespace

std::unique_ptr<Verb> make_ls() { return std::make_unique<Ls>(); }

}  // namespace uckpt::cli
