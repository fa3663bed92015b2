// The mesh of a layout, with those of the layouts it uses.
#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/check_context.h"
#include "lib/ucl/walk.h"

namespace uckpt::ucl {

namespace {

constexpr size_t kMaxUsed = 64;  // layouts; more are not looked at

bool is_among(const std::vector<LayoutRef>& all, const Layout* layout) {
  return std::any_of(all.begin(), all.end(), [&](const LayoutRef& l) { return l.layout == layout; });
}

std::string list_of(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += cat(out.empty() ? "`" : ", `", n, "`");
  return out;
}

}  // namespace

Mesh::Mesh(const Context& context, const Layout& layout) {
  layouts_.push_back({&context.file, &layout});
  for (size_t i = 0; i < layouts_.size(); ++i) {
    const LayoutRef ref = layouts_[i];
    complete_ &= ref.layout->complete;
    for (const MeshAxis& m : ref.layout->mesh) declare(*ref.file, m);
    each<LayoutUse>(ref.layout->items, [&](const LayoutUse& use) {
      const LayoutRef used = context.spec.layout(use.layout.text);
      complete_ &= bool(used) && layouts_.size() < kMaxUsed;
      if (used && !is_among(layouts_, used.layout) && layouts_.size() < kMaxUsed) layouts_.push_back(used);
    });
  }
}

void Mesh::declare(const File& file, const MeshAxis& axis) {
  const auto add = [&](const Name& name, bool is_part) -> Axis& {
    const auto [made, is_new] = axes_.try_emplace(name.text, Axis{&file, name.span, {name.text}, is_part});
    if (is_new) names_.push_back(name.text);
    return made->second;
  };
  Axis& whole = add(axis.name, false);
  if (!axis.parts) return;
  whole.atoms = {axis.parts->first.text, axis.parts->second.text};
  add(axis.parts->first, true);
  add(axis.parts->second, true);
}

const Mesh::Axis* Mesh::find(std::string_view name) const {
  const auto found = axes_.find(name);
  return found == axes_.end() ? nullptr : &found->second;
}

bool check_mesh_name(const Context& context, const Mesh& mesh, const Layout& layout, const Name& name) {
  if (mesh.find(name.text) || !mesh.complete() || context.unsure()) return true;
  const std::vector<std::string>& names = mesh.names();
  context.error(name.span, "ucl.unknown_mesh", cat("the layout has no mesh axis `", name.text, "`"))
      .note(context.file.source, layout.name.span,
            names.empty() ? cat("`", layout.name.text, "` has no mesh: it says no `over`")
                          : cat("`", layout.name.text, "` lies over ", list_of(names)))
      .suggest(name.text, [&] { return names; });
  return false;
}

}  // namespace uckpt::ucl
