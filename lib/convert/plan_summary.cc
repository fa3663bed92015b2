#include "lib/convert/plan_summary.h"

#include <set>

#include "lib/base/text.h"

namespace uckpt {

namespace {

int64_t files_of(const Catalog& catalog, const Tensor& t) {
  std::set<FileId> files;
  for (const Piece& p : catalog.pieces_of(t.pieces)) files.insert(p.file);
  for (const PieceRange& range : t.averaged_with)
    for (const Piece& p : catalog.pieces_of(range)) files.insert(p.file);
  return static_cast<int64_t>(files.size());
}

// "[0:4/8, 16]": of an axis of 8 the first 4, of one of 16 all.
std::string box_text(std::span<const Axis> axes) {
  std::string text;
  for (const Axis& a : axes) {
    text += text.empty() ? "[" : ", ";
    text += a.extent == a.size ? cat(a.size) : cat(a.start, ":", a.start + a.extent, "/", a.size);
  }
  return text.empty() ? "[]" : text + "]";
}

std::string boxes_text(const TargetLayout& layout, const TargetShard& shard, int64_t numel) {
  constexpr uint32_t kShown = 3;
  std::string text;
  for (uint32_t i = 0; i < shard.pieces; ++i) {
    const TargetPiece& piece = layout.pieces[shard.first_piece + i];
    const std::span<const Axis> axes(layout.axes.data() + piece.axes_at, piece.rank);
    int64_t volume = 1;
    for (const Axis& a : axes) volume *= a.extent;
    if (shard.pieces == 1 && volume == numel && !shard.is_padded) return "";
    if (i == kShown) return cat(text, " and ", shard.pieces - i, " more boxes");
    text += cat(text.empty() ? "" : " + ", box_text(axes));
  }
  return text.empty() ? "none" : text;
}

void summarise_target(const Catalog& catalog, const TargetLayout& layout, PlanSummary& s) {
  for (const TargetShard& shard : layout.shards) {
    const Tensor& t = catalog.tensors[shard.tensor];
    s.shards.push_back({t.path(), t.state, std::string(name_of(t.dtype)), shard.numel,
                        boxes_text(layout, shard, units_of(t))});
  }
  for (const TargetFile& file : layout.files) {
    PlannedFile& planned = s.files.emplace_back();
    planned.name = file.name;
    planned.bytes = file.size;
    planned.is_made = static_cast<bool>(file.make);
    for (const FixedBytes& fixed : file.fixed) planned.fixed += static_cast<int64_t>(fixed.bytes.size());
  }
  for (const Hole& hole : layout.holes) {
    PlannedFile& file = s.files[hole.file];
    file.parts.push_back({hole.shard, file.is_made ? -1 : hole.offset, hole.first, hole.count, hole.bytes(),
                          name_of(hole.dtype), hole.is_copy});
    file.filled += hole.bytes();
  }
  for (const LateChecksum& late : layout.checksums)
    s.files[late.file].late_fields += static_cast<int64_t>(late.places.size());
}

// Calls `see` with each of the tensors that a shard is cut from, and with each other name of one.
template <class See>
void each_written(const Catalog& catalog, std::span<const uint32_t> tensors, const TargetLayout& layout,
                  const See& see) {
  std::vector<bool> written(catalog.tensors.size());
  for (const TargetShard& shard : layout.shards) written[shard.tensor] = true;
  for (const uint32_t i : tensors)
    if (written[catalog.tensors[i].alias.value_or(i)]) see(catalog.tensors[i]);
}

}  // namespace

PlanTotals total_up(const Catalog& catalog, std::span<const uint32_t> tensors, const TargetLayout& layout,
                    const plan::Plan& plan) {
  PlanTotals s;
  s.kind = catalog.kind;
  s.objects = static_cast<int64_t>(catalog.objects.size());
  s.files_in = static_cast<int64_t>(catalog.files.size());
  s.bytes_in = plan.bytes_in;
  s.bytes_out = plan.bytes_out;
  s.bytes_compared = plan.bytes_compared;
  s.moves = static_cast<int64_t>(plan.moves.size());
  s.warnings = catalog.warnings;
  s.warnings.insert(s.warnings.end(), layout.notes.begin(), layout.notes.end());
  s.files_out = static_cast<int64_t>(layout.files.size());
  each_written(catalog, tensors, layout, [&](const Tensor& t) { ++(t.alias ? s.links : s.tensors); });
  return s;
}

PlanSummary summarise(const Catalog& catalog, std::span<const uint32_t> tensors, const TargetLayout& layout,
                      const plan::Plan& plan) {
  PlanSummary s{total_up(catalog, tensors, layout, plan), {}, {}, {}};
  each_written(catalog, tensors, layout, [&](const Tensor& t) {
    s.recipes.push_back({t.path(), std::string(name_of(t.dtype)), shape_text(t.shape),
                         t.alias ? 0 : bytes_of(t), t.pieces.count, static_cast<int64_t>(t.copies.size()),
                         t.layout, t.alias ? catalog.tensors[*t.alias].path() : "", files_of(catalog, t),
                         static_cast<int64_t>(t.averaged_with.size()) + 1});
  });
  summarise_target(catalog, layout, s);
  return s;
}

}  // namespace uckpt
