#include "lib/convert/options.h"

#include <algorithm>

#include "lib/base/text.h"
#include "lib/kernels/cast.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/importer.h"
#include "lib/ucl/walk.h"
#include "lib/ucl/words.h"

namespace uckpt {

namespace {

bool matches_any(const std::vector<ucl::NamePattern>& names, std::string_view name) {
  return std::any_of(names.begin(), names.end(),
                     [&](const ucl::NamePattern& pattern) { return ucl::match(pattern, name).has_value(); });
}

Error unknown_dtype(std::string_view name) {
  Error e = trouble("usage.dtype", cat("--dtype: no element type is called `", escape(name, 60), "`"));
  const std::string_view meant = ucl::dtype_meant_by(name);
  const auto near = nearest(name, ucl::dtype_names());
  if (!meant.empty()) {
    e.hint(cat("it is called `", meant, "` here"));
  } else if (near) {
    e.hint(cat("did you mean `", *near, "`?"));
  }
  return e;
}

// What weights can be cast to.
void check_castable(DType dtype, std::string_view where) {
  if (kernels::can_cast(DType::kF32, dtype)) return;
  std::string known;
  for (int i = 0; i < kDTypeCount; ++i)
    if (const auto d = static_cast<DType>(i); kernels::can_cast(DType::kF32, d))
      known += cat(known.empty() ? "" : ", ", name_of(d));
  throw trouble("usage.dtype",
                cat(where, ": weights are not cast to ", name_of(dtype), ": expected one of ", known));
}

ucl::NamePattern parse_pattern(std::string_view text) {
  ucl::Diagnostics diagnostics;
  const ucl::Source source("--dtype", cat("\"", text, "\""));
  ucl::NamePattern pattern =
      ucl::parse_name_pattern(source, {0, static_cast<uint32_t>(text.size() + 2)}, diagnostics);
  if (diagnostics.has_errors())
    throw trouble("usage.dtype", cat("--dtype: `", escape(text, 100),
                                     "` is no pattern of names: ", diagnostics.sorted().front().message));
  return pattern;
}

}  // namespace

std::optional<DType> DTypeRules::wanted(const Tensor& tensor) const {
  const std::string_view name = tensor.name;
  return wanted(tensor, {&name, 1});
}

std::optional<DType> DTypeRules::wanted(const Tensor& tensor, std::span<const std::string_view> names) const {
  if (!is_float(tensor.dtype) || (tensor.state != state::kMaster && tensor.state != state::kParam))
    return std::nullopt;
  for (const Rule& rule : rules) {
    if (rule.names.empty() ||
        std::ranges::any_of(names, [&](std::string_view name) { return matches_any(rule.names, name); }))
      return rule.dtype;
  }
  return std::nullopt;
}

DTypeRules::Rule parse_dtype_rule(std::string_view text) {
  DTypeRules::Rule rule;
  rule.typed = text;
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  if (name != "keep") {
    rule.dtype = dtype_from_name(name);
    if (!rule.dtype) throw unknown_dtype(name);
    check_castable(*rule.dtype, "--dtype");
  }
  if (colon != std::string_view::npos) rule.names.push_back(parse_pattern(text.substr(colon + 1)));
  return rule;
}

bool Selection::matches(std::string_view glob, const Tensor& tensor) {
  return glob_match(glob, tensor.name) || glob_match(glob, tensor.path());
}

bool Selection::takes(const Tensor& tensor) const {
  const auto any = [&](const std::vector<std::string>& globs) {
    return std::ranges::any_of(globs, [&](const std::string& glob) { return matches(glob, tensor); });
  };
  if (!states.empty() && std::find(states.begin(), states.end(), tensor.state) == states.end()) return false;
  return (select.empty() || any(select)) && !any(drop) && !matches_any(drop_names, tensor.name);
}

ConvertOptions with_convert_block(ConvertOptions options) {
  if (options.rules.spec.empty()) return options;
  const ReadSpec& read = options.rules.read();
  if (read.diagnostics.has_errors()) return options;
  const ucl::Source& source = read.spec->root().source;
  const auto add_places = [&](const std::vector<ucl::NamePattern>& names, std::vector<std::string>& places) {
    for (const ucl::NamePattern& n : names) {
      const ucl::Position at = source.position(n.span.begin);
      places.push_back(cat(source.name(), ":", at.line, ":", at.column));
    }
  };
  const bool own_dtypes = !options.dtypes.rules.empty(), own_states = !options.selection.states.empty();
  ucl::each<ucl::Convert>(read.spec->root().program.statements, [&](const ucl::Convert& c) {
    ucl::each<ucl::Endpoint>(c.items, [&](const ucl::Endpoint& e) {
      if (e.is_source) return;  // `open_whole` asks for its kind
      if (options.to.empty()) options.to = e.format.text;
      for (const ucl::Setting& s : e.settings)
        if (const auto* size = std::get_if<int64_t>(&s.value)) options.layout.try_emplace(s.name.text, *size);
    });
    ucl::each<ucl::DropNames>(c.items, [&](const ucl::DropNames& d) {
      auto& names = options.selection.drop_names;
      names.insert(names.end(), d.names.begin(), d.names.end());
      add_places(d.names, options.selection.drop_places);
    });
    ucl::each<ucl::DTypeChoice>(c.items, [&](const ucl::DTypeChoice& d) {
      if (own_dtypes) return;
      const std::optional<DType> dtype = d.keep ? std::nullopt : dtype_from_name(d.dtype.text);
      if (dtype) check_castable(*dtype, cat(options.rules.spec, ": dtype ", d.dtype.text));
      options.dtypes.rules.push_back({dtype, d.names, "", {}});
      add_places(d.names, options.dtypes.rules.back().places);
    });
    ucl::each<ucl::StateChoice>(c.items, [&](const ucl::StateChoice& choice) {
      if (own_states) return;
      for (const ucl::Name& s : choice.states) options.selection.states.push_back(s.text);
    });
  });
  return options;
}

}  // namespace uckpt
