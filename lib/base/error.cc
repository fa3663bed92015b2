#include "lib/base/error.h"

#include <cerrno>
#include <cstring>

#include "lib/base/text.h"

namespace uckpt {

namespace {
constexpr size_t kMaxLine = 400;

void set_once(std::string& slot, std::string_view value) {
  if (slot.empty()) slot = value;
}
}  // namespace

Error::Error(ErrorKind kind, std::string code, std::string message)
    : kind_(kind), code_(std::move(code)), message_(std::move(message)) {}

Error& Error::in_file(std::string_view path) {
  set_once(file_, path);
  return *this;
}

Error& Error::in_member(std::string_view member) {
  set_once(member_, member);
  return *this;
}

Error& Error::in_tensor(std::string_view name) {
  set_once(tensor_, name);
  return *this;
}

Error& Error::hint(std::string text) {
  set_once(hint_, text);
  return *this;
}

std::string Error::line() const {
  std::string place = escape(file_);
  if (!member_.empty()) place += cat("!", escape(member_));
  if (!tensor_.empty()) place += cat("::", escape(tensor_));
  if (!place.empty()) place += ": ";
  return escape(place + message_, kMaxLine - 1);  // and the sign that it was cut
}

const char* Error::what() const noexcept {
  try {
    what_ = line();
    return what_.c_str();
  } catch (...) {
    return "error";
  }
}

Error refused(std::string code, std::string message) {
  return Error(ErrorKind::kRefused, std::move(code), std::move(message));
}

Error trouble(std::string code, std::string message) {
  return Error(ErrorKind::kTrouble, std::move(code), std::move(message));
}

Error system_trouble(std::string_view what, std::string_view path) {
  const char* reason = std::strerror(errno);
  Error e = trouble("io.system", cat(what, ": ", reason));
  if (!path.empty()) e.in_file(path);
  return e;
}

}  // namespace uckpt
