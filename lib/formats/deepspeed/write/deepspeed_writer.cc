#include "lib/formats/deepspeed/write/deepspeed_writer.h"

#include "lib/base/text.h"
#include "lib/formats/deepspeed/write/target.h"

namespace uckpt::deepspeed {

namespace {

// The newest version whose files these are; a loader wants one.
constexpr std::string_view kVersion = "0.19.8";

std::string version_of(const SourceObjects& source) {
  const pickle::Value model = source.model(0, 0).root;
  const pickle::Value version = model && model.is_dict() ? model.get("ds_version") : pickle::Value();
  return std::string(version ? version.text().value_or(kVersion) : kVersion);
}

bool is_bf16(const SourceObjects& source, const Parameters& parameters) {
  if (source.ds_config()) return source.config_flag("bf16", "enabled");
  for (const Named& n : parameters.all())
    if (n.is_trained()) return n.module_dtype == DType::kBF16;
  return false;
}

void check(const TargetCheckpoint& target) {
  const auto fail = [](std::string_view code, std::string text) { throw trouble(std::string(code), text); };
  if (target.stage < 1 || target.stage > 3)
    fail("usage.layout", cat("--layout zero: expected 1, 2 or 3, found ", target.stage));
  if (target.tp != 1 || target.pp != 1)
    fail("usage.layout", cat("a DeepSpeed checkpoint is written for tp 1 and pp 1 only, found tp ", target.tp,
                             " and pp ", target.pp));
}

void add_text_file(TargetLayout& layout, std::string name, std::string_view text) {
  TargetFile& file = layout.files.emplace_back();
  file.name = std::move(name);
  file.size = static_cast<int64_t>(text.size());
  file.fixed.push_back({0, Bytes(text.begin(), text.end())});
}

}  // namespace

TargetLayout lay_out(const Catalog& catalog, const WriteRequest& request) {
  TargetLayout layout;
  std::vector<std::string> notes;
  const SourceObjects source(catalog);
  const Parameters parameters(catalog, request, source, notes);
  ShardBook book(catalog, layout);
  const std::string tag = cat("global_step", catalog.iteration.value_or(0));
  TargetCheckpoint target{source, parameters, book, notes, tag + "/", version_of(source)};
  const auto asked = [&](const char* axis, int64_t otherwise) {
    const auto found = request.mesh.find(axis);
    return found == request.mesh.end() ? otherwise : found->second;
  };
  target.stage = static_cast<int>(asked("zero", std::max(1, catalog.zero_stage.value_or(1))));
  target.dp = asked("dp", catalog.mesh.dp);
  target.tp = asked("tp", 1);
  target.pp = asked("pp", 1);
  target.is_bf16 = is_bf16(source, parameters);
  check(target);

  for (const Named& n : parameters.all()) {
    if (n.is_trained()) {
      book.own(*n.master, 0);
      for (const auto& [state, tensor] : n.states) book.own(tensor, 0);
    } else if (n.is_frozen() && target.stage == 3) {
      book.own(n.weight(), 0);
    }
  }
  add_text_file(layout, "latest", tag);
  for (int64_t d = 0; d < (target.stage == 3 ? target.dp : 1); ++d) add_model_file(target, 0, d);
  for (int64_t d = 0; d < target.dp; ++d)
    target.stage == 3 ? add_optimizer_file3(target, 0, d) : add_optimizer_file12(target, 0, d);
  layout.notes = std::move(notes);
  return layout;
}

}  // namespace uckpt::deepspeed
