// uckpt devices: what `--device` can name, and how fast it is.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <vector>

#include "lib/base/text.h"
#include "lib/exec/direct_files.h"
#include "lib/exec/pick_device.h"
#include "lib/exec/workers.h"
#include "tools/output.h"
#include "tools/summary.h"
#include "tools/verb.h"

namespace uckpt::cli {
namespace {

struct Found {
  kernels::DeviceInfo info;
  exec::DeviceRates rates;
  std::string trouble;         // why there are none
  std::string why_not_direct;  // GPUDirect Storage with the files here; empty: it is used
};

std::string number_text(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string rate_text(double rate) {
  if (rate <= 0) return "";
  const double giga = rate / 1e9;
  return number_text(giga < 100 ? "%.2f" : "%.0f", giga);
}

// Opened, measured and closed again; a device that does not work is told of.
Found probed(const kernels::DeviceInfo& info, const exec::ProbeOptions& how) {
  Found found{info, {}, "", ""};
  try {
    const exec::OpenedDevice opened = exec::open_timed(info.number, how);
    found.rates = exec::probe_device(*opened.device, how);
    found.rates.start_up = opened.seconds;
    found.why_not_direct = exec::why_not_direct(*opened.device, how.folder);
  } catch (const Error& e) {
    found.trouble = e.message();
  }
  return found;
}

void print_devices(const kernels::Devices& devices, Out& out) {
  if (devices.found.empty()) return out.line(cat("no device: ", devices.why_none));
  using enum Table::Align;
  Table table({kLeft, kLeft, kRight, kRight, kRight});
  table.row({"DEVICE", "NAME", "CAPABILITY", "MEMORY", "FREE"});
  for (const kernels::DeviceInfo& d : devices.found)
    table.row({exec::name_of_device(d.number), d.name, cat(d.major, ".", d.minor), size_text(d.memory),
               size_text(d.free_memory)});
  table.print(out);
}

void print_rates(const exec::HostRates& host, const std::vector<Found>& devices, Out& out) {
  using enum Table::Align;
  std::vector<Table::Align> columns(2 + devices.size(), kRight);
  columns[0] = kLeft;
  Table table(std::move(columns));
  const auto row = [&](std::string what, std::string of_cpu, const auto& of_device) {
    std::vector<std::string> cells{std::move(what), std::move(of_cpu)};
    for (const Found& d : devices) cells.push_back(of_device(d.rates));
    table.row(std::move(cells));
  };
  const auto none = [](const exec::DeviceRates&) { return std::string(); };
  std::vector<std::string> head{"GB/s", "CPU THREAD"};
  for (const Found& d : devices) head.push_back(exec::name_of_device(d.info.number));
  table.row(std::move(head));
  row("memcpy", rate_text(host.copy), none);
  row("transpose", rate_text(host.strided), [](const auto& r) { return rate_text(r.strided); });
  row("fp32 to bf16", rate_text(host.cast), [](const auto& r) { return rate_text(r.cast); });
  row("write here", rate_text(host.write.one), none);
  row("all threads at once", rate_text(host.write.all), none);
  if (!devices.empty()) {
    row("upload", "", [](const auto& r) { return rate_text(r.upload); });
    row("download", "", [](const auto& r) { return rate_text(r.download); });
    row("start-up", "", [](const auto& r) {
      return r.start_up > 0 ? number_text("%.0f ms", 1e3 * r.start_up) : std::string();
    });
  }
  out.line("");
  table.print(out);
}

std::string json_of(const exec::HostRates& host, bool has_rates) {
  std::string text = cat(R"({"threads": )", host.threads);
  if (has_rates)
    text += cat(R"(, "memcpy": )", json_number(host.copy), R"(, "strided": )", json_number(host.strided),
                R"(, "cast": )", json_number(host.cast), R"(, "write": )", json_number(host.write.one),
                R"(, "write_on_all_threads": )", json_number(host.write.all));
  return text + "}";
}

std::string json_of(const Found& d, bool has_rates) {
  std::string text = cat(R"({"device": )", json_string(exec::name_of_device(d.info.number)), R"(, "name": )",
                         json_string(d.info.name), R"(, "capability": ")", d.info.major, ".", d.info.minor,
                         R"(", "memory": )", d.info.memory, R"(, "free_memory": )", d.info.free_memory);
  if (!d.trouble.empty()) {
    text += cat(R"(, "trouble": )", json_string(d.trouble));
  } else if (has_rates) {
    text +=
        cat(R"(, "upload": )", json_number(d.rates.upload), R"(, "download": )",
            json_number(d.rates.download), R"(, "strided": )", json_number(d.rates.strided), R"(, "cast": )",
            json_number(d.rates.cast), R"(, "start_up": )", json_number(d.rates.start_up),
            R"(, "gpu_direct": )", d.why_not_direct.empty() ? "true" : "false");
    if (!d.why_not_direct.empty()) text += cat(R"(, "why_not_direct": )", json_string(d.why_not_direct));
  }
  return text + "}";
}

class Devices final : public Verb {
 public:
  std::string_view name() const override { return "devices"; }
  std::string_view summary() const override { return "List what can compute, and measure it"; }
  std::string_view usage() const override { return ""; }
  std::string_view examples() const override {
    return "  uckpt devices                 GPUs, and how fast they and the CPU are, in a second or two\n"
           "  uckpt devices --no-probe      only what there is\n"
           "  uckpt devices --json          rates in bytes a second\n";
  }
  void add_flags(CLI::App& app) override {
    app.add_flag("--no-probe", no_probe_, "Measure nothing");
    app.add_flag("--json", json_, "Answer in JSON");
  }
  int run(Out& out) override {
    const kernels::Devices devices = kernels::find_devices();
    exec::ProbeOptions how;
    how.threads = exec::default_threads();
    how.folder = ".";
    exec::HostRates host;
    host.threads = how.threads;
    std::vector<Found> found;
    if (!no_probe_) host = exec::probe_host(how);
    for (const kernels::DeviceInfo& d : devices.found)
      found.push_back(no_probe_ ? Found{d, {}, "", ""} : probed(d, how));
    json_ ? print_json_answer(devices, host, found, out) : print_answer(devices, host, found, out);
    return 0;
  }

 private:
  void print_answer(const kernels::Devices& devices, const exec::HostRates& host,
                    const std::vector<Found>& found, Out& out) const {
    print_devices(devices, out);
    out.line(cat("CPU: ", counted(host.threads, "thread")));
    if (!no_probe_) print_rates(host, found, out);
    for (const Found& d : found)
      if (!no_probe_ && d.trouble.empty())
        out.line(
            cat(exec::name_of_device(d.info.number), ": with --direct GPUDirect Storage is ",
                d.why_not_direct.empty() ? "used here" : cat("not used here, because ", d.why_not_direct)));
    for (const Found& d : found)
      if (!d.trouble.empty())
        print_warning(cat(exec::name_of_device(d.info.number), " does not work: ", d.trouble));
  }
  void print_json_answer(const kernels::Devices& devices, const exec::HostRates& host,
                         const std::vector<Found>& found, Out& out) const {
    out.print(R"({"uckpt": 1, "devices": [)");
    for (size_t i = 0; i < found.size(); ++i)
      out.print(cat(i > 0 ? ", " : "", json_of(found[i], !no_probe_)));
    out.print("]");
    if (found.empty()) out.print(cat(R"(, "why_none": )", json_string(devices.why_none)));
    out.line(cat(R"(, "cpu": )", json_of(host, !no_probe_), "}"));
  }

  bool no_probe_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_devices() { return std::make_unique<Devices>(); }

}  // namespace uckpt::cli
