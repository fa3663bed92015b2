#include "lib/formats/hdf5/handle.h"

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt::hdf5 {
namespace {

// Walking upward begins where the failure happened; the callers' messages only repeat it more vaguely.
herr_t keep_innermost(unsigned, const H5E_error2_t* entry, void* text) {
  auto& kept = *static_cast<std::string*>(text);
  if (kept.empty() && entry->desc) kept = entry->desc;
  return 0;
}

std::string innermost_message() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  return text.empty() ? "unknown error" : text;
}

}  // namespace

void fail(std::string_view what) {
  throw trouble("hdf5.library", cat("cannot ", what, ": ", innermost_message()));
}

void silence_library() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace uckpt::hdf5
