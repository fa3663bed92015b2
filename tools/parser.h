// The command line's grammar: verbs, their help pages, and what to say when it is typed wrong.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "tools/verb.h"

namespace uckpt::cli {

// The verb that the arguments name, with its flags filled in; or nothing where help or the version was asked
// for, which then stands in `answer`. Throws trouble (`usage.…`). `profile`: whatever the verb, tell where
// its time went.
Verb* parse(int argc, const char* const* argv, std::span<const std::unique_ptr<Verb>> verbs,
            std::string& answer, bool& profile);

}  // namespace uckpt::cli
