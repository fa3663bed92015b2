#include "tools/plan_page.h"

#include "lib/base/text.h"
#include "lib/tensor/collapse.h"
#include "tools/summary.h"

namespace uckpt::cli {
namespace {

std::string size_text(int64_t bytes) { return human_bytes(static_cast<uint64_t>(bytes)); }

// "Extract 4 pieces of 2 files, Union 2 dp shards, flat; compare 1 copy"
std::string recipe_text(const TensorRecipe& r) {
  if (!r.alias_of.empty()) return cat("link to ", r.alias_of);
  std::string text = cat("Extract ", counted(r.pieces, "piece"), " of ", counted(r.files, "file"));
  if (!r.how.empty() && (r.pieces > 1 || r.mean_of > 1)) text += cat(", Union ", r.how);
  if (!r.how.empty() && r.pieces <= 1 && r.mean_of == 1) text += cat(", ", r.how);
  if (r.mean_of > 1) text += cat(", mean of ", r.mean_of);
  if (r.how.find(" pad(") != std::string::npos) text += ", StripPad";
  if (r.copies > 0) text += cat("; compare ", r.copies, r.copies == 1 ? " copy" : " copies");
  return text;
}

void print_totals(const PlanSummary& p, Out& out) {
  using enum Table::Align;
  Table table({kLeft, kLeft});
  table.row({"from", p.kind});
  table.row({"to", p.to});
  table.row({"read", cat(size_text(p.bytes_in), " of ", counted(p.files_in, "file"))});
  if (p.bytes_compared > 0) table.row({"compare", cat(size_text(p.bytes_compared), " of it")});
  table.row({"write", cat(size_text(p.bytes_out), " in ", counted(p.tensors, "tensor"))});
  if (p.links > 0) table.row({"link", counted(p.links, "tied tensor")});
  if (p.objects > 0) table.row({"keep", counted(p.objects, "other object")});
  table.row({"copies", human_count(static_cast<uint64_t>(p.moves))});
  table.row({"memory", cat("at most ", size_text(p.peak_memory))});
  table.print(out);
}

void print_recipes(const PlanSummary& p, bool all, Out& out) {
  std::vector<NamedItem> items;
  for (const TensorRecipe& r : p.recipes) items.push_back({r.path, cat(r.dtype, r.shape, recipe_text(r))});
  std::vector<NameGroup> groups;
  if (all) {
    for (size_t i = 0; i < items.size(); ++i) groups.push_back({items[i].name, {i}});
  } else {
    groups = collapse_names(items);
  }
  using enum Table::Align;
  Table table({kLeft, kLeft, kLeft, kLeft, kRight});
  table.row({"SAVE", "DTYPE", "SHAPE", "HOW", "BYTES"});
  for (const NameGroup& g : groups) {
    const TensorRecipe& r = p.recipes[g.members.front()];
    const auto times = static_cast<int64_t>(g.members.size());
    table.row({times > 1 ? cat(g.name, " ×", times) : g.name, r.dtype, r.shape, recipe_text(r),
               size_text(capped_mul(r.bytes, times))});
  }
  out.line("");
  table.print(out);
}

}  // namespace

void print_plan(const PlanSummary& plan, bool all, Out& out) {
  for (const std::string& w : plan.warnings) print_warning(w);
  print_totals(plan, out);
  if (!plan.recipes.empty()) print_recipes(plan, all, out);
}

void print_plan_json(const PlanSummary& p, Out& out) {
  out.print(cat("{\"uckpt\": 1,\n \"kind\": ", json_string(p.kind), ",\n \"to\": ", json_string(p.to),
                ",\n \"tensors\": ", p.tensors, ",\n \"links\": ", p.links, ",\n \"objects\": ", p.objects,
                ",\n \"files_in\": ", p.files_in, ",\n \"bytes_in\": ", p.bytes_in,
                ",\n \"bytes_out\": ", p.bytes_out, ",\n \"bytes_compared\": ", p.bytes_compared,
                ",\n \"copies\": ", p.moves, ",\n \"peak_memory\": ", p.peak_memory,
                ",\n \"warnings\": ", json_strings(p.warnings), ",\n \"recipes\": ["));
  for (size_t i = 0; i < p.recipes.size(); ++i) {
    const TensorRecipe& r = p.recipes[i];
    out.print(cat(i > 0 ? "," : "", "\n  {\"tensor\": ", json_string(r.path),
                  ", \"dtype\": ", json_string(r.dtype), ", \"shape\": ", r.shape, ", \"bytes\": ", r.bytes,
                  ", \"pieces\": ", r.pieces, ", \"files\": ", r.files, ", \"mean_of\": ", r.mean_of,
                  ", \"compared\": ", r.copies, ", \"how\": ", json_string(r.how)));
    if (!r.alias_of.empty()) out.print(cat(", \"link_to\": ", json_string(r.alias_of)));
    out.print("}");
  }
  out.line("]}");
}

}  // namespace uckpt::cli
