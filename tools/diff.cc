// uckpt diff: how two checkpoints differ, whatever their formats and layouts.
#include "lib/examine/diff.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "lib/base/text.h"
#include "lib/examine/match.h"
#include "lib/tensor/collapse.h"
#include "tools/options.h"
#include "tools/output.h"
#include "tools/signals.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

double parse_tolerance(std::string_view flag, std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value) || value < 0)
    throw trouble("usage.tolerance",
                  cat(flag, ": expected a number from 0 up, such as 1e-5, found `", escape(text, 60), "`"));
  return value;
}

std::string facts_of(DType dtype, const Shape& shape, const TensorPair& pair) {
  return cat(name_of(dtype), " ", shape_text(shape), pair.tied_to.empty() ? "" : ", tied to ", pair.tied_to);
}

// "fp32/a"; "fp32/a (param in B)"; "fp32/a (param/b in B)".
std::string path_text(const TensorPair& pair) {
  if (pair.path.empty()) return pair.second_path;
  if (pair.second_path.empty() || pair.path == pair.second_path) return pair.path;
  const auto [state, name] = split_path(pair.path);
  const auto [second_state, second_name] = split_path(pair.second_path);
  return cat(pair.path, " (", name == second_name ? second_state : std::string_view(pair.second_path),
             " in B)");
}

// A number where JSON has it, else the text.
std::string json_value(const std::string& text) {
  const bool is_number = text.find_first_not_of("0123456789+-.e") == std::string::npos;
  return is_number || text == "true" || text == "false" ? text : json_string(text);
}
std::string json_place(std::string_view key, const std::optional<DiffPlace>& place) {
  if (!place) return {};
  return cat(", \"", key, "\": {\"at\": ", shape_text(place->index), ", \"a\": ", json_value(place->first),
             ", \"b\": ", json_value(place->second), "}");
}

std::string json_pair(const TensorPair& pair) {
  std::string text;
  const auto side = [&](std::string_view path_key, std::string_view key, const std::string& path, DType dtype,
                        const Shape& shape) {
    if (path.empty()) return;
    text += cat(text.empty() ? "" : ", ", "\"", path_key, "\": ", json_string(path), ", \"dtype_", key,
                "\": \"", name_of(dtype), "\", \"shape_", key, "\": ", shape_text(shape));
  };
  side("path", "a", pair.path, pair.dtype, pair.shape);
  side("path_b", "b", pair.second_path, pair.second_dtype, pair.second_shape);
  if (!pair.tied_to.empty()) text += cat(", \"tied_to\": ", json_string(pair.tied_to));
  return text;
}

std::string json_compared(const ComparedPair& pair) {
  const kernels::ValueDifferences& f = pair.found;
  std::string text =
      cat(json_pair(pair), ", \"elements\": ", pair.elements, ", \"different\": ", f.different,
          ", \"not_finite\": ", f.unlike, ", \"within\": ", f.within, ", \"other_bits\": ", f.bits);
  if (pair.largest) text += cat(", \"max_abs\": ", json_number(f.max_absolute));
  text += json_place("max_abs_at", pair.largest);
  if (pair.largest_relative) text += cat(", \"max_rel\": ", json_number(f.max_relative));
  text += json_place("max_rel_at", pair.largest_relative);
  text += json_place("not_finite_at", pair.unlike);
  text += json_place("first_at", pair.any);
  if (f.within > 0) text += cat(", \"max_abs_within\": ", json_number(f.max_within));
  return text;
}

class Diff final : public Verb {
 public:
  std::string_view name() const override { return "diff"; }
  std::string_view summary() const override {
    return "Compare the tensors of two checkpoints, in any formats and layouts";
  }
  std::string_view usage() const override { return "A B"; }
  std::string_view examples() const override {
    return "  uckpt diff ckpt/global_step1000 model.h5          bit for bit\n"
           "  uckpt diff --rtol 1e-5 --atol 1e-8 before/ after/ as numpy.isclose, in doubles\n"
           "  uckpt diff --states fp32 --ignore-dtype --rtol 0.01 ckpt/ weights.safetensors\n"
           "  uckpt diff --map 'model.{x:**}={x}' a.pt b.pt     names of A as B has them\n"
           "  uckpt diff --as hf megatron/ hf_model/            a map of a spec that ships renames A\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_option("A", first_, "A checkpoint: folder or file")->type_name("");
    app.add_option("B", second_, "What it is compared with")->type_name("");
    app.add_option("--rtol", relative_, "Numbers within atol + rtol·|b| are as good as equal")
        ->type_name("X");
    app.add_option("--atol", absolute_, "The same; 0 compares numbers, not bits")->type_name("X");
    app.add_flag("--ignore-dtype", ignore_dtype_, "Compare numbers of two types, both widened exactly");
    app.add_option("--top", top_, "Lines of each list at most (default: 10)")->type_name("N");
    app.add_option("--map", map_,
                   "Names of A as B has them: A_PATTERN=B_PATTERN, or a file of these; may be repeated, the "
                   "first that matches wins")
        ->type_name("MAP")
        ->type_size(1)
        ->allow_extra_args(false);
    app.add_option("--from-b", from_b_, "As --from, of B")->type_name("KIND");
    app.add_option("--spec-b", rules_b_.spec, "As --spec, of B (by default A's rules, where B is cut)")
        ->type_name("SPEC");
    app.add_option("--naming-b", rules_b_.naming, "As --naming, of B")->type_name("NAME");
    app.add_option("--as-b", rules_b_.as, "As --as, of B")->type_name("NAMING");
    app.add_flag("--json", json_, "Answer in JSON, all of it");
    read_.add(app);
  }
  int run(Out& out) override {
    require(first_, "A");
    require(second_, "B");
    const int64_t top = top_.empty() ? 10 : parse_count("--top", top_, 0);
    DiffOptions options;
    options.read = read_.checked();
    options.second_from = from_b_;
    if (!rules_b_.spec.empty() || !rules_b_.naming.empty() || !rules_b_.as.empty()) {
      rules_b_.set = read_.rules.set;
      options.second_rules = rules_b_.checked();
    }
    options.ignore_dtype = ignore_dtype_;
    for (const std::string& text : map_) add_map(options.map, text);
    if (!relative_.empty() || !absolute_.empty()) {
      options.tolerance.emplace();
      if (!relative_.empty()) options.tolerance->relative = parse_tolerance("--rtol", relative_);
      if (!absolute_.empty()) options.tolerance->absolute = parse_tolerance("--atol", absolute_);
    }
    const auto tolerance = options.tolerance;
    const auto progress = read_.start();
    const DiffReport report =
        diff_checkpoints(first_, second_, std::move(options), *progress, stop_on_signals());
    for (const std::string& w : report.warnings) progress->warn(w);
    if (json_) {
      print_json(report, tolerance, out);
      return report.is_same() ? 0 : 1;
    }
    if (!read_.progress.quiet) print_report(report, static_cast<size_t>(top), out);
    if (report.is_same()) return 0;
    out.flush();
    Error e = refused("diff.different", difference_text(report)).in_file(first_);
    if (report.compared == 0 && !report.missing.empty() && !report.extra.empty())
      e.hint("no name of A is one of B: --map or --as renames A's");
    throw e;
  }

 private:
  // A file that is there is one, whatever its name.
  static void add_map(NameMap& map, const std::string& text) {
    std::error_code ignored;
    std::filesystem::exists(text, ignored) ? map.add_file(text) : map.add(text);
  }

  // Layers on one line, as `ls` has them.
  void print_names(std::string_view title, const std::vector<TensorPair>& pairs, size_t top, Out& out,
                   std::string (*facts)(const TensorPair&)) const {
    std::vector<NamedItem> items;
    for (const TensorPair& pair : pairs) items.push_back({path_text(pair), facts(pair)});
    const std::vector<NameGroup> groups = collapse_names(items);
    for (size_t i = 0; i < groups.size() && i < top; ++i) {
      const size_t times = groups[i].members.size();
      out.line(escape(cat(title, groups[i].name, times > 1 ? cat(" ×", times) : std::string(), ": ",
                          items[groups[i].members.front()].facts),
                      400));
    }
    print_rest(groups.size(), top, out);
  }
  static void print_rest(size_t all, size_t top, Out& out) {
    if (all > top) out.line(cat("… and ", all - top, " more lines (--top ", all, " shows them)"));
  }

  void print_report(const DiffReport& r, size_t top, Out& out) const {
    print_names("missing in B: ", r.missing, top, out,
                [](const TensorPair& p) { return facts_of(p.dtype, p.shape, p); });
    print_names("extra in B: ", r.extra, top, out,
                [](const TensorPair& p) { return facts_of(p.second_dtype, p.second_shape, p); });
    print_names("other shape: ", r.shapes, top, out, [](const TensorPair& p) {
      return cat(shape_text(p.shape), " in A, ", shape_text(p.second_shape), " in B");
    });
    print_names("other type: ", r.dtypes, top, out, [](const TensorPair& p) {
      return cat(name_of(p.dtype), " in A, ", name_of(p.second_dtype), " in B");
    });
    print_different(r.different, top, out);
    for (size_t i = 0; i < r.other_bits.size() && i < top; ++i)
      out.line(escape(cat("other bits: ", path_text(r.other_bits[i]), ": ",
                          human_count(static_cast<uint64_t>(r.other_bits[i].found.bits)), " of ",
                          human_count(static_cast<uint64_t>(r.other_bits[i].elements)),
                          " elements: the same numbers (zeros of two signs, or NaNs of two kinds)"),
                      400));
    print_rest(r.other_bits.size(), top, out);
    print_total(r, out);
  }

  static void print_different(const std::vector<ComparedPair>& pairs, size_t top, Out& out) {
    if (pairs.empty()) return;
    using enum Table::Align;
    Table table({kLeft, kRight, kRight, kRight, kRight, kRight, kLeft, kRight, kRight});
    if (top > 0)
      table.row({"DIFFERENT", "ELEMENTS", "OF", "NOT FINITE", "MAX |A-B|", "MAX |A-B|/|B|", "AT", "A", "B"});
    for (size_t i = 0; i < pairs.size() && i < top; ++i) {
      const ComparedPair& pair = pairs[i];
      const kernels::ValueDifferences& f = pair.found;
      const auto& place = pair.unlike ? pair.unlike : pair.largest ? pair.largest : pair.any;
      table.row({path_text(pair), human_count(static_cast<uint64_t>(f.different)),
                 human_count(static_cast<uint64_t>(pair.elements)),
                 human_count(static_cast<uint64_t>(f.unlike)),
                 pair.largest ? short_number(f.max_absolute) : "-",
                 pair.largest_relative ? short_number(f.max_relative) : "-", shape_text(place->index),
                 place->first, place->second});
    }
    table.print(out);
    print_rest(pairs.size(), top, out);
  }

  static void print_total(const DiffReport& r, Out& out) {
    std::string text = cat(counted(r.compared, "tensor"), " compared, ", counted(r.elements, "element"), ", ",
                           human_bytes(static_cast<uint64_t>(r.bytes)), " read: ", r.same, " the same");
    if (!r.within.empty())
      text +=
          cat(", ", r.within.size(), " within the tolerance (|a - b| at most ",
              short_number(r.within.front().found.max_within), ", ", escape(r.within.front().path, 100), ")");
    if (!r.other_bits.empty()) text += cat(", ", r.other_bits.size(), " equal in other bits");
    if (!r.different.empty()) text += cat(", ", r.different.size(), " different");
    out.line(text + "; only tensors are compared, no objects and settings");
  }

  std::string difference_text(const DiffReport& r) const {
    std::vector<std::string> parts;
    const auto part = [&](size_t count, std::string_view what) {
      if (count > 0) parts.push_back(cat(counted(static_cast<int64_t>(count), "tensor"), " ", what));
    };
    part(r.missing.size(), "missing");
    part(r.extra.size(), "extra");
    part(r.shapes.size(), "of another shape");
    part(r.dtypes.size(), "of another type");
    part(r.different.size(), "of other values");
    if (r.exact) part(r.other_bits.size(), "of other bits");
    return cat(escape(second_, 150), " differs from it: ", joined(parts));
  }

  void print_json(const DiffReport& r, const std::optional<kernels::Tolerance>& tolerance, Out& out) const {
    out.print(cat("{\"uckpt\": 1,\n \"a\": ", json_string(first_), ",\n \"b\": ", json_string(second_),
                  ",\n \"same\": ", r.is_same(), ",\n \"tolerance\": "));
    out.print(tolerance ? cat("{\"rtol\": ", tolerance->relative, ", \"atol\": ", tolerance->absolute, "}")
                        : std::string("null"));
    out.print(cat(",\n \"tensors\": ", r.tensors, ", \"compared\": ", r.compared,
                  ", \"elements\": ", r.elements, ", \"bytes\": ", r.bytes, ", \"equal\": ", r.same));
    const auto list = [&](std::string_view key, const auto& pairs, const auto& text_of) {
      out.print(cat(",\n \"", key, "\": ["));
      for (size_t i = 0; i < pairs.size(); ++i)
        out.print(cat(i > 0 ? "," : "", "\n  {", text_of(pairs[i]), "}"));
      out.print("]");
    };
    list("missing", r.missing, json_pair);
    list("extra", r.extra, json_pair);
    list("shape", r.shapes, json_pair);
    list("dtype", r.dtypes, json_pair);
    list("different", r.different, json_compared);
    list("other_bits", r.other_bits, json_compared);
    list("within", r.within, json_compared);
    out.line(cat(",\n \"not_compared\": [\"objects\", \"settings\"],\n \"warnings\": ",
                 json_strings(r.warnings), "}"));
  }

  std::string first_, second_, relative_, absolute_, top_, from_b_;
  std::vector<std::string> map_;
  bool ignore_dtype_ = false, json_ = false;
  RuleFlags rules_b_;
  ReadFlags read_;
};

}  // namespace

std::unique_ptr<Verb> make_diff() { return std::make_unique<Diff>(); }

}  // namespace uckpt::cli
