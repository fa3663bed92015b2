#include "tools/options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <limits>
#include <optional>

#include "lib/base/checked.h"
#include "lib/base/memory.h"
#include "lib/base/text.h"
#include "lib/formats/writer.h"
#include "tools/output.h"

namespace uckpt::cli {
namespace {

// The number at the start of `text`, which is moved behind it.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t value = 0;
  if (text.empty() || text.front() < '0' || text.front() > '9') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

std::optional<int64_t> unit_of(std::string_view suffix) {
  if (suffix.empty()) return 1;
  const size_t power = std::string_view("KMGT").find(suffix.front());
  suffix.remove_prefix(1);
  if (power == std::string_view::npos || !(suffix.empty() || suffix == "iB")) return std::nullopt;
  return int64_t{1} << (10 * (power + 1));
}

}  // namespace

int64_t parse_size(std::string_view flag, std::string_view text) {
  std::string_view rest = text;
  const std::optional<int64_t> number = take_number(rest);
  const std::optional<int64_t> unit = unit_of(rest);
  const std::optional<int64_t> size = number && unit ? checked_mul(*number, *unit) : std::nullopt;
  if (!size || *size == 0) {
    throw trouble("usage.size",
                  cat(flag, ": expected a size such as 512M or 16G, found `", escape(text), "`"));
  }
  return *size;
}

exec::DeviceChoice parse_device(std::string_view flag, std::string_view text) {
  using Choice = exec::DeviceChoice;
  if (text == "auto") return {Choice::kAuto, 0};
  if (text == "cpu") return {Choice::kCpu, 0};
  if (text == "cuda") return {Choice::kCuda, 0};
  constexpr std::string_view kCuda = "cuda:";
  constexpr int64_t kMost = 1023;
  if (text.starts_with(kCuda)) {
    std::string_view rest = text.substr(kCuda.size());
    const std::optional<int64_t> number = take_number(rest);
    if (number && rest.empty() && *number <= kMost) return {Choice::kCuda, static_cast<int>(*number)};
  }
  throw trouble("usage.device",
                cat(flag, ": expected auto, cpu or cuda:N, such as cuda:0, found `", escape(text, 60), "`"));
}

int64_t parse_duration(std::string_view flag, std::string_view text) {
  std::string_view rest = text;
  const std::optional<int64_t> number = take_number(rest);
  const std::map<std::string_view, int64_t> units = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
  const auto unit = units.find(rest);
  const auto seconds =
      number && unit != units.end() ? checked_mul(*number, unit->second) : std::optional<int64_t>();
  if (!seconds || *seconds == 0)
    throw trouble("usage.duration",
                  cat(flag, ": expected a time such as 90s, 30m or 8h, found `", escape(text, 60), "`"));
  return *seconds;
}

int64_t parse_count(std::string_view flag, std::string_view text, int64_t least) {
  std::string_view rest = text;
  const std::optional<int64_t> number = take_number(rest);
  if (!number || !rest.empty() || *number < least) {
    throw trouble("usage.number",
                  cat(flag, ": expected a whole number from ", least, " up, found `", escape(text), "`"));
  }
  return *number;
}

// A plan holds every rank, so that a mistyped size would take all memory before anything is said of it.
constexpr int64_t kMostRanks = 1'000'000;

std::map<std::string, int64_t, std::less<>> parse_layout(std::string_view flag, std::string_view text) {
  std::map<std::string, int64_t, std::less<>> sizes;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view item = rest.substr(0, comma);
    rest.remove_prefix(comma == rest.size() ? comma : comma + 1);
    const size_t equals = item.find('=');
    const bool ends_in_comma = rest.empty() && text.back() == ',';
    if (equals == std::string_view::npos || equals == 0 || ends_in_comma) {
      throw trouble("usage.layout", cat(flag, ": expected sizes of a mesh such as tp=2,pp=4, found `",
                                        escape(text, 100), "`"));
    }
    const std::string name(item.substr(0, equals));
    const int64_t size = parse_count(cat(flag, " ", escape(name, 60)), item.substr(equals + 1), 0);
    if (size > kMostRanks) {
      throw trouble("usage.layout", cat(flag, " ", escape(name, 60), ": expected at most ", kMostRanks,
                                        " ranks, found ", size));
    }
    if (!sizes.emplace(name, size).second)
      throw trouble("usage.layout", cat(flag, ": the size of ", escape(name, 60), " is given twice"));
  }
  return sizes;
}

std::vector<int64_t> parse_counts(std::string_view flag, std::string_view text) {
  std::vector<int64_t> out;
  for (size_t at = 0; !text.empty() && at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    out.push_back(parse_count(flag, text.substr(at, comma - at), 1));
    at = comma + 1;
  }
  return out;
}

void require(const std::string& argument, std::string_view name) {
  if (argument.empty()) throw trouble("usage.missing", cat(name, " is missing"));
}

void OpenFlags::add(CLI::App& app) {
  std::string kinds;
  for (const Format& f : formats()) kinds += cat(kinds.empty() ? "" : ", ", f.name);
  app.add_option("--from", from, cat("Take the input for this kind: ", kinds))->type_name("KIND");
  app.add_option("--limit", limits, "Raise a safety limit that a message named; may be repeated")
      ->type_name("NAME=N")
      ->type_size(1)
      ->allow_extra_args(false);
}

OpenOptions OpenFlags::checked() const {
  OpenOptions options;
  options.from = from;
  for (const std::string& limit : limits) {
    const size_t equals = limit.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw trouble("usage.limit", cat("--limit: expected NAME=N, found `", escape(limit), "`"));
    }
    const std::string name = limit.substr(0, equals);
    options.limits.set(name, parse_size(cat("--limit ", escape(name)), limit.substr(equals + 1)));
  }
  return options;
}

void RuleFlags::add(CLI::App& app) {
  app.add_option("--spec", spec,
                 "Rules that join the input's fragments: a UCL file, or the name of a shipped spec")
      ->type_name("SPEC");
  app.add_option("--naming", naming, "Which of the spec's namings (layouts) the input has")
      ->type_name("NAME");
  app.add_option("--as", as, "Rename and regroup into this naming of the spec")->type_name("NAMING");
  app.add_option("--set", set, "Give a size of the spec's `given` or `where`; may be repeated")
      ->type_name("NAME=N")
      ->type_size(1)
      ->allow_extra_args(false);
}

RuleOptions RuleFlags::checked() const {
  RuleOptions options;
  options.spec = spec;
  options.naming = naming;
  options.as = as;
  for (const std::string& text : set) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw trouble("usage.set", cat("--set: expected NAME=N, found `", escape(text), "`"));
    const std::string name = text.substr(0, equals);
    options.set[name] = parse_count(cat("--set ", escape(name)), text.substr(equals + 1), 0);
  }
  return options;
}

void SelectFlags::add(CLI::App& app) {
  const auto globs = [&](const char* flag, std::vector<std::string>& list, const char* text) {
    app.add_option(flag, list, text)->type_name("GLOB")->type_size(1)->allow_extra_args(false);
  };
  globs("--select", selection.select, "Only tensors whose name or state/name matches; may be repeated");
  globs("--drop", selection.drop, "Leave out tensors whose name or state/name matches; may be repeated");
  app.add_option("--states", selection.states, "Only these states: fp32,exp_avg,param,…")
      ->type_name("LIST")
      ->delimiter(',')
      ->allow_extra_args(false);
}

void ProgressFlags::add(CLI::App& app) {
  app.add_option("--progress", mode, "auto, bar, plain (a line each 30 s), json or none")->type_name("MODE");
  app.add_flag("-q,--quiet", quiet, "Say nothing but errors");
}

ProgressMode ProgressFlags::checked() const {
  const std::optional<ProgressMode> checked = progress_mode(mode);
  if (!checked) {
    throw trouble("usage.progress",
                  cat("--progress: expected auto, bar, plain, json or none, found `", escape(mode), "`"));
  }
  return quiet ? ProgressMode::kNone : *checked;
}

namespace {

std::string kinds_text() {
  std::string kinds, by_name;
  for (const Writer& w : writers()) {
    kinds += cat(kinds.empty() ? "" : ", ", w.name);
    for (const std::string_view e : w.extensions) by_name += cat(by_name.empty() ? "" : ", ", e);
  }
  return cat("Kind of output: ", kinds, " (by default from OUT's extension: ", by_name, ")");
}

}  // namespace

void PlanFlags::add(CLI::App& app) {
  app.add_option("IN", in, "A checkpoint: folder or file")->type_name("");
  app.add_option("OUT", out, "The file or folder to make")->type_name("");
  app.add_option("--to", to, kinds_text())->type_name("KIND");
  app.add_option("--layout", layout,
                 "Mesh of the output, such as dp=3,zero=3; what is not said is as in the input")
      ->type_name("SIZES");
  app.add_option("--stages", stages,
                 "Layers of each pipeline stage of the output, such as 6,8,8,6; by default they are balanced")
      ->type_name("LAYERS");
  app.add_option("--dtype", dtypes,
                 "Type to write weights in: fp32, bf16, fp16, f8_e4m3, f8_e5m2 or keep; TYPE:PATTERN for "
                 "some of them; may be repeated, the first that matches wins")
      ->type_name("TYPE")
      ->type_size(1)
      ->allow_extra_args(false);
  app.add_option("--shard-size", shard_size, "Bytes of one output file at most, where there may be several")
      ->type_name("SIZE");
  app.add_option("--missing", missing,
                 "zero: what the output needs and the input lacks (masters, optimizer states, groups) begins "
                 "as for a new optimizer")
      ->type_name("zero");
  rules.add(app);
  open.add(app);
  select.add(app);
  app.add_flag("--no-crc", no_crc, "Do not check the checksums of the input");
  app.add_flag("--trust-copies", trust_copies,
               "Do not compare replicas and module weights with what is written");
  app.add_flag("--allow-expand", allow_expand, "Write out views far larger than their bytes in the input");
}

std::vector<std::string> PlanFlags::request() const {
  std::vector<std::string> out_list;
  const auto one = [&](std::string_view flag, const std::string& value) {
    if (!value.empty()) out_list.push_back(cat(flag, "=", value));
  };
  const auto each = [&](std::string_view flag, const std::vector<std::string>& values) {
    for (const std::string& value : values) one(flag, value);
  };
  const auto flag = [&](std::string_view name, bool is_set) {
    if (is_set) out_list.emplace_back(name);
  };
  one("--to", to), one("--layout", layout), one("--stages", stages), each("--dtype", dtypes),
      one("--shard-size", shard_size);
  one("--missing", missing);
  one("--spec", rules.spec), one("--naming", rules.naming), one("--as", rules.as), each("--set", rules.set);
  one("--from", open.from), each("--limit", open.limits);
  each("--select", select.selection.select), each("--drop", select.selection.drop);
  each("--states", select.selection.states);
  flag("--no-crc", no_crc), flag("--trust-copies", trust_copies), flag("--allow-expand", allow_expand);
  out_list.insert(out_list.end(), {"--", in, out});
  return out_list;
}

bool PlanFlags::is_only_paths() const { return request().front() == "--"; }

PlanFlags PlanFlags::from_request(const std::vector<std::string>& request) {
  PlanFlags flags;
  CLI::App app;
  app.set_help_flag();
  flags.add(app);
  std::vector<std::string> reversed(request.rbegin(), request.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& e) {
    throw refused("plan.request", cat("the request in it is not one that `uckpt plan` takes: ", e.what()));
  }
  // What is read back must be what stands there: no argument means two things.
  if (flags.request() != request)
    throw refused("plan.request", "the request in it is not as `uckpt plan -o` writes one");
  return flags;
}

void ResourceFlags::add(CLI::App& app) {
  app.add_option("-j,--threads", threads, "Threads that copy (default: one a core)")->type_name("N");
  app.add_option("--max-mem", max_mem, "Memory to use at most, such as 512M or 16G (default: a quarter)")
      ->type_name("SIZE");
}

int ResourceFlags::checked_threads() const {
  constexpr int64_t kMost = 4096;
  return threads.empty() ? 0 : static_cast<int>(std::min(kMost, parse_count("-j", threads, 1)));
}

int64_t ResourceFlags::checked_max_mem() const {
  return max_mem.empty() ? 0 : parse_size("--max-mem", max_mem);
}

void ResourceFlags::hold_to() const {
  limit_memory(max_mem.empty() ? default_max_mem() : checked_max_mem(), checked_threads());
}

void ConvertFlags::add(CLI::App& app) {
  PlanFlags::add(app);
  resources.add(app);
  app.add_option("--device", device,
                 "What turns, casts and averages: auto (the CPU, or a GPU where it is faster), cpu or cuda:N")
      ->type_name("DEVICE");
  app.add_flag("-f,--force", force, "Replace OUT if it exists");
  app.add_flag("--restart", restart, "Begin anew where an interrupted run could be continued");
  app.add_option("--manifest", manifest, "Also keep the digest of every tensor, as `uckpt sum OUT` tells it")
      ->type_name("FILE");
  app.add_flag("--verify", verify, "Read the output back and compare its digests");
  app.add_flag(
      "--no-verify", no_verify,
      "Neither check the checksums of the input nor digest what is written, where the output holds none");
  app.add_flag("--no-sync", no_sync, "Do not wait until the output is on the disk");
  app.add_flag("--direct", direct,
               "Write past the page cache: for outputs larger than the memory that is free");
}

namespace {

// The first rule that takes a name wins: behind one that takes every name the others would do nothing.
std::vector<DTypeRules::Rule> parse_dtypes(const std::vector<std::string>& texts) {
  std::vector<DTypeRules::Rule> rules;
  for (const std::string& text : texts) {
    if (!rules.empty() && rules.back().names.empty())
      throw trouble("usage.dtype", cat("--dtype: `", escape(text, 60), "` changes nothing behind `",
                                       rules.back().typed, "`, which takes every weight"))
          .hint(
              "the first that matches wins: types of some weights (TYPE:PATTERN) stand before the one of "
              "all");
    rules.push_back(parse_dtype_rule(text));
  }
  return rules;
}

// The report of the run goes to standard output.
const std::string& manifest_file(const std::string& path) {
  if (is_stdout(path))
    throw trouble("usage.manifest", "--manifest: expected a file, found `-`")
        .hint("`uckpt sum OUT` prints the same digests; `./-` is a file of that name");
  return path;
}

}  // namespace

ConvertOptions ConvertFlags::checked() const {
  require(in, "IN");
  require(out, "OUT");
  ConvertOptions options;
  options.open = open.checked();
  options.rules = rules.checked();
  options.to = to;
  options.selection = select.selection;
  options.dtypes.rules = parse_dtypes(dtypes);
  options.layout = parse_layout("--layout", layout);
  options.stage_sizes = parse_counts("--stages", stages);
  if (!shard_size.empty()) options.shard_size = parse_size("--shard-size", shard_size);
  options.threads = resources.checked_threads();
  options.max_mem = resources.checked_max_mem();
  options.device = parse_device("--device", device);
  if (!missing.empty() && missing != "zero")
    throw trouble("usage.missing", cat("--missing: expected zero, found `", escape(missing, 60), "`"));
  options.missing_zero = !missing.empty();
  if (verify && no_verify) throw trouble("usage.verify", "--verify and --no-verify exclude each other");
  options.check_crc = !no_crc;
  options.digests = !no_verify;
  options.restart = restart;
  options.manifest = manifest_file(manifest);
  options.trust_copies = trust_copies;
  options.sync = !no_sync;
  options.direct = direct;
  options.force = force;
  options.verify = verify;
  options.allow_expand = allow_expand;
  options.created_by = cat("uckpt ", UCKPT_VERSION);
  options.request = request();
  return options;
}

void ReadFlags::add(CLI::App& app) {
  select.add(app);
  rules.add(app);
  open.add(app);
  resources.add(app);
  app.add_flag("--allow-expand", allow_expand, "Read views far larger than their bytes in the input");
  progress.add(app);
}

ReadOptions ReadFlags::checked() const {
  ReadOptions options;
  options.open = open.checked();
  options.open.want_objects = false;
  options.open.allow_expand = allow_expand;
  options.rules = rules.checked();
  options.selection = select.selection;
  options.threads = resources.checked_threads();
  options.max_mem = resources.checked_max_mem();
  return options;
}

std::unique_ptr<Progress> ReadFlags::start() const {
  auto made = make_progress(progress.checked(), progress.quiet);
  resources.hold_to();
  return made;
}

}  // namespace uckpt::cli
