#include "tools/plan_page.h"

#include "lib/base/text.h"
#include "lib/tensor/collapse.h"
#include "tools/summary.h"
#include "tools/target_page.h"

namespace uckpt::cli {
namespace {

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

// What the target's files hold beside what is copied, and what is proved of them.
void print_target_totals(const PlanSummary& p, Table& table) {
  int64_t cast = 0, zeros = 0, fixed = 0, late = 0, made = 0;
  for (const PlannedFile& file : p.files) {
    zeros += file.zeros(), fixed += file.fixed, late += file.late_fields;
    made += file.is_made ? 1 : 0;
    for (const PlannedPart& part : file.parts)
      cast += p.shards[part.shard].dtype != part.dtype ? part.bytes : 0;
  }
  if (cast > 0) table.row({"cast", cat(size_text(cast), " of what is written")});
  if (fixed > 0) table.row({"around", cat(size_text(fixed), " of headers, pickles and other text")});
  if (zeros > 0) table.row({"zeros", cat(size_text(zeros), " of padding")});
  if (late > 0) table.row({"late", counted(late, "checksum field")});
  table.row({"proved",
             cat("each element of ", counted(p.tensors, "tensor"), " once",
                 made > 0 ? std::string() : cat(", each byte of ", counted(p.files_out, "file"), " once"))});
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
  print_target_totals(p, table);
  table.row({"memory", cat("at most ", size_text(p.peak_memory))});
  if (!p.device.empty()) table.row({"device", cat(p.device, " (", p.device_why, ")")});
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
  print_target(plan, all, out);
}

}  // namespace uckpt::cli
