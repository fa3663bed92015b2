#include "lib/ucl/spec.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/ucl/parse.h"

namespace uckpt::ucl {

namespace {

constexpr size_t kMaxDepth = 16, kMaxFiles = 64;

bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

bool is_file_name(std::string_view name) {
  return name.size() > 4 && name.ends_with(".ucl") && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) { return is_plain(c) || c == '.'; });
}

bool is_shipped_name(std::string_view name) {
  char before = '/';
  for (char c : name) {
    if (!is_plain(c) && (c != '/' || before == '/')) return false;
    before = c;
  }
  return before != '/';
}

std::string_view file_name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

// What is wrong with a path that neither names a shipped spec nor a file beside the program.
std::string complaint(std::string_view path) {
  if (path.starts_with('/')) return "is an absolute path";
  if (path.find("..") != std::string_view::npos) return "leaves the folder of the program";
  if (path.starts_with("./") && path.find('/', 2) != std::string_view::npos) return "is in another folder";
  return "is neither a shipped spec nor a file beside the program";
}

}  // namespace

class SpecReader {
 public:
  SpecReader(Importer& importer, Diagnostics& diagnostics) : importer_(importer), diagnostics_(diagnostics) {}

  Spec read(Source root) {
    const Target own{false, std::string(file_name_of(root.name()))};
    folder_ = root.name().substr(0, root.name().size() - own.name.size());
    read_file(own, std::move(root));
    for (const auto& file : spec_.files_) {
      spec_.declare(*file);
      spec_.complete_ &= file->program.complete;
    }
    return std::move(spec_);
  }

 private:
  // What an import asks for, once its path is known to be one that may be followed.
  struct Target {
    bool shipped;
    std::string name;  // of a shipped spec, or of a file without `./`

    std::string shown() const { return shipped ? name : "./" + name; }
  };

  // A file that is being read, and the import that asked for the next one.
  struct Frame {
    Target target;
    const File* file;
    const Import* import;
  };

  void read_file(const Target& target, Source source) {
    diagnostics_.know(source);
    Program program = parse(source, diagnostics_);
    spec_.files_.push_back(
        std::make_unique<const File>(File{std::move(source), std::move(program), target.shipped}));
    const File* file = spec_.files_.back().get();
    known_.push_back(target.shown());
    chain_.push_back({target, file, nullptr});
    for (const Statement& s : file->program.statements)
      if (const auto* import = std::get_if<Import>(&s)) follow(*file, *import);
    chain_.pop_back();
  }

  void follow(const File& file, const Import& import) {
    chain_.back().import = &import;
    const auto target = target_of(file, import);
    if (!target || runs_in_circles(file, import, *target)) return;
    if (std::find(known_.begin(), known_.end(), target->shown()) != known_.end()) return;
    if (chain_.size() >= kMaxDepth || spec_.files_.size() >= kMaxFiles) {
      fail(file, import, "ucl.import_limit",
           cat("imports go more than ", kMaxDepth, " deep or take more than ", kMaxFiles, " files"));
      return;
    }
    auto text = target->shipped ? importer_.shipped(target->name) : importer_.beside(target->name);
    if (!text) {
      Diagnostic& d = fail(file, import, "ucl.import_missing",
                           cat(target->shipped ? "no shipped spec is called `" : "there is no file `",
                               escape(target->name), target->shipped ? "`" : "` beside the program"));
      if (target->shipped) d.suggest(target->name, [&] { return importer_.shipped_names(); });
      return;
    }
    read_file(*target, Source(target->shipped ? target->name : folder_ + target->name, std::move(*text)));
  }

  Diagnostic& fail(const File& file, const Import& import, std::string code, std::string message) {
    spec_.complete_ = false;
    return diagnostics_.error(file.source, import.path_span, std::move(code), std::move(message));
  }

  std::optional<Target> target_of(const File& file, const Import& import) {
    const std::string& path = import.path;
    if (path.starts_with("./") && is_file_name(path.substr(2))) {
      if (!file.is_shipped) return Target{false, path.substr(2)};
      fail(file, import, "ucl.import_path", "a shipped spec may import only shipped specs");
      return std::nullopt;
    }
    if (is_shipped_name(path)) return Target{true, path};
    fail(file, import, "ucl.import_path", cat("`", escape(path, 60), "` ", complaint(path)))
        .hint(
            "an import is a shipped spec, as \"megatron/llama\", or a file of the same folder, as "
            "\"./mine.ucl\"");
    return std::nullopt;
  }

  bool runs_in_circles(const File& file, const Import& import, const Target& target) {
    const auto begin = std::find_if(chain_.begin(), chain_.end(),
                                    [&](const Frame& f) { return f.target.shown() == target.shown(); });
    if (begin == chain_.end()) return false;
    Diagnostic& d =
        fail(file, import, "ucl.import_cycle",
             begin + 1 == chain_.end() ? "the file imports itself" : "the imports run in a circle");
    for (auto f = begin; f + 1 < chain_.end(); ++f)
      d.note(f->file->source, f->import->path_span, "imported from here");
    return true;
  }

  Importer& importer_;
  Diagnostics& diagnostics_;
  Spec spec_;
  std::vector<Frame> chain_;
  std::vector<std::string> known_;
  std::string folder_;  // of the program, for the names of files in messages
};

void Spec::declare(const File& file) {
  for (const Statement& s : file.program.statements) {
    if (const auto* layout = std::get_if<Layout>(&s); layout && !layout->name.empty()) {
      layouts_.try_emplace(layout->name.text, LayoutRef{&file, layout});
    } else if (const auto* map = std::get_if<Map>(&s); map && !map->left.empty()) {
      maps_.try_emplace(std::minmax(map->left.text, map->right.text), MapRef{&file, map, false});
    } else if (const auto* config = std::get_if<Config>(&s); config && !config->left.empty()) {
      configs_.try_emplace(std::minmax(config->left.text, config->right.text),
                           ConfigRef{&file, config, false});
    } else if (const auto* given = std::get_if<Given>(&s)) {
      for (const GivenVar& v : given->vars) givens_.try_emplace(v.name.text, GivenRef{&file, &v});
    }
  }
}

LayoutRef Spec::layout(std::string_view name) const {
  const auto found = layouts_.find(name);
  return found == layouts_.end() ? LayoutRef{} : found->second;
}

MapRef Spec::map(std::string_view left, std::string_view right) const {
  const auto found = maps_.find(std::minmax(std::string(left), std::string(right)));
  if (found == maps_.end()) return {};
  return {found->second.file, found->second.map, found->second.map->left.text != left};
}

ConfigRef Spec::config(std::string_view left, std::string_view right) const {
  const auto found = configs_.find(std::minmax(std::string(left), std::string(right)));
  if (found == configs_.end()) return {};
  return {found->second.file, found->second.config, found->second.config->left.text != left};
}

GivenRef Spec::given(std::string_view name) const {
  const auto found = givens_.find(name);
  return found == givens_.end() ? GivenRef{} : found->second;
}

bool Spec::is_naming(std::string_view name) const {
  return layouts_.contains(name) || std::any_of(maps_.begin(), maps_.end(), [&](const auto& m) {
           return m.first.first == name || m.first.second == name;
         });
}

std::vector<std::string> Spec::layout_names() const {
  std::vector<std::string> out;
  for (const auto& [name, layout] : layouts_) out.push_back(name);
  return out;
}

std::vector<std::string> Spec::map_names() const {
  std::vector<std::string> out;
  for (const auto& [names, map] : maps_) out.push_back(cat(map.map->left.text, " <-> ", map.map->right.text));
  return out;
}

std::vector<std::string> Spec::namings() const {
  std::vector<std::string> out = layout_names();
  for (const auto& [names, map] : maps_) {
    out.push_back(names.first);
    out.push_back(names.second);
  }
  return out;
}

std::vector<std::string> Spec::given_names() const {
  std::vector<std::string> out;
  for (const auto& [name, given] : givens_) out.push_back(name);
  return out;
}

Spec read_spec(Source root, Importer& importer, Diagnostics& diagnostics) {
  return SpecReader(importer, diagnostics).read(std::move(root));
}

}  // namespace uckpt::ucl
