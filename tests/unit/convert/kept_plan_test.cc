// Plans from strangers: the same document passes, whatever its white space; nothing else does.
#include "lib/convert/kept_plan.h"

#include <doctest/doctest.h>

#include <functional>
#include <random>

#include "lib/base/error.h"
#include "lib/base/text.h"

namespace uckpt {
namespace {

constexpr std::string_view kPlan = R"({"uckpt": 1, "plan": 1,
 "created_by": "uckpt 1",
 "request": ["--to=hdf5", "--", "in", "out"],
 "bytes_in": 12, "peak_memory": 7,
 "source": [
  {"file": "a.pt", "bytes": 40, "modified": "2026-01-02T03:04:05.000000006Z"},
  {"file": "b.pt", "bytes": 41, "modified": ""}],
 "moves": [
  {"shard": 0, "at": 0, "file": 1, "loops": [[2, 3, 4], [5, 6, 7]]},
  {"shard": 1, "at": 8, "file": "read\nalready\\"}]}
)";

std::string refusal_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    CHECK(e.exit_code() == 1);
    return cat(e.code(), ": ", e.message());
  }
  return "";
}

std::string edited(std::string_view from, std::string_view to) {
  std::string text(kPlan);
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string refusal(const std::string& kept) {
  return refusal_of([&] { KeptPlan::parse("p", kept)->check_same(kPlan); });
}

TEST_CASE("a kept plan is the one that is made now, whatever its white space and how it was asked for") {
  CHECK(refusal(std::string(kPlan)) == "");
  CHECK(refusal(edited("\"bytes_in\": 12", "\n\n\"bytes_in\"\t:12")) == "");
  CHECK(refusal(edited("\\n", "\\u000a")) == "");
  CHECK(refusal(edited("\"peak_memory\": 7", "\"peak_memory\": 8")) == "");
  CHECK(refusal(edited("\"in\", \"out\"", "\"elsewhere\"")) == "");
  CHECK(KeptPlan::parse("p", kPlan)->request() == std::vector<std::string>{"--to=hdf5", "--", "in", "out"});
}

TEST_CASE("the first difference is named") {
  const auto differs = [](std::string_view what) { return cat("plan.differs: ", what); };
  CHECK(refusal(edited("12", "13")) == differs("bytes_in: the plan says 13, now it is 12"));
  CHECK(refusal(edited("12", "\"12\"")) == differs("bytes_in: the plan says \"12\", now it is 12"));
  CHECK(refusal(edited("5, 6", "5, 9")) == differs("moves[0].loops[1][1]: the plan says 9, now it is 6"));
  CHECK(refusal(edited(", 6, 7", "")) ==
        differs("moves[0].loops[1][1]: the plan says nothing more, now it is 6"));
  CHECK(refusal(edited("6, 7", "6, 7, 8")) ==
        differs("moves[0].loops[1][3]: the plan says 8, now it is nothing more"));
  CHECK(refusal(edited("\"at\": 8", "\"to\": 8")) ==
        differs("moves[1].shard: the plan says the key `to`, now it is the key `at`"));
  CHECK(refusal(edited("already\\\\", "already")) ==
        differs("moves[1].file: the plan says \"read\\\\nalready\", now it is \"read\\\\nalready\\\\\\\\\""));
}

TEST_CASE("what is no plan, and plans of other versions") {
  CHECK(refusal(edited("\"plan\": 1", "\"plan\": 0")) ==
        "plan.version: expected a plan of version 1, found version 0");
  for (const char* other : {"{}", "[]", "7", "\"plan\"", "{\"uckpt\": 1}", "{\"plan\": 1}",
                            "{\"a\": {\"uckpt\": 1, \"plan\": 1}}"})
    CHECK(refusal(other) == "plan.kind: expected a plan that `uckpt plan -o` kept, found other JSON");
  CHECK(refusal(edited("12", "null")) == "plan.kind: a plan is made of texts and whole numbers, found null");
  CHECK(refusal(edited("[2, 3, 4]", "[[[[[[]]]]]]")) == "json.depth: JSON is nested more than 8 deep");
}

TEST_CASE("an input that changed is named") {
  const auto plan = KeptPlan::parse("p", kPlan);
  const SourceFile a{"a.pt", 40, "2026-01-02T03:04:05.000000006Z"}, b{"b.pt", 41, ""}, c{"c.pt", 42, ""};
  const auto found = [&](std::vector<SourceFile> now) {
    return refusal_of([&] { plan->check_source(now); });
  };
  CHECK(found({a, b}) == "");
  CHECK(found({a, {"b.pt", 41, "today"}}) ==
        "plan.source: the input's file b.pt has changed: expected 41 bytes, last modified at no known time, "
        "found "
        "41 bytes, last modified today");
  CHECK(found({a}) == "plan.source: the input has no file b.pt, which the plan takes");
  CHECK(found({a, c}) == "plan.source: the input has no file b.pt, which the plan takes");
  CHECK(found({a, c, b}) == "plan.source: the input has the file c.pt, which the plan does not know");
  CHECK(found({a, b, c}) == "plan.source: the input has the file c.pt, which the plan does not know");
  CHECK(found({}) == "plan.source: the input has no file a.pt, which the plan takes");
}

TEST_CASE("cut anywhere, or with any byte changed, a plan is refused or means the same") {
  for (size_t n = 0; n + 2 < kPlan.size(); ++n) {
    CAPTURE(n);
    CHECK(refusal(std::string(kPlan.substr(0, n))) != "");
  }
  const size_t free_from = kPlan.find("\"request\""), free_to = kPlan.find("\"bytes_in\"");
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string text(kPlan);
    const size_t at = random() % text.size();
    const char was = text[at];
    text[at] = static_cast<char>(random());
    const bool is_space = std::string_view(" \n").find(was) != std::string_view::npos &&
                          std::string_view(" \n\t\r").find(text[at]) != std::string_view::npos;
    const bool is_free = at >= free_from && at < free_to;
    const bool is_memory = at <= kPlan.find("7,\n \"source\"") && at + 1 >= kPlan.find("7,\n \"source\"");
    if (text[at] == was || is_space || is_free || is_memory) {
      refusal(text);  // must end
      continue;
    }
    CAPTURE(at);
    CAPTURE(text);
    CHECK(refusal(text) != "");
  }
}

}  // namespace
}  // namespace uckpt
