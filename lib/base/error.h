// The one error type of the library: what ended the command, where, and the way out.
//
// Library code throws `Error`; only the command line catches it, prints one line and picks the exit code.
// Readers add the place on the way up (`in_file`, `in_member`, `in_tensor`); the innermost place wins.
#pragma once

#include <exception>
#include <string>
#include <string_view>

namespace uckpt {

// Exit codes of the command line (README): the kind decides which one.
enum class ErrorKind {
  kRefused,    // 1: malformed, incomplete, contradictory or refused input; a checksum that differs
  kTrouble,    // 2: usage, cannot open, no permission, no memory, no space
  kResumable,  // 3: stopped by a signal
};

class Error : public std::exception {
 public:
  // `code` is a stable dotted word for scripts (`zip.overlap`); `message` is one sentence: what is wrong,
  // what was expected, what was found.
  Error(ErrorKind kind, std::string code, std::string message);

  Error& in_file(std::string_view path);      // kept if a file is already named
  Error& in_member(std::string_view member);  // a record inside an archive
  Error& in_tensor(std::string_view name);
  Error& hint(std::string text);  // the way out, printed on a line of its own

  ErrorKind kind() const { return kind_; }
  int exit_code() const { return kind_ == ErrorKind::kRefused ? 1 : kind_ == ErrorKind::kTrouble ? 2 : 3; }
  const std::string& code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& hint_text() const { return hint_; }
  const std::string& file() const { return file_; }
  const std::string& tensor() const { return tensor_; }

  // `FILE[!MEMBER][::TENSOR]: message`, control characters escaped, at most 400 characters.
  std::string line() const;
  const char* what() const noexcept override;

 private:
  ErrorKind kind_;
  std::string code_, message_, hint_, file_, member_, tensor_;
  mutable std::string what_;
};

// The usual ways to make one: refuse the input (exit 1), report trouble (exit 2).
Error refused(std::string code, std::string message);
Error trouble(std::string code, std::string message);
// Trouble with the text of `errno` at the end.
Error system_trouble(std::string_view what, std::string_view path);

}  // namespace uckpt
