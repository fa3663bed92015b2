// Names and shapes in storage order: `param_shapes`, the key to every flat buffer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/pickle/value.h"
#include "lib/tensor/catalog.h"

namespace uckpt::deepspeed {

struct Param {
  std::string name;
  Shape shape;
  int64_t numel = 0;
  bool operator==(const Param& o) const { return name == o.name && shape == o.shape; }
};
using ParamList = std::vector<Param>;
using ParamGroups = std::vector<ParamList>;

// A torch.Size, tuple or list of sizes; refuses anything else (`deepspeed.malformed`).
Shape read_shape(const pickle::Value& value);
// A dict name -> shape.
ParamList read_params(const pickle::Value& value);
// A list of such dicts (very old files hold one dict).
ParamGroups read_param_groups(const pickle::Value& value);

// Is `value` the same list? Walks the pickle without copying it: most ranks repeat what rank 0 says. Returns
// what differs, in words, or nothing.
std::optional<std::string> differs(const ParamList& params, const pickle::Value& value);
std::optional<std::string> differs(const ParamGroups& groups, const pickle::Value& value);

// Names of the parameters of a pipeline's tied modules begin so.
inline constexpr std::string_view kTiedModules = "tied_modules.";

// Names of experts: `<prefix>deepspeed_moe.experts.deepspeed_experts.<number>.<rest>`.
struct ExpertName {
  size_t number_at, number_end;  // of the digits in the name
  int64_t number;
  std::string_view layer(std::string_view name) const { return name.substr(0, number_at); }
};
std::optional<ExpertName> parse_expert(std::string_view name);
// How many experts of each layer a rank has, by the name up to the expert's number. A group of the optimizer
// can be full within a layer: only the names of all of them together tell.
using LocalExperts = std::map<std::string, int64_t, std::less<>>;
void count_expert(LocalExperts& local, std::string_view name);
std::string with_expert(std::string_view name, const ExpertName& at, int64_t number);

}  // namespace uckpt::deepspeed
