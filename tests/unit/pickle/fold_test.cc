// Objects that leave the tree while it is read, and what of them must stay.
#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/document.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"
#include "tests/unit/pickle/raw.h"

using namespace uckpt;
using namespace uckpt::pickle;

namespace {

std::string text(std::string_view s) { return raw("\x8c") + static_cast<char>(s.size()) + std::string(s); }

// Takes objects of `m.C` and keeps what they held as JSON; but not those that have "not" as an attribute.
class Kept final : public Folder {
 public:
  std::optional<uint8_t> wants(const Global& cls) const override {
    return cls.full == "m.C" ? std::optional<uint8_t>(7) : std::nullopt;
  }
  std::optional<uint32_t> fold(uint8_t cls, const Value& object) override {
    CHECK(cls == 7);
    CHECK(object.global_name() == "m.C");
    if (object.attribute("not")) return std::nullopt;
    std::string found;
    for (const char* name : {"a", "b"})
      if (const Value v = object.attribute(name)) found += cat(name, "=", to_json(v, {}), ";");
    rows.push_back(found);
    return static_cast<uint32_t>(rows.size() - 1);
  }
  std::vector<std::string> rows;
};

struct Folded {
  Kept kept;
  std::unique_ptr<Document> document;
  std::string code = "no error";
  Value root() const { return document->root(); }
  // Of what was folded, what it held; else "tree".
  std::string row(const Value& v) const { return v.folded() ? kept.rows.at(*v.folded()) : "tree"; }
};

Folded read(const std::string& body) {
  const std::string pickle = raw("\x80\x04") + body + ".";
  Folded out;
  try {
    out.document = parse_folding(pickle.size(),
                                 [&](size_t at, std::span<uint8_t> to) {
                                   std::copy_n(pickle.begin() + static_cast<long>(at), to.size(), to.begin());
                                 },
                                 out.kept, {});
  } catch (const Error& e) {
    out.code = e.code();
  }
  return out;
}

const std::string kMemo = raw("\x94");  // numbered in the order of the pickle
// C without state; its class is remembered as 0 at the first time.
const std::string kFirst = "cm\nC\n" + kMemo + raw(")\x81");
const std::string kNext = raw("h\x00)\x81");

std::string pair(int x, int y) {
  return cat("K", static_cast<char>(x), "K", static_cast<char>(y), raw("\x86"));
}
std::string attributes(const std::string& items) { return "}(" + items + "ub"; }

}  // namespace

TEST_CASE("an object leaves the tree once it is whole") {
  const Folded f = read("](" + kFirst + attributes(text("a") + pair(1, 2)) + kNext +
                        attributes(text("b") + "K\x05") + kNext + attributes(text("not") + "N") + "e");
  REQUIRE(f.code == "no error");
  CHECK(f.row(f.root().at(0)) == "a=[1,2];");
  CHECK(f.row(f.root().at(1)) == "b=5;");
  CHECK(f.row(f.root().at(2)) == "tree");
  CHECK(f.root().at(2).attribute("not").is_none());
  CHECK(f.root().at(0).global_name() == "m.C");
  CHECK_FALSE(f.root().at(0).state());
  CHECK(f.root().at(0).args().size() == 0);
}

TEST_CASE("nodes do not grow with what was folded") {
  std::string body = "](" + kFirst + attributes(text("a") + pair(1, 2));
  const uint32_t one = read(body + "e").document->node_count();
  for (int i = 0; i < 500; ++i)
    body += kNext + kMemo + attributes(text("a") + kMemo + pair(i % 256, 2) + kMemo);
  const Folded many = read(body + "e");
  CHECK(many.document->node_count() == one + 500);
  CHECK(many.row(many.root().at(500)) == "a=[243,2];");
}

TEST_CASE("parts that are asked for again stay, wherever they were") {
  // memo: 0 class, 1 text "a", 2 the pair; asked for in the second object and after it
  const Folded f =
      read("](" + kFirst + attributes(text("a") + kMemo + pair(3, 4) + kMemo) + kNext +
           attributes("h\x01h\x02") + "h\x01h\x02" + kNext + attributes(text("b") + "h\x02") + "e");
  REQUIRE(f.code == "no error");
  CHECK(f.row(f.root().at(0)) == "a=[3,4];");
  CHECK(f.row(f.root().at(1)) == "a=[3,4];");
  CHECK(f.root().at(2).text() == "a");
  CHECK(to_json(f.root().at(3), {}) == "[3,4]");
  CHECK(f.row(f.root().at(4)) == "b=[3,4];");
}

TEST_CASE("an object that is asked for again is the same") {
  const Folded f = read("](" + kFirst + kMemo + attributes(text("a") + "K\x01") + kNext +
                        attributes(text("b") + "h\x01") + "h\x01" + "e");
  REQUIRE(f.code == "no error");
  CHECK(f.root().at(0) == f.root().at(2));
  CHECK(f.row(f.root().at(2)) == "a=1;");
}

TEST_CASE("what could still change stays in the tree") {
  // a list inside that is appended to later
  const Folded list = read("](" + kFirst + attributes(text("a") + "]" + kMemo) +
                           "h\x01K\x09"
                           "a" +
                           "e");
  REQUIRE(list.code == "no error");
  CHECK(list.row(list.root().at(0)) == "tree");
  CHECK(to_json(list.root().at(0).attribute("a"), {}) == "[9]");
  // its dict of attributes
  const Folded dict =
      read("](" + kFirst + "}" + kMemo + "(" + text("a") + "K\x01ub" + "h\x01" + text("b") + "K\x02s0e");
  REQUIRE(dict.code == "no error");
  CHECK(dict.row(dict.root().at(0)) == "tree");
  CHECK(dict.root().at(0).attribute("b").integer() == 2);
}

TEST_CASE("a part that something older has stays") {
  // [] remembered as 0; inside of the object's state the pair goes into that list, too
  const Folded f = read("]" + kMemo + "(cm\nC\n)\x81}(" + text("a") + pair(1, 2) + kMemo + "h" + raw("\x00") +
                        "h\x01"
                        "a0ube");
  REQUIRE(f.code == "no error");
  REQUIRE(f.root().size() == 2);
  CHECK(to_json(f.root().at(0), {}) == "[1,2]");
  CHECK(f.row(f.root().at(1)) == "tree");
}

TEST_CASE("an object on the stack twice, or not where it was made") {
  const Folded twice = read("](" + kFirst + "2" + attributes(text("a") + "K\x01") + "e");
  REQUIRE(twice.code == "no error");
  CHECK(twice.root().at(0) == twice.root().at(1));
  const Folded other =
      read("(" + kFirst + kMemo + "0" + pair(1, 2) + "h\x01" + attributes(text("a") + "K\x01") + "t");
  REQUIRE(other.code == "no error");
  CHECK(to_json(other.root().at(0), {}) == "[1,2]");
  CHECK(other.row(other.root().at(1)) == "tree");
}

TEST_CASE("attributes given twice are refused, arguments keep an object in the tree") {
  CHECK(read(kFirst + attributes(text("a") + "K\x01") + attributes(text("a") + "K\x02")).code ==
        "pickle.build");
  CHECK(
      read(kFirst + kMemo + attributes(text("a") + "K\x01") + "0h\x01" + attributes(text("b") + "N")).code ==
      "pickle.build");
  const Folded f = read("cm\nC\nK\x01" + raw("\x85\x81") + attributes(text("a") + "K\x01"));
  REQUIRE(f.code == "no error");
  CHECK(f.row(f.root()) == "tree");
}

TEST_CASE("items that a folded object is given later are kept beside it") {
  const Folded f = read(kFirst + attributes(text("a") + "K\x01") + "K\x09" + "a");
  REQUIRE(f.code == "no error");
  CHECK(f.row(f.root()) == "a=1;");
  CHECK(f.root().item(0).second.integer() == 9);
}

TEST_CASE("an object that has items when it gets its state stays in the tree") {
  const Folded f = read(kFirst + "K\x09" + "a" + attributes(text("a") + "K\x01"));
  REQUIRE(f.code == "no error");
  CHECK(f.row(f.root()) == "tree");
  CHECK(f.root().item(0).second.integer() == 9);
}

TEST_CASE("a cycle through an object is told") {
  const Folded f = read(kFirst + kMemo + attributes(text("a") + "h\x01"));
  REQUIRE(f.code == "no error");
  CHECK(f.document->cyclic());
}

TEST_CASE("numbers of the memo that count by other rules") {
  // one far away; one that is asked for before it is there; one that is put again
  CHECK(read("(r\xff\xff\xff\xff"
             "0")
            .code == "pickle.underflow");
  const Folded far = read("(" + text("x") + "r\xff\xff\xff\xff" + "j\xff\xff\xff\xff" + "t");
  REQUIRE(far.code == "no error");
  CHECK(far.root().at(0) == far.root().at(1));
  CHECK(read("h\x05").code == "pickle.memo");
  const Folded again = read("(" + text("x") + "q\x05" + text("y") + "q\x05h\x05t");
  REQUIRE(again.code == "no error");
  CHECK(again.root().at(2).text() == "y");
}

TEST_CASE("folded keys of a dict") {
  const Folded f =
      read("}(" + kFirst + attributes(text("a") + "K\x01") + kNext + attributes(text("b") + "K\x02") + "u");
  REQUIRE(f.code == "no error");
  CHECK(f.row(f.root().entry(0).first) == "a=1;");
  CHECK(f.row(f.root().entry(0).second) == "b=2;");
}
