// Which of the specs that ship with the tool speaks of a checkpoint: told by its names.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/layout/facts.h"
#include "lib/tensor/catalog.h"
#include "lib/ucl/spec.h"

namespace uckpt {

struct FoundSpec {
  std::string spec;          // "megatron/llama"
  std::string naming;        // that the checkpoint has: "hf_llama"
  std::string layout;        // the nearest naming with a layout, which may be the same: "megatron_llama"
  bool leads_to_hf = false;  // another naming, which maps lead to, begins with `hf_`
};

// The spec of a folder ("megatron"; empty: any) with a naming that takes every name of the checkpoint, and of
// which the checkpoint has every name that is not optional. Of several the one whose naming has a layout,
// then the one with the fewest rules that take nothing. `as`: a naming, or how it begins, that it must lead
// to; empty: any. Nothing if none fits: `nearest`, if not null, then says which comes nearest, and what keeps
// it from fitting. Shapes are not looked at.
std::optional<FoundSpec> find_spec(const Catalog& catalog, std::string_view folder, std::string_view as,
                                   const layout::Settings& settings, std::string* nearest = nullptr);

// The same among the namings of one spec; `FoundSpec::spec` stays empty.
std::optional<FoundSpec> find_naming(const Catalog& catalog, const ucl::Spec& spec, std::string_view as,
                                     const layout::Settings& settings);

// A program that says so: what stands for a checkpoint's own rules from then on.
std::string program_of(const std::string& spec, const std::string& naming);

bool is_program_of(std::string_view rules);

// The naming that is meant: `as` itself if there is one, else the nearest to `from` that begins with `as_`:
// `hf` is hf_llama for megatron_llama. `as` where there is neither. Throws trouble (`usage.as`) where several
// are equally near.
std::string resolve_naming(const ucl::Spec& spec, std::string_view from, const std::string& as);

// The layout that the fewest maps lead to from a naming; empty if none do.
std::string nearest_layout(const ucl::Spec& spec, std::string_view naming);

// Whole tensors, of a catalog that has no fragments, as those of one rank: so rules of a layout take them.
void as_one_rank(Catalog& catalog);
// Of such tensors: the mesh that cut them still tells their padding, but stages hold no copies of their own,
// of a tied table say.
layout::Settings joined(layout::Settings settings);

}  // namespace uckpt
