// What the pickler writes, byte for byte where Python's can be compared, and what our machine reads back.
#include "lib/pickle/pickler.h"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/pickle/json.h"
#include "lib/pickle/machine.h"
#include "tests/unit/pickle/raw.h"
#include "tests/unit/pickle/same_graph.h"

using namespace uckpt;
using namespace uckpt::pickle;

namespace {

std::string as_string(const Bytes& bytes) { return {bytes.begin(), bytes.end()}; }

template <class Write>
std::string written(Write write) {
  Pickler pickler;
  write(pickler);
  return as_string(pickler.finish());
}

std::unique_ptr<Document> load(const std::string& pickle) {
  return parse_whole(Bytes(pickle.begin(), pickle.end()), {});
}

std::string copied(const Value& value) {
  return written([&](Pickler& out) { out.copy(value); });
}

// A snippet without PROTO and STOP: read, written, without them again.
std::string again(const std::string& body) {
  const auto document = load(raw("\x80\x04") + body + ".");
  const std::string out = copied(document->root());
  const auto back = load(out);
  CHECK(graph_difference(document->root(), back->root()) == "");
  if (!document->cyclic()) CHECK(to_json(document->root(), {}) == to_json(back->root(), {}));
  return out.substr(2, out.size() - 3);
}

std::string code_of(const std::string& body) {
  const auto document = load(raw("\x80\x04") + body + ".");
  try {
    copied(document->root());
  } catch (const Error& e) {
    return e.code();
  }
  return "no error";
}

std::string text(std::string_view s) {
  std::string out = "X";
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(s.size() >> shift & 0xff);
  return out + std::string(s);
}

template <class Write>
std::string body(Write write) {
  const std::string out = written(write);
  return out.substr(2, out.size() - 3);
}

}  // namespace

TEST_CASE("plain values are written as Python writes them") {
  CHECK(body([](Pickler& out) { out.none(); }) == "N");
  CHECK(body([](Pickler& out) { out.boolean(true); }) == "\x88");
  CHECK(body([](Pickler& out) { out.boolean(false); }) == "\x89");
  const auto integer = [](int64_t value) { return body([&](Pickler& out) { out.integer(value); }); };
  CHECK(integer(0) == raw("K\x00"));
  CHECK(integer(255) == "K\xff");
  CHECK(integer(256) == raw("M\x00\x01"));
  CHECK(integer(65535) == "M\xff\xff");
  CHECK(integer(65536) == raw("J\x00\x00\x01\x00"));
  CHECK(integer(-1) == "J\xff\xff\xff\xff");
  CHECK(integer(0x7fffffff) == "J\xff\xff\xff\x7f");
  CHECK(integer(0x80000000) == raw("\x8a\x05\x00\x00\x00\x80\x00"));
  CHECK(integer(-0x80000000LL) == raw("J\x00\x00\x00\x80"));
  CHECK(integer(-0x80000001LL) == raw("\x8a\x05\xff\xff\xff\x7f\xff"));
  CHECK(integer(std::numeric_limits<int64_t>::min()) == raw("\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"));
  const auto big = [](Bytes bytes) { return body([&](Pickler& out) { out.big_integer(bytes); }); };
  CHECK(big({0, 0, 0, 0, 0, 0, 0, 0x80, 0}) == raw("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00"));
  CHECK(big({0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}) == raw("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01"));
  CHECK(big({}) == raw("K\x00"));
  CHECK(big({0, 0}) == raw("K\x00"));
  CHECK(big({0xff, 0xff, 0xff}) == raw("J\xff\xff\xff\xff"));
  CHECK(big(Bytes(300, 0x11)).substr(0, 5) == raw("\x8b\x2c\x01\x00\x00"));
  const auto real = [](double value) { return body([&](Pickler& out) { out.real(value); }); };
  CHECK(real(2.5) == raw("G\x40\x04\x00\x00\x00\x00\x00\x00"));
  CHECK(real(-0.0) == raw("G\x80\x00\x00\x00\x00\x00\x00\x00"));
  CHECK(real(HUGE_VAL) == raw("G\x7f\xf0\x00\x00\x00\x00\x00\x00"));
  CHECK(real(std::bit_cast<double>(0x7ff8000000000123)) == raw("G\x7f\xf8\x00\x00\x00\x00\x01\x23"));
  CHECK(body([](Pickler& out) { out.text("\xed\xa0\x80"); }) == raw("X\x03\x00\x00\x00\xed\xa0\x80q\x00"));
  CHECK(written([](Pickler& out) {
          out.begin_list();
          out.bytes(Bytes{0, 0xff, 'a', 'b'});
          out.bytes(Bytes{'x', 'y'});
          out.end_list();
        }) ==
        raw("\x80\x02]q\x00(c_codecs\nencode\nq\x01X\x05\x00\x00\x00\x00\xc3\xbf"
            "abq\x02X\x06\x00\x00\x00latin1q\x03\x86q\x04Rq\x05h\x01X\x02\x00\x00\x00xyq\x06h\x03\x86q\x07Rq"
            "\x08"
            "e."));
  CHECK(again("]" + text("x") + "a") == "]q" + raw("\x00") + text("x") + "q\x01" + "a");
}

TEST_CASE("containers are written as Python writes them") {
  // {'a': 1, 'b': [1, 2.5, None], 'c': (1, 2, 3, 4)}
  const std::string tree =
      raw("}q\x00(X\x01\x00\x00\x00\x61q\x01K\x01X\x01\x00\x00\x00\x62q\x02]q\x03(K\x01G@"
          "\x04\x00\x00\x00\x00\x00\x00NeX\x01\x00\x00\x00\x63q\x04(K\x01K\x02K\x03K\x04tq\x05u");
  CHECK(again(tree) == tree);
  CHECK(body([](Pickler& out) {
          out.begin_dict();
          out.text("a"), out.integer(1);
          out.text("b");
          out.begin_list();
          out.integer(1), out.real(2.5), out.none();
          out.end_list();
          out.text("c");
          out.begin_tuple(4);
          for (int i = 1; i <= 4; ++i) out.integer(i);
          out.end_tuple();
          out.end_dict();
        }) == tree);
  for (const std::string& same :
       {raw("]q\x00}q\x01X\x01\x00\x00\x00kq\x02)sa"),  // [{'k': ()}]
        raw("()K\x01\x85q\x00K\x01K\x02\x86q\x01K\x01K\x02K\x03\x87q\x02(K\x01K\x02K\x03K\x04tq\x03tq\x04"),
        raw("cbuiltins\nset\nq\x00]q\x01K\x05\x61\x85q\x02Rq\x03"),
        raw("ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\x00\x00\x00\x61q\x02K\x01s"),
        raw("cargparse\nNamespace\nq\x00)\x81q\x01}q\x02X\x02\x00\x00\x00lrq\x03K\x01sb"),
        raw("ccollections\ndefaultdict\nq\x00"
            "cbuiltins\nint\nq\x01\x85q\x02Rq\x03K\x01K\x02s"),
        raw("ccollections\nCounter\nq\x00}q\x01X\x01\x00\x00\x00\x61q\x02K\x02s\x85q\x03Rq\x04"),
        raw("ctorch\nSize\nq\x00K\x02K\x03\x86q\x01\x85q\x02Rq\x03"), raw("]q\x00h\x00\x61"),
        raw("]q\x00h\x00\x85q\x01\x61\x30h\x01"),                                // t = ([],); t[0].append(t)
        raw("(K\x01K\x02K\x03]q\x00(K\x01K\x02K\x03h\x00tq\x01\x61\x31h\x01")})  // the same, of four
    CHECK(again(same) == same);
  // Batches of a thousand: nothing is deep on a reader's stack.
  const std::string list = body([](Pickler& out) {
    out.begin_list();
    for (int i = 0; i < 2500; ++i) out.none();
    out.end_list();
  });
  CHECK(list == raw("]q\x00(") + std::string(1000, 'N') + "e(" + std::string(1000, 'N') + "e(" +
                    std::string(500, 'N') + "e");
  CHECK(again(list) == list);
  const std::string dict = body([](Pickler& out) {
    out.begin_dict(DictType::kCounter);
    for (int i = 0; i < 1200; ++i) out.integer(i), out.none();
    out.end_dict();
  });
  CHECK(dict.find("Nu(") != dict.npos);
  CHECK(dict.ends_with("Nu"));
  CHECK(load(raw("\x80\x02") + dict + ".")->root().size() == 1200);
  again(dict);
  CHECK(body([](Pickler& out) { out.begin_list(), out.end_list(); }) == raw("]q\x00"));
  CHECK(body([](Pickler& out) { out.begin_tuple(0), out.end_tuple(); }) == ")");
  // More than 256 remembered values.
  const std::string many = body([](Pickler& out) {
    out.begin_list();
    for (int i = 0; i < 300; ++i) out.begin_list(), out.end_list();
    out.again(300), out.again(2), out.again(300);
    out.end_list();
  });
  CHECK(many.find(raw("]r\x00\x01\x00\x00")) != many.npos);
  CHECK(many.substr(many.size() - 13) == raw("j\x2c\x01\x00\x00h\x02j\x2c\x01\x00\x00\x65"));
  again(many);
}

TEST_CASE("what is written twice is referred to") {
  CHECK(body([](Pickler& out) {
          out.begin_tuple(3);
          out.text("k"), out.text("k"), out.text(std::string(300, 'a'));
          out.end_tuple();
        }) == text("k") + raw("q\x00h\x00") + text(std::string(300, 'a')) + "q\x01\x87q\x02");
  CHECK(body([](Pickler& out) {
          out.begin_tuple(2);
          out.global("builtins", "set"), out.global("builtins", "set");
          out.end_tuple();
        }) == raw("cbuiltins\nset\nq\x00h\x00\x86q\x01"));
  const auto document = load(written([](Pickler& out) {
    out.begin_list();
    out.begin_dict();
    out.end_dict();
    const auto dict = out.last();
    CHECK(dict != Pickler::kNoMemo);
    out.again(dict);
    out.integer(5);
    CHECK(out.last() == Pickler::kNoMemo);
    out.end_list();
  }));
  CHECK(document->root().at(0) == document->root().at(1));
  again(raw("]q\x00(") + text("abc") + "q\x01h\x01" + text("abc") +
        "C\x01zq\x02h\x02\x8f(K\x01\x90q\x03h\x03\x65");
  // Two copies out of one document share what they share there; another document is another matter.
  const auto shared = load(raw("\x80\x02]q\x00(]q\x01h\x01") + text("t") + "q\x02h\x02" + "e.");
  const auto other = load(raw("\x80\x02]."));
  const auto both = load(written([&](Pickler& out) {
    out.begin_list();
    for (const Value& value : {shared->root().at(0), other->root(), shared->root()}) out.copy(value);
    out.end_list();
  }));
  CHECK(to_json(both->root(), {}) == "[[],[],[[],[],\"t\",\"t\"]]");
  CHECK(both->root().at(0) == both->root().at(2).at(1));
  CHECK(!(both->root().at(0) == both->root().at(1)));
  CHECK(both->root().at(2).at(2) == both->root().at(2).at(3));
}

TEST_CASE("calls, objects, states") {
  CHECK(body([](Pickler& out) {
          out.begin_object();
          out.global("argparse", "Namespace");
          out.begin_tuple(0), out.end_tuple();
          out.state();
          out.begin_dict();
          out.text("lr"), out.integer(1), out.text("x"), out.none();
          out.end_dict();
          out.end_object();
        }) ==
        raw("cargparse\nNamespace\nq\x00)\x81q\x01}q\x02(X\x02\x00\x00\x00lrq\x03K\x01X\x01\x00\x00\x00xq"
            "\x04Nub"));
  const std::string ordered = body([](Pickler& out) {
    out.begin_dict(DictType::kOrderedDict);
    out.text("w"), out.integer(1), out.text("v"), out.integer(2);
    out.state();
    out.begin_dict();
    out.text("_metadata"), out.none();
    out.end_dict();
    out.end_dict();
  });
  const auto document = load(raw("\x80\x02") + ordered + ".");
  CHECK(document->root().global_name() == "collections.OrderedDict");
  CHECK(document->root().state().get("_metadata").is_none());
  // A call in a list that is nearly full is one item, whatever it is made of.
  const auto list = load(written([](Pickler& out) {
    out.begin_list();
    for (int i = 0; i < 999; ++i) out.none();
    for (int i = 0; i < 2; ++i) {
      out.begin_call();
      out.global("m", "f");
      out.begin_tuple(1), out.integer(i), out.end_tuple();
      out.end_call();
    }
    out.end_list();
  }));
  CHECK(list->root().size() == 1001);
  CHECK(list->root().at(1000).args().at(0).integer() == 1);
}

TEST_CASE("storages and tensors as torch.save writes them") {
  const std::array<int64_t, 2> shape{2, 3}, stride{3, 1};
  TensorText tensor{DType::kF32, "0", 6, shape, stride, 0, false};
  CHECK(body([&](Pickler& out) { out.tensor(tensor); }) ==
        raw("ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\x00\x00\x00storageq\x01"
            "ctorch\nFloatStorage\nq\x02X\x01\x00\x00\x00"
            "0q\x03X\x03\x00\x00\x00"
            "cpuq\x04K\x06tq\x05QK\x00K\x02K\x03\x86q\x06K\x03K\x01\x86q\x07\x89"
            "ccollections\nOrderedDict\nq\x08)Rq\x09tq\x0aRq\x0b"));
  tensor.dtype = DType::kF8E4M3;
  const auto eight = load(written([&](Pickler& out) { out.tensor(tensor); }));
  CHECK(eight->root().global_name() == "torch._utils._rebuild_tensor_v3");
  CHECK(eight->root().args().at(0).callable().at(1).global_name() == "torch.storage.UntypedStorage");
  CHECK(eight->root().args().at(0).callable().at(4).integer() == 6);
  CHECK(eight->root().args().at(6).global_name() == "torch.float8_e4m3fn");
  tensor.dtype = DType::kU16;
  const auto sixteen = load(written([&](Pickler& out) { out.tensor(tensor); }));
  CHECK(sixteen->root().args().at(0).callable().at(4).integer() == 12);
  tensor.dtype = DType::kF6E2M3;
  CHECK_THROWS_AS(written([&](Pickler& out) { out.tensor(tensor); }), Error);
}

TEST_CASE("every kind of node is copied as it was") {
  CHECK(again(raw("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xff")) ==
        raw("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\xff"));
  for (const std::string& some :
       {raw("\x96\x02\x00\x00\x00\x00\x00\x00\x00\x07\xff"),
        raw("C\x00"),
        raw("B\x01\x00\x00\x00\x80"),
        raw("cbuiltins\nbytes\n)R"),
        raw("cbuiltins\nbytearray\n)R"),
        raw("\x8f"),
        raw("(\x91"),
        raw("(K\x01K\x02\x91"),
        raw("\x8f(K\x01K\x02\x90"),
        raw("ctorch\nSize\n)\x85R"),
        raw("ctorch\nbfloat16\n"),
        raw("cm\nE\nK\x01\x85R"),
        raw("cm\nC\n)}X\x01\x00\x00\x00kK\x01s\x92"),
        raw("cm\nC\nK\x01K\x02\x86}X\x01\x00\x00\x00kK\x01s\x92K\x07"
            "b"),
        raw("cm\nC\n)}\x92"),
        raw("cm\nC\n)\x81N}X\x01\x00\x00\x00sK\x01s\x86"
            "b"),
        raw("cm\nL\n)\x81(K\x01K\x02"
            "eK\x05"
            "b"),
        raw("cm\nL\n)\x81K\x01"
            "a"),
        raw("cm\nD\n)RK\x01K\x02s}b"),
        raw("ccopyreg\n_reconstructor\ncm\nC\ncbuiltins\nobject\nN\x87R}X\x01\x00\x00\x00"
            "aNsb"),
        raw("(K\x01im\nC\n"),
        raw("(im\nC\n"),
        raw("(cm\nC\nK\x01o"),
        raw("cm\nf\n)R)R"),
        raw("c_codecs\nencode\nX\x01\x00\x00\x00"
            "aX\x05\x00\x00\x00rot13\x86R"),
        raw("X\x01\x00\x00\x00xQ"),
        raw("Px\n"),
        raw("K\x05Q"),
        raw("ccollections\ndefaultdict\n)RK\x01K\x02s"),
        raw("ccollections\ndefaultdict\nN\x85R"),
        raw("ccollections\ndefaultdict\ncfunctools\npartial\ncm\nf\n\x85R\x85R(K\x01K\x02K\x03K\x04u"),
        raw("ccollections\nOrderedDict\n)RK\x01K\x02s}X\x01\x00\x00\x00"
            "aNsb"),
        raw("ccollections\nCounter\n}K\x01K\x02s\x85R}b"),
        raw("}K\x01K\x02s}b"),
        raw("}}bNb"),
        raw("cpathlib\nPosixPath\nX\x01\x00\x00\x00"
            "a\x85R"),
        raw("U\x01\xffU\x01"
            "a\x86")})
    again(some);
  CHECK(again(raw("\x96\x02\x00\x00\x00\x00\x00\x00\x00\x07\xff")).starts_with("cbuiltins\nbytearray\n"));
  CHECK(again("C\x01z").starts_with("c_codecs\nencode\n"));
  // Named arguments: a call of plain opcodes.
  CHECK(again(raw("cm\nC\nK\x01\x85}X\x01\x00\x00\x00kK\x02s\x92")) ==
        raw("ccopyreg\n__newobj_ex__\nq\x00"
            "cm\nC\nq\x01K\x01\x85q\x02}q\x03X\x01\x00\x00\x00kq\x04K\x02s\x87q\x05Rq\x06"));
  CHECK(again(raw("(K\x01im\nC\n")) == raw("cm\nC\nq\x00K\x01\x85q\x01Rq\x02"));  // called, not made
  const auto factory =
      load(raw("\x80\x02"
               "ccollections\ndefaultdict\ncbuiltins\nlist\n\x85R."));
  CHECK(factory->root().factory().global_name() == "builtins.list");
  CHECK(!load(raw("\x80\x02}."))->root().factory());
}

TEST_CASE("cycles, also through what is made of its parts") {
  again(raw("cm\nC\n)\x81q\x00}X\x01\x00\x00\x00sh\x00sb"));
  // A tuple, a set, a call, a counter, a defaultdict, each in a list inside of itself.
  for (const std::string& made :
       {raw("K\x01h\x00\x86"), raw("(K\x01K\x02K\x03K\x04h\x00t"), raw("cm\nf\nh\x00\x85R"),
        raw("cm\nC\nh\x00\x85\x81"), raw("cm\nf\nh\x00\x85R}K\x01Nsb"), raw("cm\nf\nh\x00\x85RQ"),
        raw("ccollections\ndefaultdict\ncm\nf\nh\x00\x85R\x85RK\x01K\x02s")})
    again(raw("]q\x00\x30") + made + raw("q\x01h\x00h\x01\x61\x30"));
  again(raw("}q\x00K\x01h\x00s"));
  again(raw("ccollections\nOrderedDict\n)Rq\x00K\x01h\x00\x85s"));
  again(raw("ccollections\nCounter\n)Rq\x00K\x01]q\x01h\x00\x61s"));
  // A set of an object that has the set in its state; one that was made of the set cannot be said.
  again(raw("\x8fq\x00(cm\nC\n)\x81}K\x01h\x00sb\x90"));
  CHECK(code_of(raw("\x8fq\x00(cm\nC\nh\x00\x85\x81\x90")) == "pickle.cycle");
  // Deep, and wide.
  again(std::string(900, ']') + std::string(899, 'a'));
  std::string wide = raw("(");
  for (int i = 0; i < 100; ++i) wide += "]q" + std::string(1, static_cast<char>(i));
  wide += raw("tq\xff\x30");
  for (int i = 0; i < 100; ++i) wide += std::string("h") + static_cast<char>(i) + raw("h\xff\x61\x30");
  again(wide + raw("h\xff"));
}

TEST_CASE("names that protocol 2 spells otherwise") {
  const auto body_of = [](const std::string& module, const std::string& name) {
    return body([&](Pickler& out) { out.global(module, name); });
  };
  CHECK(body_of("m", "Outer.Mode") == raw("cbuiltins\ngetattr\nq\x00") + raw("cm\nOuter\nq\x01") +
                                          text("Mode") + raw("q\x02\x86q\x03Rq\x04"));
  CHECK(body_of("dbm", "whichdb") == raw("cwhichdb\nwhichdb\nq\x00"));
  CHECK(body_of("collections", "UserDict") == raw("ccollections\nUserDict\nq\x00"));
  const auto document = load(written([](Pickler& out) {
    out.begin_tuple(3);
    out.global("m", "A.B.C"), out.global("m", "A.B.C"), out.global("m", "A.B");
    out.end_tuple();
  }));
  CHECK(to_json(document->root(), {}) ==
        R"([{"__global__":"m.A.B.C"},{"__global__":"m.A.B.C"},{"__global__":"m.A.B"}])");
  CHECK(!document->danger());
}

TEST_CASE("what protocol 2 cannot say is refused") {
  CHECK(code_of(text("m\ni") + text("f") + "\x93") == "pickle.global");
  CHECK(code_of(text("m") + text("f\ng") + "\x93") == "pickle.global");
  CHECK(code_of("cm\nf\n)R" + text("x") + "\x93") == "pickle.dangerous");
  CHECK(code_of(raw("cos\nsystem\n(X\x01\x00\x00\x00xtR")) == "pickle.dangerous");
  CHECK(code_of(text("m") + text("outer.Inner") + "\x93") == "pickle.dangerous");
  CHECK(code_of(text("Queue") + text("Mine") + "\x93") == "pickle.global");
  CHECK_THROWS_AS(written([](Pickler& out) { out.global("os", "system"); }), Error);
  CHECK_THROWS_AS(written([](Pickler& out) { out.global("m\nR", "f"); }), Error);
}

TEST_CASE("trees are edited while they are copied") {
  const auto document =
      load(raw("\x80\x02}q\x00(") + text("dp_world_size") + "K\x08" + text("step") + "K\x05K\x07N" +
           text("args") + "cargparse\nNamespace\n)\x81}(" + text("world") + "K\x08" + text("lr") +
           "]q\x01K\x01" + "a" + "ub" + text("lr") + "h\x01" + text("w") + text("s") + "Q" + "u.");
  const Value root = document->root();
  const auto edited = load(written([&](Pickler& out) {
    out.begin_dict_like(root);
    out.copy_entries(root, {"dp_world_size", "args"});
    out.text("args");
    const Value args = root.get("args");
    out.begin_object();
    out.copy(args.callable()), out.copy(args.args());
    out.state();
    out.begin_dict();
    out.copy_entries(args.state(), {"world"});
    out.text("world"), out.integer(16);
    out.end_dict();
    out.end_object();
    out.text("dp_world_size"), out.integer(2);
    out.end_dict();
  }));
  CHECK(
      to_json(edited->root(), {}) ==
      "{\"step\":5,\"7\":null,\"lr\":[1],\"w\":{\"__persistent__\":\"s\"},\"args\":{\"__class__\":\"argparse."
      "Namespace\",\"lr\":[1],\"world\":16},\"dp_world_size\":2}");
  CHECK(edited->root().get("lr") == edited->root().get("args").attribute("lr"));

  // A list and a persistent id replaced: the list is shared as before, and was asked for once.
  int asked = 0;
  const auto replaced = load(written([&](Pickler& out) {
    out.copy(root, [&](const Value& value, Pickler& to) {
      if (value.kind() == Kind::kPersistent) {
        to.storage(DType::kBF16, "3", 10);
        return true;
      }
      if (value.kind() != Kind::kList) return false;
      ++asked;
      to.begin_list();
      to.text("new");
      to.copy(value);
      to.end_list();
      return true;
    });
  }));
  CHECK(asked == 1);
  CHECK(replaced->root().get("lr").at(0).text() == "new");
  CHECK(replaced->root().get("lr") == replaced->root().get("args").attribute("lr"));
  CHECK(replaced->root().get("w").callable().at(2).text() == "3");

  for (const std::string& made : {raw("ccollections\nOrderedDict\n)R"), raw("ccollections\nCounter\n)R"),
                                  raw("}"), raw("ccollections\ndefaultdict\ncbuiltins\nlist\n\x85R")}) {
    const auto dict = load(raw("\x80\x02") + made + "(K\x01K\x02K\x03K\x04u.");
    const auto like = load(written([&](Pickler& out) {
      out.begin_dict_like(dict->root());
      out.copy_entries(dict->root());
      out.end_dict();
    }));
    CHECK(graph_difference(dict->root(), like->root()) == "");
  }
}

TEST_CASE("calls out of order are errors of the program") {
  const auto wrong = [](auto write) { CHECK_THROWS_AS(written(write), std::logic_error); };
  wrong([](Pickler&) {});
  wrong([](Pickler& out) { out.none(), out.none(); });
  wrong([](Pickler& out) { out.begin_list(); });
  wrong([](Pickler& out) { out.begin_list(), out.end_dict(); });
  wrong([](Pickler& out) { out.end_list(); });
  wrong([](Pickler& out) { out.begin_dict(), out.none(), out.end_dict(); });
  wrong([](Pickler& out) { out.begin_tuple(2), out.none(), out.end_tuple(); });
  wrong([](Pickler& out) { out.begin_tuple(1), out.none(), out.none(); });
  wrong([](Pickler& out) { out.begin_call(), out.global("m", "f"), out.end_call(); });
  wrong([](Pickler& out) { out.begin_list(), out.state(), out.end_list(); });
  wrong([](Pickler& out) { out.state(); });
  wrong([](Pickler& out) { out.again(0); });
  wrong([](Pickler& out) { out.copy({}); });
  wrong([](Pickler& out) { out.copy_entries({}); });
  wrong([](Pickler& out) { out.none(), out.finish(), out.none(); });
  const auto one = load(raw("\x80\x02K\x01."));
  wrong([&](Pickler& out) { out.copy(one->root(), [](const Value&, Pickler&) { return true; }); });
  wrong([&](Pickler& out) {
    out.copy(one->root(), [](const Value&, Pickler& to) {
      to.none();
      return false;
    });
  });
}
