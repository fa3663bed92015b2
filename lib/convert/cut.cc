#include "lib/convert/cut.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/convert/found_spec.h"
#include "lib/convert/whole.h"
#include "lib/layout/distribute.h"

namespace uckpt {

namespace {

int64_t size_of(const ConvertOptions& options, std::string_view axis, int64_t otherwise) {
  const auto found = options.layout.find(axis);
  return found == options.layout.end() ? otherwise : found->second;
}

std::vector<Coordinate> ranks_of(const Catalog& catalog, const Writer& writer,
                                 const ConvertOptions& options) {
  if (writer.ranks) return writer.ranks(catalog, options.layout);
  const int64_t tp = size_of(options, "tp", catalog.mesh.tp);
  if (tp < 1) throw trouble("usage.layout", "--layout tp: expected at least 1 rank");
  return layout::grid_of({{"tp", tp}});
}

MeshSizes sizes_of(const std::vector<Coordinate>& ranks) {
  MeshSizes out;
  for (const Coordinate& at : ranks)
    for (const auto& [axis, place] : at) out[axis] = std::max(out[axis], place + 1);
  return out;
}

class Cutter {
 public:
  Cutter(const Catalog& catalog, const Writer& writer, const ConvertOptions& options)
      : catalog_(catalog), writer_(writer), options_(options), ranks_(ranks_of(catalog, writer, options)) {}

  std::shared_ptr<const Shards> cut(std::span<const uint32_t> tensors) const {
    if (!has_rules()) return nullptr;
    ucl::Diagnostics diagnostics;
    const auto read = spec_of(catalog_, options_.rules, diagnostics);
    if (diagnostics.has_errors()) return problem(diagnostics);
    const std::string naming =
        catalog_.naming.empty() ? choose_naming(*read, options_.rules) : catalog_.naming;
    const ucl::LayoutRef layout = read->layout(naming);
    if (!layout) {
      if (ranks_.size() == 1) return nullptr;
      throw trouble("usage.naming",
                    cat("`", naming, "` has no layout that cuts tensors over ", ranks_.size(), " ranks"));
    }
    std::vector<uint32_t> cut;
    for (const uint32_t t : tensors)
      if (catalog_.tensors[t].state != state::kOther) cut.push_back(t);
    layout::Settings settings = settings_of(catalog_, options_.rules);
    settings.mesh = sizes_of(ranks_);
    if (settings.mesh.contains("pp") && !options_.stage_sizes.empty())
      settings.shares["pp"] = options_.stage_sizes;
    layout::Distributed made =
        layout::distribute(catalog_, cut, *read, layout, settings, ranks_, diagnostics);
    if (diagnostics.has_errors()) return problem(diagnostics);
    return std::make_shared<const Shards>(std::move(made.shards));
  }

 private:
  bool has_rules() const {
    if (!options_.rules.spec.empty()) return true;
    if (writer_.ranks) return !catalog_.rules.empty();
    // Those of one rank cut nothing.
    if (!catalog_.rules.empty() &&
        (ranks_.size() == 1 || catalog_.mesh.tp > 1 || is_program_of(catalog_.rules)))
      return true;
    if (ranks_.size() == 1) return false;
    throw refused("layout.no_rules",
                  cat("nothing says how its tensors are cut over ", ranks_.size(), " ranks: expected rules"))
        .in_file(catalog_.path)
        .hint("--spec gives them; --layout tp=1 writes them whole");
  }

  // One rank has all of it: the input's own rules tell only its padding, and where they do not fit, nothing
  // is lost.
  std::shared_ptr<const Shards> problem(const ucl::Diagnostics& diagnostics) const {
    if (ranks_.size() == 1 && options_.rules.spec.empty() && !writer_.ranks) return nullptr;
    throw first_problem(diagnostics, catalog_.path, options_.rules);
  }

  const Catalog& catalog_;
  const Writer& writer_;
  const ConvertOptions& options_;
  const std::vector<Coordinate> ranks_;
};

}  // namespace

std::shared_ptr<const Shards> cut_for_target(const Catalog& catalog, std::span<const uint32_t> tensors,
                                             const Writer& writer, const ConvertOptions& options) {
  return Cutter(catalog, writer, options).cut(tensors);
}

}  // namespace uckpt
