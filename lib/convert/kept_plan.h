// A plan that was kept as a file, from a stranger as any input is. Nothing in it is followed: the plan is
// made anew from the request that it tells, with all proofs, and must turn out the same to the last number.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/convert/plan_document.h"

namespace uckpt {

class KeptPlan {
 public:
  // `path` is for messages. Throws refused: what `parse_strict_json` does, `plan.kind` where it is no plan,
  // `plan.version` for one of another version.
  static std::shared_ptr<const KeptPlan> parse(std::string path, std::string_view text);
  // Throws `plan.size`, and trouble where it cannot be read.
  static std::shared_ptr<const KeptPlan> read(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<std::string>& request() const { return request_; }

  // Throws refused `plan.source` that names the file which is not as it was.
  void check_source(std::span<const SourceFile> now) const;
  // Throws refused `plan.differs` with the first difference to the document of the plan made now. What tells
  // how the plan was asked for does not count.
  void check_same(std::string_view document) const;

 private:
  std::string path_;
  std::vector<std::string> request_;
  std::vector<SourceFile> source_;
  std::string tokens_;  // a line a token: the document without its white space
};

}  // namespace uckpt
