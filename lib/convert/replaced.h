// What -f would take away: a folder is replaced whole.
#pragma once

#include <string>

namespace uckpt {

// Throws trouble (`output.folder`) where `out` is a folder that holds something beside the checkpoint that is
// read from it: other steps, a tokenizer, notes.
void refuse_to_take_strangers(const std::string& out);

}  // namespace uckpt
