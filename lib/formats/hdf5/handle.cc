#include "lib/formats/hdf5/handle.h"

#include <atomic>

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

std::atomic<bool> has_given_up{false};

// What the system said: "file write failed: time = …, errno = 28, error message = 'No space left on device',
// …"
std::string system_message(const std::string& text) {
  constexpr std::string_view kHead = "error message = '";
  const size_t at = text.find(kHead);
  if (at == std::string::npos) return text;
  const size_t begin = at + kHead.size();
  return text.substr(begin, text.find('\'', begin) - begin);
}

}  // namespace

std::string last_failure() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  return text.empty() ? "unknown error" : system_message(text);
}

bool given_up() { return has_given_up; }

void fail(std::string_view what) {
  const std::string message = last_failure();
  has_given_up = true;
  throw trouble("hdf5.library", cat("cannot ", what, ": ", message));
}

void silence_library() {
  static const herr_t first_call = H5dont_atexit();  // heeded only before any other call
  static_cast<void>(first_call);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace uckpt::hdf5
