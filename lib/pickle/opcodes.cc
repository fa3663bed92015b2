#include "lib/pickle/opcodes.h"

#include <array>

namespace uckpt::pickle {

namespace {

using enum Operand::Form;

struct Opcode {
  Op op;
  std::string_view name;
  Operand operand;
};
constexpr Opcode kOpcodes[] = {
    {Op::kMark, "MARK", {kFixed, 0}},
    {Op::kStop, "STOP", {kStop, 0}},
    {Op::kPop, "POP", {kFixed, 0}},
    {Op::kPopMark, "POP_MARK", {kFixed, 0}},
    {Op::kDup, "DUP", {kFixed, 0}},
    {Op::kNone, "NONE", {kFixed, 0}},
    {Op::kNewTrue, "NEWTRUE", {kFixed, 0}},
    {Op::kNewFalse, "NEWFALSE", {kFixed, 0}},
    {Op::kBinInt, "BININT", {kFixed, 4}},
    {Op::kBinInt1, "BININT1", {kFixed, 1}},
    {Op::kBinInt2, "BININT2", {kFixed, 2}},
    {Op::kLong1, "LONG1", {kSized, 1}},
    {Op::kLong4, "LONG4", {kSized, 4}},
    {Op::kBinFloat, "BINFLOAT", {kFixed, 8}},
    {Op::kBinString, "BINSTRING", {kSized, 4}},
    {Op::kShortBinString, "SHORT_BINSTRING", {kSized, 1}},
    {Op::kBinBytes, "BINBYTES", {kSized, 4}},
    {Op::kShortBinBytes, "SHORT_BINBYTES", {kSized, 1}},
    {Op::kBinBytes8, "BINBYTES8", {kSized, 8}},
    {Op::kByteArray8, "BYTEARRAY8", {kSized, 8}},
    {Op::kShortBinUnicode, "SHORT_BINUNICODE", {kSized, 1}},
    {Op::kBinUnicode, "BINUNICODE", {kSized, 4}},
    {Op::kBinUnicode8, "BINUNICODE8", {kSized, 8}},
    {Op::kEmptyTuple, "EMPTY_TUPLE", {kFixed, 0}},
    {Op::kTuple, "TUPLE", {kFixed, 0}},
    {Op::kTuple1, "TUPLE1", {kFixed, 0}},
    {Op::kTuple2, "TUPLE2", {kFixed, 0}},
    {Op::kTuple3, "TUPLE3", {kFixed, 0}},
    {Op::kEmptyList, "EMPTY_LIST", {kFixed, 0}},
    {Op::kList, "LIST", {kFixed, 0}},
    {Op::kAppend, "APPEND", {kFixed, 0}},
    {Op::kAppends, "APPENDS", {kFixed, 0}},
    {Op::kEmptyDict, "EMPTY_DICT", {kFixed, 0}},
    {Op::kDict, "DICT", {kFixed, 0}},
    {Op::kSetItem, "SETITEM", {kFixed, 0}},
    {Op::kSetItems, "SETITEMS", {kFixed, 0}},
    {Op::kEmptySet, "EMPTY_SET", {kFixed, 0}},
    {Op::kAddItems, "ADDITEMS", {kFixed, 0}},
    {Op::kFrozenSet, "FROZENSET", {kFixed, 0}},
    {Op::kBinPut, "BINPUT", {kFixed, 1}},
    {Op::kLongBinPut, "LONG_BINPUT", {kFixed, 4}},
    {Op::kMemoize, "MEMOIZE", {kFixed, 0}},
    {Op::kBinGet, "BINGET", {kFixed, 1}},
    {Op::kLongBinGet, "LONG_BINGET", {kFixed, 4}},
    {Op::kGlobal, "GLOBAL", {kLines, 2}},
    {Op::kStackGlobal, "STACK_GLOBAL", {kFixed, 0}},
    {Op::kReduce, "REDUCE", {kFixed, 0}},
    {Op::kBuild, "BUILD", {kFixed, 0}},
    {Op::kNewObj, "NEWOBJ", {kFixed, 0}},
    {Op::kNewObjEx, "NEWOBJ_EX", {kFixed, 0}},
    {Op::kInst, "INST", {kLines, 2}},
    {Op::kObj, "OBJ", {kFixed, 0}},
    {Op::kPersId, "PERSID", {kLines, 1}},
    {Op::kBinPersId, "BINPERSID", {kFixed, 0}},
    {Op::kProto, "PROTO", {kFixed, 1}},
    {Op::kFrame, "FRAME", {kFixed, 8}},
    {Op::kFloat, "FLOAT", {kStop, 0}},
    {Op::kInt, "INT", {kStop, 0}},
    {Op::kLong, "LONG", {kStop, 0}},
    {Op::kString, "STRING", {kStop, 0}},
    {Op::kUnicode, "UNICODE", {kStop, 0}},
    {Op::kGet, "GET", {kStop, 0}},
    {Op::kPut, "PUT", {kStop, 0}},
    {Op::kExt1, "EXT1", {kStop, 0}},
    {Op::kExt2, "EXT2", {kStop, 0}},
    {Op::kExt4, "EXT4", {kStop, 0}},
    {Op::kNextBuffer, "NEXT_BUFFER", {kStop, 0}},
    {Op::kReadOnlyBuffer, "READONLY_BUFFER", {kStop, 0}},
};

constexpr auto kByByte = [] {
  std::array<Opcode, 256> rows{};
  for (const Opcode& row : kOpcodes) rows[static_cast<size_t>(row.op)] = row;
  return rows;
}();

}  // namespace

std::string_view name_of(Op op) { return kByByte[static_cast<size_t>(op)].name; }
Operand operand_of(Op op) { return kByByte[static_cast<size_t>(op)].operand; }

}  // namespace uckpt::pickle
