#include "lib/formats/megatron/core/common.h"

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::megatron {

namespace {

using pickle::Value;

constexpr std::string_view kCommon = "common.pt";

std::optional<deepspeed::Scalar> number_of(const torch::TorchFile& file,
                                           const std::shared_ptr<ByteSource>& bytes, const Value& value) {
  if (auto scalar = deepspeed::scalar_of(value)) return scalar;
  const auto info = value ? file.tensor(value) : std::nullopt;
  if (!info || !info->refusal.empty() || info->numel() != 1) return std::nullopt;
  return deepspeed::Source(bytes->name(), bytes).read_scalar(file, *info);
}

}  // namespace

void Steps::take(const torch::TorchFile& file, const std::shared_ptr<ByteSource>& bytes,
                 const Value& optimizer) {
  if (!optimizer || !optimizer.is_dict()) return;
  const Value inner = optimizer.get("optimizer");
  if (inner && inner.is_dict()) return take(file, bytes, inner);
  const Value state = optimizer.get("state");
  const Value common = state && state.is_dict() ? state.get("common_step") : Value();
  const auto shared = common ? number_of(file, bytes, common) : std::nullopt;
  if (shared && !dense) dense = shared;
  const Value groups = optimizer.get("param_groups");
  for (size_t i = 0; groups && groups.is_sequence() && i < groups.size(); ++i) {
    const Value group = groups.at(i);
    if (!group.is_dict()) continue;
    const Value step = group.get("step");
    const auto number = step ? number_of(file, bytes, step) : std::nullopt;
    const Value flag = group.get("is_expert_parallel");
    auto& into = flag && flag.boolean() == true ? expert : dense;
    if (number && !into) into = number;
  }
}

Common read_common(const InputFolder& folder, const OpenOptions& options) {
  Common out;
  if (!folder.has_file(kCommon)) return out;
  out.bytes = folder.open(kCommon);
  try {
    out.file = torch::TorchFile::open(out.bytes, options.limits);
    const Value root = out.file->root();
    if (!root.is_dict()) throw refused("megatron.common", "expected a dict, found another value");
    out.arguments = Arguments::read(root.get("args"));
    if (const Value n = root.get("iteration")) out.iteration = n.integer();
    const Value content = root.get("content_metadata");
    const Value said = content && content.is_dict() ? content.get("distrib_optim_sharding_type") : Value();
    if (said && said.text()) out.sharding = *said.text();
    const Value optimizer = root.get("optimizer");
    if (!optimizer || !optimizer.is_dict()) return out;
    if (const Value type = optimizer.get("param_state_sharding_type");
        type && type.text() && out.sharding.empty())
      out.sharding = *type.text();
    out.steps.take(*out.file, out.bytes, optimizer);
    for (int64_t i = 0;; ++i) {  // of several optimizers
      const Value one = optimizer.get_int(i);
      if (!one) break;
      out.steps.take(*out.file, out.bytes, one);
    }
    return out;
  } catch (Error& e) {
    throw e.in_file(out.bytes->name());
  }
}

Common common_of_objects(const dcp::Saved& saved, const OpenOptions& options) {
  Common out;
  for (const dcp::StoredBytes& stored : saved.stored.bytes) {
    const bool is_arguments = stored.key == "args";
    if (!is_arguments && stored.key != "iteration") continue;
    const dcp::ItemObject object = dcp::open_object(*saved.files, stored, options);
    if (!object.file) continue;
    if (is_arguments)
      out.arguments = Arguments::read(object.file->root());
    else
      out.iteration = object.file->root().integer();
  }
  return out;
}

}  // namespace uckpt::megatron
