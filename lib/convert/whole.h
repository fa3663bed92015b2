// A catalog of whole tensors: fragments joined by rules, where the input is cut.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lib/formats/format.h"
#include "lib/layout/facts.h"
#include "lib/ucl/diagnostics.h"
#include "lib/ucl/spec.h"

namespace uckpt {

// A program as it was read and checked, and what is wrong with it.
struct ReadSpec {
  std::shared_ptr<const ucl::Spec> spec;
  ucl::Diagnostics diagnostics;
};

// Which rules, and what is known beside them.
struct RuleOptions {
  std::string spec;    // a UCL file, or the name of a spec that ships; empty: the input's own description
  std::string naming;  // the input's; empty: the only layout, or that of `convert { from … as … }`
  std::string as;      // the naming that is wanted; empty: the input's
  std::map<std::string, int64_t, std::less<>> set;  // NAME=N
  std::string target_folder = {};  // of shipped specs, one of which the output needs; empty: none

  // What `spec` names; copies of the options read it once. Throws if there is no such thing.
  const ReadSpec& read() const;

 private:
  struct Memo {
    std::string of;
    ReadSpec read;
  };
  std::shared_ptr<Memo> memo_ = std::make_shared<Memo>();
};

// What the rules took on trust: sizes that no shape proves, and where each came from.
using Trusted = std::vector<std::string>;

// What can be said of a program's sizes before there is an input: those under no layout and no map, which
// --set and the text itself tell. Throws where --set names none of the program's.
void check_sizes(const ucl::Spec& spec, const RuleOptions& rules, ucl::Diagnostics& diagnostics);

// Joins what is cut, and gives it the names that are wanted: by the rules that are given, the input's own, or
// those of a shipped spec that its names fit. All that does not fit goes to `diagnostics`; true if nothing
// did. Throws refused `layout.no_rules` where there are fragments and no rules.
bool join_fragments(Catalog& catalog, const RuleOptions& rules, ucl::Diagnostics& diagnostics,
                    Trusted& trusted);

// The rules as they were given, else the input's own; `diagnostics` becomes what is wrong with them.
std::shared_ptr<const ucl::Spec> spec_of(const Catalog& catalog, const RuleOptions& rules,
                                         ucl::Diagnostics& diagnostics);
// The input's naming among those of the spec. Throws trouble (`usage.naming`) where it cannot be told.
std::string choose_naming(const ucl::Spec& spec, const RuleOptions& rules);
// What is known outside of the spec, but for the mesh.
layout::Settings settings_of(const Catalog& catalog, const RuleOptions& rules);
// The first thing that does not fit, how many more there are, and how to see them.
Error first_problem(const ucl::Diagnostics& diagnostics, const std::string& path, const RuleOptions& rules);

// The kind of input that the spec's `convert { from KIND … }` speaks of; empty where it speaks of none.
std::string input_kind(const RuleOptions& rules);

// Opens and joins. The input is of the kind that `options` say, or else the spec. What does not fit is one
// refusal that names the first problem, the spec's line, and how to see all. With `listed`, fragments that
// cannot be joined are listed as one rank has them, and refused: then it throws only where nothing can be
// listed.
Catalog open_whole(const std::string& path, const OpenOptions& options, const RuleOptions& rules,
                   bool listed);

}  // namespace uckpt
