#include "tools/target_page.h"

#include <algorithm>
#include <map>

#include "lib/base/text.h"
#include "lib/tensor/collapse.h"
#include "tools/summary.h"

namespace uckpt::cli {
namespace {

constexpr size_t kShownFiles = 24, kShownParts = 3;

// `collapse_names` counts numbers between dots; in the names of files they stand between other marks, too.
constexpr std::string_view kMark = "\x01.", kBack = ".\x01";

bool is_mark(char c) { return c == '_' || c == '-' || c == '/'; }

std::string with_dots(std::string_view name) {
  std::string out;
  for (const char c : name) out += is_mark(c) ? cat(kBack, c, kMark) : std::string(1, c);
  return out;
}

std::string without_dots(std::string text) {
  for (const std::string_view mark : {kMark, kBack})
    for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at))
      text.erase(at, mark.size());
  return text;
}

bool is_whole(const PlanSummary& plan, const PlannedPart& part) {
  const PlannedShard& shard = plan.shards[part.shard];
  return shard.boxes.empty() && part.count == shard.elements;
}

// What a file is given of one state in one type.
struct Content {
  int64_t parts = 0, in_part = 0;
};
using Contents = std::map<std::pair<int, std::string>, Content>;

Contents contents_of(const PlanSummary& plan, const PlannedFile& file) {
  Contents out;
  for (const PlannedPart& part : file.parts) {
    const PlannedShard& shard = plan.shards[part.shard];
    const bool is_cast = shard.dtype != part.dtype;
    const std::string text = cat(shard.state, is_cast ? cat(" as ", part.dtype) : std::string());
    Content& content = out[{state_rank(shard.state), text}];
    ++content.parts;
    content.in_part += is_whole(plan, part) ? 0 : 1;
  }
  return out;
}

std::string range_text(int64_t least, int64_t most) {
  return least == most ? cat(least) : cat(least, "-", most);
}

// "30 fp32, in parts, 30 exp_avg": of one file, or the least and the most of several.
std::string holds_text(const std::vector<Contents>& files) {
  std::string text;
  for (const auto& [key, first] : files.front()) {
    int64_t least = first.parts, most = first.parts;
    bool in_part = false;
    for (const Contents& contents : files) {
      const Content& content = contents.at(key);
      least = std::min(least, content.parts), most = std::max(most, content.parts);
      in_part |= content.in_part > 0;
    }
    const std::string_view of = !in_part ? " " : most == 1 ? " part of " : " parts of ";
    text += cat(text.empty() ? "" : ", ", range_text(least, most), of, key.second);
  }
  return text.empty() ? "no tensor" : text;
}

// Files are put together where they hold the same kinds of things.
std::string facts_of(const Contents& contents) {
  std::string text;
  for (const auto& [key, content] : contents) text += cat(key.second, content.in_part > 0 ? "/" : "", ",");
  return text;
}

std::vector<NameGroup> groups_of(const PlanSummary& plan, const std::vector<Contents>& contents, bool all) {
  std::vector<NamedItem> items;
  for (size_t i = 0; i < plan.files.size(); ++i)
    items.push_back({with_dots(plan.files[i].name), facts_of(contents[i])});
  std::vector<NameGroup> groups;
  if (all) {
    for (size_t i = 0; i < items.size(); ++i) groups.push_back({plan.files[i].name, {i}});
    return groups;
  }
  groups = collapse_names(items);
  for (NameGroup& g : groups) g.name = without_dots(g.name);
  return groups;
}

// "fp32/emb.weight 0:136 of 407": which elements of the tensor, or of the boxes that its owner has.
std::string part_text(const PlanSummary& plan, const PlannedPart& part) {
  const PlannedShard& shard = plan.shards[part.shard];
  std::string text = shard.path;
  if (!shard.boxes.empty()) text += cat(" ", shard.boxes);
  if (part.count != shard.elements)
    text += cat(shard.boxes.empty() ? " " : ", of that ", part.first, ":", part.first + part.count, " of ",
                shard.elements);
  if (shard.dtype != part.dtype) text += cat(" as ", part.dtype);
  if (part.is_copy) text += ", a copy";
  return text;
}

void print_parts(const PlanSummary& plan, const PlannedFile& file, bool all, Out& out) {
  using enum Table::Align;
  Table table({kLeft, kRight, kLeft});
  size_t shown = 0, left = 0;
  for (const PlannedPart& part : file.parts) {
    if (!all && (shown == kShownParts || is_whole(plan, part))) {
      left += is_whole(plan, part) ? 0 : 1;
      continue;
    }
    table.row({part_text(plan, part), size_text(part.bytes),
               all && part.offset >= 0 ? cat("at ", part.offset) : std::string()});
    ++shown;
  }
  table.print(out, "    ");
  if (left > 0) out.line(cat("    and ", left, left == 1 ? " part more" : " parts more"));
}

}  // namespace

void print_target(const PlanSummary& plan, bool all, Out& out) {
  std::vector<Contents> contents;
  for (const PlannedFile& file : plan.files) contents.push_back(contents_of(plan, file));
  const std::vector<NameGroup> groups = groups_of(plan, contents, all);
  out.line("");
  out.line("UCPINFO");
  size_t shown = 0;
  for (const NameGroup& g : groups) {
    if (!all && shown == kShownFiles) break;
    ++shown;
    std::vector<Contents> held;
    int64_t filled = 0, zeros = 0;
    for (const size_t i : g.members) {
      held.push_back(contents[i]);
      filled += plan.files[i].filled, zeros += plan.files[i].zeros();
    }
    const std::string name = g.name.empty() ? "the file" : escape(g.name);
    out.line(cat(name, g.members.size() > 1 ? cat(" ×", g.members.size()) : std::string(), ": ",
                 holds_text(held), filled > 0 ? cat("; ", size_text(filled)) : std::string(),
                 zeros > 0 ? cat(", zeros ", size_text(zeros)) : std::string()));
    print_parts(plan, plan.files[g.members.front()], all, out);
  }
  if (shown < groups.size()) out.line(cat("and ", groups.size() - shown, " files more; -a lists all"));
}

}  // namespace uckpt::cli
