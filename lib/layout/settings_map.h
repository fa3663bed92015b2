// The settings of a model (Megatron's args, Hugging Face's config.json) in another naming, by the `config`
// statements along the maps.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/layout/facts.h"
#include "lib/tensor/catalog.h"

namespace uckpt::layout {

struct TranslatedSettings {
  ModelSettings settings;
  bool known = false;  // some map on the way says how settings correspond
  std::vector<std::string>
      lacking;  // keys of the new naming that the old settings, givens and defaults leave open
};

// Along the chain of maps from a naming to another; a map without a `config` leaves settings as they are.
// `known_sizes` are what `given` speaks of. A setting that is not what the program says it must be goes to
// `diagnostics` as `ucl.setting_differs`, at the program's line. Throws trouble (`usage.as`) as `map_chain`.
TranslatedSettings translate(const ucl::Spec& spec, std::string_view from, std::string_view to,
                             const ModelSettings& settings, const Settings& known_sizes,
                             ucl::Diagnostics& diagnostics);

// The same for a catalog whose tensors have got the names of `to`: its settings, and those of its arguments
// that they name anew.
void translate_settings(Catalog& catalog, const ucl::Spec& spec, std::string_view from, std::string_view to,
                        const Settings& known_sizes, ucl::Diagnostics& diagnostics);

// What a person said of a `given` (--set vocab=101) is a setting of the model from here on, under the first
// of its keys that the settings have, else the first of all. A given without keys is no setting.
void keep_what_was_set(Catalog& catalog, const ucl::Spec& spec, const Settings& settings);

}  // namespace uckpt::layout
