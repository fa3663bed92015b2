// uckpt stats: what the elements of every tensor are like.
#include "lib/examine/stats.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>

#include "lib/base/text.h"
#include "lib/kernels/numbers.h"
#include "lib/tensor/collapse.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/signals.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

using kernels::Statistics;

struct Oddity {
  std::string_view name, what;
  int64_t (*count)(const Statistics&);
};
constexpr Oddity kOddities[] = {
    {"nan", "NaN", [](const Statistics& s) { return s.nans; }},
    {"inf", "infinite", [](const Statistics& s) { return s.infinities; }},
    {"denormal", "denormal", [](const Statistics& s) { return s.denormals; }},
    {"zero", "zero", [](const Statistics& s) { return s.zeros; }},
    {"all-zero", "zero, all of them", [](const Statistics& s) { return s.zeros == s.count ? s.zeros : 0; }},
};

const Oddity& oddity(const std::string& name) {
  std::vector<std::string> known;
  for (const Oddity& o : kOddities) {
    if (o.name == name) return o;
    known.emplace_back(o.name);
  }
  throw trouble("usage.fail_on",
                cat("--fail-on: expected some of ", joined(known), ", found `", escape(name, 60), "`"));
}

// Integers of 64 bits exactly; nothing where there is no finite element.
std::string edge_text(const Statistics& s, DType dtype, bool is_max, bool is_short) {
  if (dtype == DType::kI64) return cat(Statistics::signed_of(is_max ? s.max_key : s.min_key));
  if (dtype == DType::kU64) return cat(is_max ? s.max_key : s.min_key);
  const double value = is_max ? s.max : s.min;
  return is_short ? short_number(value) : cat(value);
}

std::string json_of(const Statistics& s, DType dtype) {
  if (!kernels::has_numbers(dtype)) return {};
  std::string text = cat(", \"zero\": ", s.zeros, ", \"nan\": ", s.nans, ", \"inf\": ", s.infinities,
                         ", \"denormal\": ", s.denormals);
  if (s.finite() == 0) return text + R"(, "min": null, "max": null, "mean": null, "std": null, "norm": 0)";
  return text + cat(", \"min\": ", edge_text(s, dtype, false, false),
                    ", \"max\": ", edge_text(s, dtype, true, false), ", \"mean\": ", json_number(s.mean()),
                    ", \"std\": ", json_number(s.deviation()), ", \"norm\": ", json_number(s.norm()));
}

class Stats final : public Verb {
 public:
  std::string_view name() const override { return "stats"; }
  std::string_view summary() const override {
    return "Range, mean, deviation, norm, NaNs and zeros of every tensor";
  }
  std::string_view usage() const override { return "PATH"; }
  std::string_view examples() const override {
    return "  uckpt stats ckpt/global_step1000\n"
           "  uckpt stats --fail-on nan,inf model.h5            exit 1 if there is one, and where\n"
           "  uckpt stats --states exp_avg_sq --json ckpt/ | jq '.tensors[] | [.name, .max]'\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("PATH", path_, "A checkpoint: folder or file")->type_name("");
    app.add_flag("-a,--all", all_, "Each tensor on a line of its own, even of more than 200");
    app.add_option("--fail-on", fail_on_,
                   "Exit 1 and name the tensors if any element is so: nan, inf, denormal, zero; all-zero: if "
                   "every one is")
        ->type_name("LIST")
        ->delimiter(',')
        ->allow_extra_args(false);
    app.add_flag("--json", json_, "Answer in JSON; each tensor");
    read_.add(app);
  }
  int run(Out& out) override {
    require(path_, "PATH");
    std::vector<const Oddity*> unwanted;
    for (const std::string& name : fail_on_) unwanted.push_back(&oddity(name));
    const ReadOptions options = read_.checked();
    const auto progress = read_.start();
    const Opened opened = open_to_read(path_, options);
    for (const std::string& w : opened.catalog.warnings) progress->warn(w);
    const std::vector<Statistics> found = statistics_of(
        opened, options.selection.takes_all(), options.buffers(opened.catalog), *progress, stop_on_signals());
    std::vector<Failure> failures;
    for (const Oddity* o : unwanted)
      for (size_t i = 0; i < found.size(); ++i)
        if (const int64_t count = o->count(found[i]); count > 0) failures.push_back({o, i, count});
    if (json_) {
      print_json(opened, found, failures, out);
      return failures.empty() ? 0 : 1;
    }
    if (!read_.progress.quiet) print_table(opened, found, out);
    if (failures.empty()) return 0;
    for (const Failure& f : failures)
      out.line(escape(
          cat(opened.tensor(f.tensor).path(), ": ", human_count(static_cast<uint64_t>(f.count)), " of ",
              counted(found[f.tensor].count, "element"), " ", f.count == 1 ? "is " : "are ", f.of->what),
          400));
    out.flush();
    throw refused("stats.found", failure_text(opened, failures)).in_file(path_);
  }

 private:
  struct Failure {
    const Oddity* of;
    size_t tensor;
    int64_t count;
  };

  static std::string failure_text(const Opened& opened, const std::vector<Failure>& failures) {
    std::string names;
    std::vector<size_t> tensors;
    for (const Failure& f : failures) tensors.push_back(f.tensor);
    std::ranges::sort(tensors);
    tensors.erase(std::unique(tensors.begin(), tensors.end()), tensors.end());
    constexpr size_t kShown = 3;
    for (size_t i = 0; i < tensors.size() && i < kShown; ++i)
      names += cat(i > 0 ? ", " : "", escape(opened.tensor(tensors[i]).path(), 80));
    if (tensors.size() > kShown) names += cat(" and ", tensors.size() - kShown, " more");
    return cat("expected no such element, found some in ",
               counted(static_cast<int64_t>(tensors.size()), "tensor"), ": ", names);
  }

  static void print_json(const Opened& opened, const std::vector<Statistics>& found,
                         const std::vector<Failure>& failures, Out& out) {
    out.print(cat("{\"uckpt\": 1,\n \"path\": ", json_string(opened.catalog.path), ",\n \"tensors\": ["));
    for (size_t i = 0; i < found.size(); ++i) {
      const Tensor& t = opened.tensor(i);
      out.print(cat(i > 0 ? "," : "", "\n  {\"name\": ", json_string(t.name),
                    ", \"state\": ", json_string(t.state), ", \"dtype\": \"", name_of(t.dtype),
                    "\", \"shape\": ", shape_text(t.shape), ", \"elements\": ", numel_of(t.shape),
                    json_of(found[i], t.dtype)));
      if (t.alias) out.print(cat(", \"alias_of\": ", json_string(opened.catalog.tensors[*t.alias].path())));
      out.print("}");
    }
    out.print("],\n \"failed\": [");
    for (size_t i = 0; i < failures.size(); ++i)
      out.print(cat(i > 0 ? ", " : "", "{\"path\": ", json_string(opened.tensor(failures[i].tensor).path()),
                    ", \"on\": \"", failures[i].of->name, "\", \"count\": ", failures[i].count, "}"));
    out.line(cat("],\n \"warnings\": ", json_strings(opened.catalog.warnings), "}"));
  }

  void print_table(const Opened& opened, const std::vector<Statistics>& found, Out& out) const {
    using enum Table::Align;
    Table table(
        {kLeft, kLeft, kLeft, kLeft, kRight, kRight, kRight, kRight, kRight, kRight, kRight, kRight, kRight});
    table.row({"NAME", "STATE", "DTYPE", "SHAPE", "MIN", "MAX", "MEAN", "STD", "NORM", "ZERO", "NAN", "INF",
               "DENORMAL"});
    for (const NameGroup& group : grouped(opened)) {
      const Tensor& t = opened.tensor(group.members.front());
      const size_t times = group.members.size();
      Statistics sum;
      for (const size_t i : group.members) sum.add(found[i]);
      std::vector<std::string> cells = {times > 1 ? cat(group.name, " ×", times) : group.name, t.state,
                                        std::string(name_of(t.dtype)), shape_text(t.shape)};
      add_cells(sum, t.dtype, cells);
      table.row(std::move(cells));
    }
    table.print(out);
    print_total(opened, found, out);
  }

  static void add_cells(const Statistics& s, DType dtype, std::vector<std::string>& cells) {
    const auto odd = [](int64_t n) { return human_count(static_cast<uint64_t>(n)); };
    if (!kernels::has_numbers(dtype)) {
      cells.insert(cells.end(), 9, "-");
      return;
    }
    if (s.finite() == 0) {
      cells.insert(cells.end(), {"-", "-", "-", "-", "0"});
    } else {
      cells.insert(cells.end(),
                   {edge_text(s, dtype, false, true), edge_text(s, dtype, true, true), short_number(s.mean()),
                    short_number(s.deviation()), short_number(s.norm())});
    }
    cells.insert(cells.end(), {odd(s.zeros), odd(s.nans), odd(s.infinities), odd(s.denormals)});
  }

  // A line a tensor, but layers on one where that is too much to read.
  std::vector<NameGroup> grouped(const Opened& opened) const {
    constexpr size_t kMostTensorLines = 200;
    std::vector<size_t> order(opened.tensors.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, {}, [&](size_t i) { return state_rank(opened.tensor(i).state); });
    std::vector<NamedItem> items;
    for (const size_t i : order) {
      const Tensor& t = opened.tensor(i);
      items.push_back({t.name, cat(t.state, "|", name_of(t.dtype), shape_text(t.shape))});
    }
    std::vector<NameGroup> groups;
    if (all_ || items.size() <= kMostTensorLines) {
      for (size_t i = 0; i < items.size(); ++i) groups.push_back({items[i].name, {i}});
    } else {
      groups = collapse_names(items);
    }
    for (NameGroup& group : groups)
      for (size_t& member : group.members) member = order[member];
    return groups;
  }

  static void print_total(const Opened& opened, const std::vector<Statistics>& found, Out& out) {
    int64_t elements = 0, bytes = 0;
    Statistics sum;
    for (size_t i = 0; i < found.size(); ++i) {
      const Tensor& t = opened.tensor(i);
      if (t.alias) continue;
      elements = capped_add(elements, numel_of(t.shape));
      bytes = capped_add(bytes, bytes_of(t));
      sum.add(found[i]);
    }
    const auto count = [](int64_t n) { return human_count(static_cast<uint64_t>(n)); };
    out.line(cat(counted(static_cast<int64_t>(found.size()), "tensor"), ", ", counted(elements, "element"),
                 ", ", human_bytes(static_cast<uint64_t>(bytes)), ": ", count(sum.zeros), " zero, ",
                 count(sum.nans), " NaN, ", count(sum.infinities), " infinite, ", count(sum.denormals),
                 " denormal"));
  }

  std::string path_;
  std::vector<std::string> fail_on_;
  bool all_ = false, json_ = false;
  ReadFlags read_;
};

}  // namespace

std::unique_ptr<Verb> make_stats() { return std::make_unique<Stats>(); }

}  // namespace uckpt::cli
