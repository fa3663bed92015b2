// A thin checked skin over the HDF5 C API: one owner for identifiers, every failed call an Error with the
// library's own words. Included by .cc files of this folder only.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <string_view>
#include <utility>

namespace uckpt::hdf5 {

// After a failed call the library is left alone: what it could not write it would try to write again on
// closing anything and at exit, and dies of that. Identifiers leak then, for the rest of a command that has
// failed.
bool given_up();

// Owns one HDF5 identifier of any kind.
class Handle {
 public:
  Handle() = default;
  explicit Handle(hid_t id) : id_(id) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0 && !given_up()) H5Idec_ref(id_);
  }
  operator hid_t() const { return id_; }
  hid_t release() { return std::exchange(id_, H5I_INVALID_HID); }

 private:
  hid_t id_ = H5I_INVALID_HID;
};

// What the library says of the call that failed last.
std::string last_failure();
// Gives up, and throws trouble (`hdf5.library`): "cannot `what`: the innermost message of the library's error
// stack", or what the system said if that is in it.
[[noreturn]] void fail(std::string_view what);

inline Handle checked(hid_t id, std::string_view what) {
  if (id < 0) fail(what);
  return Handle(id);
}

// For calls that answer with a status, a count or a yes/no: negative is failure.
template <class T>
T checked_call(T result, std::string_view what) {
  if (result < 0) fail(what);
  return result;
}

// No messages of the library on stderr, a setting of the calling thread; and no clean-up at exit.
void silence_library();

// The library is used by one thread at a time, and never while another thread forks.
std::mutex& library_mutex();

}  // namespace uckpt::hdf5
