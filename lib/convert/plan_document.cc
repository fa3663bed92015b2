#include "lib/convert/plan_document.h"

#include <sys/stat.h>

#include <cstdio>
#include <ctime>
#include <filesystem>

#include "lib/base/text.h"
#include "lib/formats/strict_json.h"
#include "lib/io/input.h"
#include "lib/kernels/crc.h"

namespace uckpt {

namespace {

std::string modified_text(const std::string& path) {
  struct stat st {};
  std::tm utc{};
  if (::stat(path.c_str(), &st) != 0 || ::gmtime_r(&st.st_mtim.tv_sec, &utc) == nullptr) return "";
  char date[64], fraction[16];
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(fraction, sizeof fraction, ".%09ldZ", st.st_mtim.tv_nsec);
  return cat(date, fraction);
}

// JSON text, put together piece by piece. Lists have a line an item where these are many.
class Document {
 public:
  std::string take() { return std::move(text_); }

  void key(std::string_view name) { text_ += cat(separator_, json_string(name), ": "), separator_ = ", "; }
  void number(std::string_view name, int64_t value) { key(name), text_ += cat(value); }
  void text(std::string_view name, std::string_view value) { key(name), text_ += json_string(value); }
  void raw(std::string_view name, std::string_view json) { key(name), text_ += json; }
  void texts(std::string_view name, const std::vector<std::string>& items) {
    key(name), text_ += "[";
    for (size_t i = 0; i < items.size(); ++i) text_ += cat(i > 0 ? ", " : "", json_string(items[i]));
    text_ += "]";
  }
  template <class Numbers>
  void numbers(std::string_view name, const Numbers& items) {
    key(name);
    append(items);
  }
  // An item of a list: an object whose members `write` gives.
  template <class Write>
  void item(std::string_view before, const Write& write) {
    text_ += cat(is_first_ ? "" : ",", before);
    is_first_ = true;
    object(write);
    is_first_ = false;
  }
  template <class Write>
  void object(const Write& write) {
    text_ += "{", separator_ = "";
    write();
    text_ += "}", separator_ = ", ";
  }
  template <class Write>
  void list(std::string_view name, const Write& write) {
    key(name), text_ += "[";
    is_first_ = true;
    write();
    text_ += "]";
    separator_ = ", ", is_first_ = false;
  }
  template <class Numbers>
  void list_of_numbers(const Numbers& items) {
    if (!is_first_) text_ += ", ";
    append(items);
    is_first_ = false;
  }
  void new_line() { separator_ = ",\n "; }

 private:
  template <class Numbers>
  void append(const Numbers& items) {
    text_ += "[";
    bool first = true;
    for (const int64_t n : items) text_ += cat(first ? "" : ", ", n), first = false;
    text_ += "]";
  }

  std::string text_, separator_;
  bool is_first_ = true;  // of the innermost list
};

constexpr std::string_view kLine = "\n  ";

class PlanWriter {
 public:
  PlanWriter(const Catalog& catalog, const TargetLayout& layout, const plan::Plan& plan)
      : catalog_(catalog), layout_(layout), plan_(plan) {}

  std::string run(const PlanSummary& s, const DocumentFacts& facts) {
    out_.object([&] {
      head(s, facts);
      section("recipes", s.recipes, [&](const TensorRecipe& r) { recipe(r); });
      section("source", source_files(catalog_, facts.in), [&](const SourceFile& f) {
        out_.text("file", f.name), out_.number("bytes", static_cast<int64_t>(f.bytes));
        out_.text("modified", f.modified);
      });
      read_already();
      files();
      section("shards", layout_.shards, [&](const TargetShard& shard) { this->shard(shard); });
      section("moves", plan_.moves, [&](const plan::Move& m) { move(m); });
      section("compares", plan_.compares, [&](const plan::Move& m) {
        move(m);
        const plan::Compared& compared = plan_.compared[m.compare];
        out_.text("with", catalog_.tensors[compared.tensor].copies[compared.copy].what);
      });
      section("addends", plan_.addends, [&](const plan::Move& m) {
        move(m);
        out_.number("of", m.compare + 1);
      });
    });
    return out_.take() + "\n";
  }

 private:
  void head(const PlanSummary& s, const DocumentFacts& facts) {
    const auto line = [&](auto write) { out_.new_line(), write(); };
    out_.number("uckpt", 1);
    out_.number("plan", static_cast<int64_t>(kPlanVersion));
    line([&] { out_.text("created_by", facts.created_by); });
    line([&] { out_.texts("request", facts.request); });
    line([&] { out_.text("kind", s.kind); });
    line([&] { out_.text("to", s.to); });
    line([&] { out_.number("tensors", s.tensors); });
    out_.number("links", s.links), out_.number("objects", s.objects);
    line([&] { out_.number("files_in", s.files_in); });
    out_.number("bytes_in", s.bytes_in), out_.number("files_out", s.files_out);
    out_.number("bytes_out", s.bytes_out), out_.number("bytes_compared", s.bytes_compared);
    out_.number("copies", s.moves), out_.number("peak_memory", s.peak_memory);
    if (!s.device.empty())
      line([&] { out_.text("device", s.device), out_.text("device_why", s.device_why); });
    line([&] { out_.texts("warnings", s.warnings); });
  }

  template <class Items, class Write>
  void section(std::string_view name, const Items& items, const Write& write) {
    out_.new_line();
    out_.list(name, [&] {
      for (const auto& item : items) out_.item(kLine, [&] { write(item); });
    });
  }

  // What the moves that name no file take.
  void read_already() {
    out_.new_line();
    out_.key("read_already");
    out_.object([&] { digest(catalog_.literals); });
  }

  void digest(ByteSpan bytes) {
    out_.number("bytes", static_cast<int64_t>(bytes.size()));
    out_.text("crc64", hex(kernels::Crc64::finish(kernels::crc64_raw(bytes), bytes.size()), 16));
  }

  void recipe(const TensorRecipe& r) {
    out_.text("tensor", r.path), out_.text("dtype", r.dtype), out_.raw("shape", r.shape);
    out_.number("bytes", r.bytes), out_.number("pieces", r.pieces), out_.number("files", r.files);
    out_.number("mean_of", r.mean_of), out_.number("compared", r.copies), out_.text("how", r.how);
    if (!r.alias_of.empty()) out_.text("link_to", r.alias_of);
  }

  void files() {
    size_t next = 0, late = 0;
    section("files", layout_.files, [&](const TargetFile& file) {
      const auto index = static_cast<uint32_t>(&file - layout_.files.data());
      out_.text("file", file.name);
      if (file.make) {
        out_.text("made_by", "its library");
      } else {
        out_.number("bytes", file.size);
      }
      out_.list("fixed", [&] {
        for (const FixedBytes& f : file.fixed)
          out_.item(" ", [&] {
            out_.number("offset", f.offset);
            digest(f.bytes);
          });
      });
      out_.list("holes", [&] {
        for (; next < layout_.holes.size() && layout_.holes[next].file == index; ++next)
          out_.item("\n    ", [&] { hole(layout_.holes[next], static_cast<bool>(file.make)); });
      });
      out_.list("checksums", [&] {
        for (; late < layout_.checksums.size() && layout_.checksums[late].file == index; ++late)
          out_.item("\n    ", [&] {
            const LateChecksum& c = layout_.checksums[late];
            out_.number("offset", c.offset), out_.number("bytes", c.size);
            out_.numbers("places", c.places);
          });
      });
    });
  }

  void hole(const Hole& h, bool is_made) {
    if (!is_made) out_.number("offset", h.offset);
    out_.number("shard", h.shard), out_.number("first", h.first), out_.number("count", h.count);
    out_.text("dtype", name_of(h.dtype));
    if (h.is_copy) out_.number("copy", 1);
  }

  void shard(const TargetShard& s) {
    const Tensor& t = catalog_.tensors[s.tensor];
    out_.text("tensor", t.path()), out_.text("dtype", name_of(t.dtype)), out_.number("elements", s.numel);
    if (s.is_padded) out_.number("padded", 1);
    if (s.factor != 1) out_.text("factor", cat(s.factor));
    if (s.summand != 0) out_.text("summand", cat(s.summand));
    if (t.factor != 1) out_.text("source_factor", cat(t.factor));
    if (t.summand != 0) out_.text("source_summand", cat(t.summand));
    out_.list("boxes", [&] {
      for (uint32_t i = 0; i < s.pieces; ++i) {
        const TargetPiece& p = layout_.pieces[s.first_piece + i];
        out_.item("", [&] {
          out_.number("at", p.offset);
          if (p.is_copy) out_.number("copy", 1);
          out_.list("axes", [&] {  // size, start, extent, stride
            for (uint32_t a = p.axes_at; a < p.axes_at + p.rank; ++a) {
              const Axis& x = layout_.axes[a];
              out_.list_of_numbers(std::vector{x.size, x.start, x.extent, x.stride});
            }
          });
        });
      }
    });
  }

  void move(const plan::Move& m) {
    out_.number("shard", m.shard), out_.number("at", m.dst_offset);
    m.file == kLiteral ? out_.text("file", "read already") : out_.number("file", m.file);
    out_.number("from", m.src_offset), out_.number("count", m.count);
    out_.numbers("steps", std::vector{m.src_step, m.dst_step});
    if (m.loops > 0)
      out_.list("loops", [&] {  // count, steps
        for (uint32_t l = m.loops_at; l < m.loops_at + m.loops; ++l) {
          const plan::Loop& loop = plan_.loops[l];
          out_.list_of_numbers(std::vector{loop.count, loop.src_stride, loop.dst_stride});
        }
      });
    out_.text("dtype", name_of(m.src_dtype));
    if (m.flags & kByteSwapped) out_.number("byte_swapped", 1);
    if (m.flags & kConjugated) out_.number("conjugated", 1);
    if (m.flags & kNegated) out_.number("negated", 1);
    if (m.is_copy) out_.number("copy", 1);
  }

  const Catalog& catalog_;
  const TargetLayout& layout_;
  const plan::Plan& plan_;
  Document out_;
};

}  // namespace

std::vector<SourceFile> source_files(const Catalog& catalog, const std::string& in) {
  const std::filesystem::path given(in);
  const std::filesystem::path folder = is_folder(in) ? given : given.parent_path();
  std::vector<SourceFile> out;
  for (const auto& file : catalog.files) {
    const std::string relative = std::filesystem::path(file->name()).lexically_relative(folder).string();
    const bool is_inside = !relative.empty() && !relative.starts_with("..");
    out.push_back({is_inside ? relative : file->name(), static_cast<uint64_t>(file->size()),
                   modified_text(file->name())});
  }
  return out;
}

std::string plan_document(const Catalog& catalog, const TargetLayout& layout, const plan::Plan& plan,
                          const PlanSummary& summary, const DocumentFacts& facts) {
  return PlanWriter(catalog, layout, plan).run(summary, facts);
}

}  // namespace uckpt
