// Opcode by opcode: the value a snippet becomes, or the error it gives.
#include "lib/pickle/machine.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/pickle/json.h"
#include "lib/pickle/python2_names.h"
#include "tests/unit/pickle/raw.h"

using namespace uckpt;
using namespace uckpt::pickle;

namespace {

std::unique_ptr<Document> load(const std::string& pickle, const Limits& limits = {}) {
  return parse_whole(Bytes(pickle.begin(), pickle.end()), limits);
}

std::string error_code(const std::string& pickle, const Limits& limits = {}) {
  try {
    load(pickle, limits);
  } catch (const Error& e) {
    return e.code();
  }
  return "no error";
}

std::string error_text(const std::string& pickle) {
  try {
    load(pickle);
  } catch (const Error& e) {
    return e.message();
  }
  return "no error";
}

// A snippet without its PROTO and STOP.
std::string json_of(const std::string& body) {
  return to_json(load(raw("\x80\x02") + body + ".")->root(), {});
}

std::string code_of(const std::string& body) { return error_code(raw("\x80\x02") + body + "."); }

std::string text(std::string_view s) {
  std::string out = "X";
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(s.size() >> shift & 0xff);
  return out + std::string(s);
}

}  // namespace

TEST_CASE("plain values") {
  CHECK(json_of("N") == "null");
  CHECK(json_of("\x88") == "true");
  CHECK(json_of("\x89") == "false");
  CHECK(json_of("K\xff") == "255");
  CHECK(json_of(raw("M\x00\x01")) == "256");
  CHECK(json_of(raw("J\xff\xff\xff\xff")) == "-1");
  CHECK(json_of(raw("\x8a\x00")) == "0");
  CHECK(json_of(raw("\x8a\x01\xff")) == "-1");
  CHECK(json_of(raw("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01")) == "18446744073709551616");
  CHECK(json_of(raw("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xff")) == "-18446744073709551616");
  CHECK(json_of(raw("\x8a\x0a\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")) == "1");  // zeros that say nothing
  CHECK(json_of(raw("\x8b\x01\x00\x00\x00\x05")) == "5");
  CHECK(json_of(raw("G\x3f\xf8\x00\x00\x00\x00\x00\x00")) == "1.5");
  CHECK(json_of(raw("G\x80\x00\x00\x00\x00\x00\x00\x00")) == "-0.0");
  CHECK(json_of(raw("G\x7f\xf0\x00\x00\x00\x00\x00\x00")) == "\"inf\"");
  CHECK(json_of(raw("G\x3e\x45\x79\x8e\xe2\x30\x8c\x3a")) == "1e-08");
  CHECK(json_of(text("a\"\n\x01")) == "\"a\\\"\\n\\u0001\"");
  CHECK(json_of(text("\xed\xa0\x80")) == "\"\\ud800\"");
  CHECK(json_of(raw("U\x02hi")) == "\"hi\"");
  CHECK(json_of(raw("U\x01\xff")) == "{\"__bytes__\":\"ff\"}");
  CHECK(json_of(raw("T\x02\x00\x00\x00hi")) == "\"hi\"");
  CHECK(json_of(raw("C\x02\x00\xff")) == "{\"__bytes__\":\"00ff\"}");
  CHECK(json_of(raw("B\x01\x00\x00\x00\x07")) == "{\"__bytes__\":\"07\"}");
  CHECK(json_of(raw("\x8e\x01\x00\x00\x00\x00\x00\x00\x00\x07")) == "{\"__bytes__\":\"07\"}");
  CHECK(json_of(raw("\x96\x01\x00\x00\x00\x00\x00\x00\x00\x07")) == "{\"__bytes__\":\"07\"}");
  CHECK(json_of(raw("\x8c\x01y")) == "\"y\"");
  CHECK(json_of(raw("\x8d\x01\x00\x00\x00\x00\x00\x00\x00y")) == "\"y\"");
}

TEST_CASE("containers") {
  CHECK(json_of(")") == "[]");
  CHECK(json_of("K\x01\x85") == "[1]");
  CHECK(json_of("K\x01K\x02\x86") == "[1,2]");
  CHECK(json_of("K\x01K\x02K\x03\x87") == "[1,2,3]");
  CHECK(json_of("(K\x01K\x02K\x03K\x04t") == "[1,2,3,4]");
  CHECK(json_of("(K\x01l") == "[1]");
  CHECK(json_of("]K\x01"
                "a") == "[1]");
  CHECK(json_of("](K\x01K\x02"
                "e(K\x03"
                "e") == "[1,2,3]");
  CHECK(json_of("]q\x01"
                "0]h\x01K\x05"
                "a0h\x01K\x06"
                "a0h\x01(K\x07K\x08"
                "e0\x85h\x01\x86") == "[[[]],[5,6,7,8]]");  // scattered
  CHECK(json_of("}K\x01K\x02s") == "{\"1\":2}");
  CHECK(json_of("}(" + text("a") + "N" + text("b") + "Nu") == "{\"a\":null,\"b\":null}");
  CHECK(json_of("(" + text("a") + "Nd") == "{\"a\":null}");
  CHECK(json_of("\x8f(K\x01K\x02\x90") == "[1,2]");
  CHECK(json_of("(K\x01\x91") == "[1]");
  CHECK(json_of("K\x01\x32\x86") == "[1,1]");  // DUP
  CHECK(json_of("](K\x01K\x02\x31") == "[]");  // POP_MARK
  CHECK(json_of("K\x07q\x05"
                "0h\x05") == "7");
  CHECK(json_of(raw("K\x07r\xff\xff\xff\xff"
                    "0j\xff\xff\xff\xff")) == "7");
  CHECK(json_of(raw("K\x07\x94K\x08\x94\x86h\x00\x86")) == "[[7,8],7]");
}

TEST_CASE("calls and objects") {
  CHECK(json_of("ccollections\nOrderedDict\n)RK\x01K\x02s") == "{\"1\":2}");
  CHECK(json_of("ccollections\nOrderedDict\n]]K\x01"
                "aK\x02"
                "aa\x85R") == "{\"1\":2}");  // Python 2 spelling
  CHECK(json_of("ccollections\nCounter\n}K\x01K\x02s\x85R") == "{\"1\":2}");
  CHECK(json_of("ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RK\x01K\x02s") == "{\"1\":2}");
  CHECK(json_of("c__builtin__\nset\n](K\x01K\x02"
                "e\x85R") == "[1,2]");
  CHECK(json_of("c__builtin__\nbytes\n)R") == "{\"__bytes__\":\"\"}");
  CHECK(json_of("ctorch\nSize\nK\x02K\x03\x86\x85R") == "[2,3]");
  CHECK(json_of("c_codecs\nencode\n" +
                text("\xc3\xbf"
                     "a") +
                text("latin1") + "\x86R") == "{\"__bytes__\":\"ff61\"}");
  CHECK(json_of("c_codecs\nencode\n" + text("a") + text("rot13") + "\x86R") ==
        "{\"__class__\":\"_codecs.encode\",\"args\":[\"a\",\"rot13\"]}");
  CHECK(json_of(raw("cbuiltins\nbytearray\n\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40\x85R")) ==
        "{\"__class__\":\"builtins.bytearray\",\"args\":[4611686018427387904]}");
  CHECK(json_of("cargparse\nNamespace\n)\x81}" + text("lr") + "K\x01sb") ==
        "{\"__class__\":\"argparse.Namespace\",\"lr\":1}");
  CHECK(json_of("cm\nE\nK\x01\x85R") == "{\"__class__\":\"m.E\",\"args\":[1]}");
  CHECK(json_of("cm\nC\n)}" + text("k") + "K\x01s\x92") == "{\"__class__\":\"m.C\",\"args\":[{\"k\":1}]}");
  CHECK(json_of("cm\nC\n)\x81N}" + text("s") +
                "K\x01s\x86"
                "b") == "{\"__class__\":\"m.C\",\"s\":1}");
  CHECK(json_of("cm\nC\n)\x81K\x07"
                "b") == "{\"__class__\":\"m.C\",\"__state__\":7}");
  CHECK(json_of("cm\nL\n)\x81(K\x01K\x02"
                "e") == "{\"__class__\":\"m.L\",\"__items__\":[1,2]}");
  CHECK(json_of("cm\nD\n)\x81K\x01K\x02s") == "{\"__class__\":\"m.D\",\"__items__\":{\"1\":2}}");
  CHECK(json_of("ccopy_reg\n_reconstructor\ncm\nC\nc__builtin__\nobject\nN\x87R}" + text("a") + "Nsb") ==
        "{\"__class__\":\"m.C\",\"a\":null}");
  CHECK(json_of("(K\x01im\nC\n") == "{\"__class__\":\"m.C\",\"args\":[1]}");
  CHECK(json_of("(K\x01\x85i__builtin__\nset\n") == "[1]");
  CHECK(json_of("(icollections\nOrderedDict\n") == "{}");
  CHECK(json_of("(cm\nC\nK\x01o") == "{\"__class__\":\"m.C\",\"args\":[1]}");
  CHECK(json_of("ctorch\nbfloat16\n") == "{\"__class__\":\"torch.dtype\",\"name\":\"torch.bfloat16\"}");
  CHECK(json_of("cm\nf\n") == "{\"__global__\":\"m.f\"}");
  CHECK(json_of("cpathlib\nPosixPath\n" + text("a") + text("b") + "\x86R") ==
        "{\"__class__\":\"pathlib.PosixPath\",\"path\":\"a/b\"}");
  CHECK(json_of(text("x") + "Q") == "{\"__persistent__\":\"x\"}");
  CHECK(json_of("Px\n") == "{\"__persistent__\":\"x\"}");
  const std::string module = "(" + text("module") + "cm\nC\n" + text("m.py") + text("class C: …") + "tQ";
  CHECK(json_of(module) == "{\"__global__\":\"m.C\"}");
  CHECK(json_of(module + ")\x81}" + text("a") + "Nsb") == "{\"__class__\":\"m.C\",\"a\":null}");
  CHECK(json_of(text("m") + text("f") + "\x93") == "{\"__global__\":\"m.f\"}");
}

TEST_CASE("what is malformed is refused with its opcode and byte") {
  CHECK(error_code("") == "pickle.truncated");
  CHECK(error_code(raw("\x80\x06N.")) == "pickle.protocol");
  CHECK(error_code(raw("\x80\x01N.")) == "pickle.protocol");
  CHECK(error_code("N.") == "pickle.protocol");
  CHECK(error_code(raw("\x80\x02\x80\x02N.")) == "pickle.protocol");
  CHECK(error_code(raw("\x80\x02N.N")) == "pickle.trailing");
  CHECK(error_code(raw("\x80\x02N")) == "pickle.truncated");
  CHECK(code_of("") == "pickle.stop");
  CHECK(code_of("NN") == "pickle.stop");
  CHECK(code_of("N(") == "pickle.stop");
  CHECK(code_of("N\x87") == "pickle.underflow");
  CHECK(code_of("N(0") == "pickle.underflow");
  CHECK(code_of("N((e") == "pickle.underflow");
  CHECK(code_of("t") == "pickle.no_mark");
  CHECK(code_of("}(NNNu") == "pickle.odd_items");
  CHECK(code_of("}N"
                "a") == "pickle.container");
  CHECK(code_of("]NNs") == "pickle.container");
  CHECK(code_of("](N\x90") == "pickle.container");
  CHECK(code_of("ctorch.nn.parameter\nParameter\n)\x81NNs") == "pickle.container");
  CHECK(code_of("}]Ns") == "pickle.unhashable");
  CHECK(code_of("}]\x85Ns") == "pickle.unhashable");
  CHECK(code_of("}(K\x01NK\x01Nu") == "pickle.duplicate_key");
  CHECK(code_of("}(K\x01N\x88Nu") == "pickle.duplicate_key");  // 1 == True
  CHECK(code_of("}(K\x01\x85NK\x01\x85Nu") == "pickle.duplicate_key");
  CHECK(code_of("}(K\x01\x85NK\x02\x85Nu") == "no error");
  CHECK(code_of("}(" + text("1") + "NK\x01Nu") == "no error");
  CHECK(code_of("h\x01") == "pickle.memo");
  CHECK(code_of("q\x01") == "pickle.underflow");
  CHECK(code_of("NNb") == "pickle.build");
  CHECK(code_of("N)R") == "pickle.callable");
  CHECK(code_of("cm\nf\nNR") == "pickle.arguments");
  CHECK(code_of("NN\x93") == "pickle.global");
  CHECK(code_of("F1\n") == "pickle.text_opcode");
  CHECK(code_of("\x82\x01") == "pickle.extension");
  CHECK(code_of("\x97") == "pickle.buffer");
  CHECK(code_of("\xff") == "pickle.opcode");
  CHECK(code_of(raw("X\x01\x00\x00\x00\xff")) == "pickle.utf8");
  CHECK(code_of(raw("X\xff\xff\xff\xff")) == "pickle.truncated");
  CHECK(code_of(raw("\x8e\xff\xff\xff\xff\xff\xff\xff\xff")) == "pickle.truncated");
  CHECK(code_of(raw("\x8b\xff\xff\xff\xff")) == "pickle.length");
  CHECK(code_of(raw("\x8b\xff\xff\xff\x7f")) == "pickle.truncated");
  CHECK(code_of(raw("T\xff\xff\xff\xff")) == "pickle.length");
  CHECK(error_text(raw("\x80\x02N\x87.")) == "TUPLE3 at byte 3: expected 3 values on the stack, found 1");
}

TEST_CASE("frames") {
  const auto framed = [](uint8_t size, const std::string& body) {
    return raw("\x80\x04\x95") + static_cast<char>(size) + std::string(7, '\0') + body;
  };
  CHECK(error_code(framed(2, "N.")) == "no error");
  CHECK(error_code(framed(1, "N.")) == "no error");
  CHECK(error_code(framed(0, "N.")) == "no error");
  CHECK(error_code(framed(3, "N.")) == "pickle.truncated");
  CHECK(error_code(framed(2, "N.N")) == "pickle.trailing");
  CHECK(error_code(framed(3, "N.N")) == "pickle.frame");
  CHECK(error_code(framed(1, "K\x01.")) == "pickle.frame");
  CHECK(error_code(framed(3, "cab\nc\n.")) == "pickle.frame");
  CHECK(error_code(framed(11, framed(2, "N.").substr(2))) == "pickle.frame");
}

TEST_CASE("limits") {
  Limits limits;
  limits.depth = 10;
  const auto nested = [](int n) {
    return raw("\x80\x02") + std::string(static_cast<size_t>(n), ']') +
           std::string(static_cast<size_t>(n) - 1, 'a') + ".";
  };
  CHECK(error_code(nested(10), limits) == "no error");
  CHECK(error_code(nested(11), limits) == "limit.depth");
  CHECK(error_code(nested(20000)) == "limit.depth");
  // Top down, through the memo: each list is put into its parent before it is filled.
  std::string down = raw("\x80\x02]q\x00");
  for (int i = 0; i < 200; ++i) {
    down += 'h';
    down += static_cast<char>(i);
    down += "]q";
    down += static_cast<char>(i + 1);
    down += "a0";
  }
  CHECK(error_code(down + ".") == "no error");
  CHECK(error_code(down + ".", limits) == "limit.depth");
  limits = {};
  limits.nodes = 100;
  CHECK(error_code(raw("\x80\x02(") + std::string(200, '}') + "t.", limits) == "limit.nodes");
  limits = {};
  limits.string_bytes = 3;
  CHECK(error_code(raw("\x80\x02\x8c\x04"
                       "abcd."),
                   limits) == "limit.string_bytes");
  CHECK(error_code(raw("\x80\x02"
                       "c") +
                   std::string(2000, 'a') + "\nb\n.") == "limit.global_name");
  CHECK(error_code(raw("\x80\x02"
                       "c") +
                   std::string(1000, 'a') + "\nb\n.") == "no error");
  // A list of a million items copied a thousand times.
  std::string copies = raw("\x80\x02](") + std::string(1 << 20, 'N') + raw("eq\x00(");
  for (int i = 0; i < 2000; ++i) copies += raw("c__builtin__\nlist\nh\x00\x85R");
  CHECK(error_code(copies + "t.") == "limit.memory");
  CHECK_THROWS_AS(limits.set("depht", 5), Error);
  limits.set("depth", 5);
  CHECK(limits.depth == 5);
}

TEST_CASE("graphs: shared parts and cycles") {
  const auto cycle =
      load(raw("\x80\x02]q\x00h\x00"
               "a."));
  CHECK(cycle->cyclic());
  CHECK_THROWS_AS(to_json(cycle->root(), {}), Error);
  CHECK(to_tree(cycle->root()) == "list, 1 &1\n  0: list, 1 <cycle>\n");
  CHECK(load(raw("\x80\x02]q\x00(h\x00tq\x01"
                 "0h\x01"
                 "a."))
            ->cyclic());

  std::string laughs = raw("\x80\x02]q\x00");
  for (int i = 0; i < 60; ++i) {
    laughs += "](h";
    laughs += static_cast<char>(i);
    laughs += 'h';
    laughs += static_cast<char>(i);
    laughs += "eq";
    laughs += static_cast<char>(i + 1);
  }
  laughs.insert(2, "(");
  laughs += "h\x3c\x85q\xff\x31h\xff.";
  const auto document = load(laughs);
  CHECK(!document->cyclic());
  try {
    to_json(document->root(), {});
    FAIL("expected a refusal");
  } catch (const Error& e) {
    CHECK(e.code() == "limit.json_bytes");
  }
  CHECK(std::ranges::count(to_tree(document->root()), '\n') < 200);
}

TEST_CASE("dangerous globals are reported, whatever became of them") {
  const auto danger = [](const std::string& body) {
    const auto document = load(raw("\x80\x04") + body + ".");
    return document->danger()
               ? cat(document->danger()->global, document->danger()->is_call ? " called" : " named", " at ",
                     document->danger()->at)
               : "none";
  };
  CHECK(danger(raw("cos\nsystem\n(Ntq\x00R")) == "os.system called at 18");
  CHECK(danger("N(cposix\nsystem\n)R1") == "posix.system called at 19");
  CHECK(danger("(N" + std::string("ios\nsystem\n")) == "os.system called at 4");
  CHECK(danger("(cos\nsystem\nNo") == "os.system called at 15");
  CHECK(danger("csubprocess\nPopen\n)\x81") == "subprocess.Popen called at 21");
  CHECK(danger("c__builtin__\neval\n)R") == "__builtin__.eval called at 21");
  CHECK(danger("cm\nOuter.mode\n") == "m.Outer.mode named at 2");
  CHECK(danger("cm\nOuter.Mode\n)R") == "none");
  CHECK(danger("ctorch.serialization\nos.system\n") == "torch.serialization.os.system named at 2");
  CHECK(danger("cm\nf\n)R" + text("x") + "\x93") == "<computed>.x named at 15");
  CHECK(danger("ccopyreg\n_reconstructor\ncos\nsystem\ncbuiltins\nobject\nN\x87R") ==
        "os.system called at 56");
  CHECK(danger("cm\nf\n)R") == "none");
}

TEST_CASE("getattr of a class and a constant names a nested class; any other is dangerous") {
  const auto found = [](const std::string& body, char protocol = 2) {
    const auto document = load(std::string("\x80") + protocol + body + ".");
    const auto& danger = document->danger();
    return danger ? cat("danger: ", danger->global, danger->is_call ? " called" : " named")
                  : to_json(document->root(), {});
  };
  const auto call = [](const std::string& of, const std::string& name) {
    return "c__builtin__\ngetattr\n" + of + text(name) + raw("\x86R");
  };
  const std::string outer = "cm\nOuter\n", flagged = "danger: builtins.getattr called";
  CHECK(found(call(outer, "Mode")) == R"({"__global__":"m.Outer.Mode"})");
  CHECK(found(call(outer, "Mode"), 3) == "danger: __builtin__.getattr called");  // no such module there
  CHECK(found(call(call(outer, "Deep"), "In") + raw(")\x81")) == R"({"__class__":"m.Outer.Deep.In"})");
  CHECK(found(call("czoneinfo\nZoneInfo\n", "_unpickle")) ==
        R"({"__global__":"zoneinfo.ZoneInfo._unpickle"})");
  for (const char* name : {"mode", "__new__", "__Mode", "_Mode.X", "Mode x", "", "_", "M\nX", "\xc3\x84"})
    CHECK_MESSAGE(found(call(outer, name)) == flagged, name);
  for (const char* of : {"cm\nouter\n", "ctorch.serialization\nos\n", "cos\nOuter\n", "ctorch\nSize\n",
                         "cpathlib\nPosixPath\n", "ccollections\nOrderedDict\n", "cm\nf\n)R", "N"})
    CHECK_MESSAGE(found(call(of, "Mode")).starts_with("danger: "), of);
  CHECK(found(call(call("cm\nf\n)R", "Mode"), "X")) == flagged);
  // Nine classes in one another.
  std::string deep = outer;
  for (int i = 0; i < 8; ++i) deep = call(deep, "C");
  CHECK(found(deep) == flagged);
  // A part that is computed, another number of parts, and getattr as a value or under another opcode.
  CHECK(found("c__builtin__\ngetattr\n" + outer + "cm\nf\n)R" + raw("\x86R")) == flagged);
  CHECK(found("c__builtin__\ngetattr\n(" + outer + text("Mode") + "NtR") == flagged);
  CHECK(found("c__builtin__\ngetattr\n" + outer + text("Mode") + raw("\x86\x81")) == flagged);
  const std::string named = "danger: builtins.getattr named";
  CHECK(found("c__builtin__\ngetattr\n") == named);
  CHECK(found("c__builtin__\ngetattr\n0N") == named);
  CHECK(found("(" + call(outer, "Mode") + "c__builtin__\ngetattr\nt") == named);
  CHECK(found("(" + call(outer, "Mode") + "cos\nsystem\nt") == "danger: os.system named");
}

TEST_CASE("names of Python 2 are mapped before protocol 3, as pairs, as Python does") {
  const auto full = [](const char* module, const char* name, int protocol = 2) {
    return make_global(module, name, protocol).full;
  };
  CHECK(full("UserDict", "IterableUserDict") == "collections.UserDict");
  CHECK(full("UserDict", "UserDict") == "collections.UserDict");
  CHECK(full("UserDict", "DictMixin") == "collections.DictMixin");
  CHECK(full("itertools", "izip_longest") == "itertools.zip_longest");
  CHECK(full("__builtin__", "intern") == "sys.intern");
  CHECK(full("exceptions", "StandardError") == "builtins.Exception");
  CHECK(full("exceptions", "Mine") == "exceptions.Mine");
  CHECK(full("urllib2", "URLError") == "urllib.error.URLError");
  CHECK(full("UserDict", "UserDict", 3) == "UserDict.UserDict");
  CHECK(make_global("commands", "getoutput", 3).trust == GlobalClass::kDangerous);
  CHECK(for_protocol_2({"dbm.ndbm", "library"}) == PlaceOfName{"dbm.ndbm", "library"});
  CHECK(for_protocol_2({"dbm", "whichdb"}) == PlaceOfName{"whichdb", "whichdb"});
  CHECK(for_protocol_2({"dbm", "error"}) == PlaceOfName{"anydbm", "error"});
  CHECK(!for_protocol_2({"Queue", "Mine"}));
}

TEST_CASE("every prefix of a pickle is an error, and partial input asks for more") {
  const std::string whole = raw("\x80\x04\x95\x2e\x00\x00\x00\x00\x00\x00\x00") +
                            raw("}(\x8c\x01"
                                "a](K\x01M\x01\x02"
                                "e\x8c\x01"
                                "b\x8c\x01m\x8c\x01"
                                "C\x93)\x81}\x8c\x01xG\x3f\xf8\x00\x00\x00\x00\x00\x00sb\x8c\x01"
                                "cNu.");
  CHECK(to_json(load(whole)->root(), {}) ==
        "{\"a\":[1,513],\"b\":{\"__class__\":\"m.C\",\"x\":1.5},\"c\":null}");
  for (size_t n = 0; n < whole.size(); ++n) {
    CHECK_THROWS_AS(load(whole.substr(0, n)), Error);
    const auto part = std::make_shared<const Bytes>(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(n));
    CHECK(parse_prefix(part, whole.size(), {}) == nullptr);
  }
  const std::string two = whole + whole;
  const auto both = std::make_shared<const Bytes>(two.begin(), two.end());
  const auto first = parse(both, 0, {});
  CHECK(first->end() == whole.size());
  CHECK(parse(both, first->end(), {})->end() == two.size());
}

TEST_CASE("looking things up") {
  const auto document = load(raw("\x80\x02}(") + text("lr") +
                             "K\x05"
                             "K\x07" +
                             text("seven") + "K\x01\x85N" + "u.");
  const Value root = document->root();
  CHECK(root.size() == 3);
  CHECK(root.get("lr").integer() == 5);
  CHECK(root.get_int(7).text() == "seven");
  CHECK(!root.get("none"));
  CHECK(!root.get_int(8));
  CHECK(root.entry(2).first.at(0).integer() == 1);
  CHECK(root.global_name() == "dict");
  const auto object = load(raw("\x80\x02"
                               "cm\nC\nK\x03\x85\x81}") +
                           text("a") + "K\x01sb.");
  CHECK(object->root().kind() == Kind::kObject);
  CHECK(object->root().global_name() == "m.C");
  CHECK(object->root().global_class() == GlobalClass::kUnknown);
  CHECK(object->root().args().at(0).integer() == 3);
  CHECK(object->root().attribute("a").integer() == 1);
  CHECK(!object->root().attribute("b"));
}
