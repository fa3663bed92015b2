#include "lib/pickle/opcodes.h"

#include <array>
#include <utility>

namespace uckpt::pickle {

namespace {

constexpr std::pair<Op, std::string_view> kNames[] = {
    {Op::kMark, "MARK"},
    {Op::kStop, "STOP"},
    {Op::kPop, "POP"},
    {Op::kPopMark, "POP_MARK"},
    {Op::kDup, "DUP"},
    {Op::kNone, "NONE"},
    {Op::kNewTrue, "NEWTRUE"},
    {Op::kNewFalse, "NEWFALSE"},
    {Op::kBinInt, "BININT"},
    {Op::kBinInt1, "BININT1"},
    {Op::kBinInt2, "BININT2"},
    {Op::kLong1, "LONG1"},
    {Op::kLong4, "LONG4"},
    {Op::kBinFloat, "BINFLOAT"},
    {Op::kBinString, "BINSTRING"},
    {Op::kShortBinString, "SHORT_BINSTRING"},
    {Op::kBinBytes, "BINBYTES"},
    {Op::kShortBinBytes, "SHORT_BINBYTES"},
    {Op::kBinBytes8, "BINBYTES8"},
    {Op::kByteArray8, "BYTEARRAY8"},
    {Op::kShortBinUnicode, "SHORT_BINUNICODE"},
    {Op::kBinUnicode, "BINUNICODE"},
    {Op::kBinUnicode8, "BINUNICODE8"},
    {Op::kEmptyTuple, "EMPTY_TUPLE"},
    {Op::kTuple, "TUPLE"},
    {Op::kTuple1, "TUPLE1"},
    {Op::kTuple2, "TUPLE2"},
    {Op::kTuple3, "TUPLE3"},
    {Op::kEmptyList, "EMPTY_LIST"},
    {Op::kList, "LIST"},
    {Op::kAppend, "APPEND"},
    {Op::kAppends, "APPENDS"},
    {Op::kEmptyDict, "EMPTY_DICT"},
    {Op::kDict, "DICT"},
    {Op::kSetItem, "SETITEM"},
    {Op::kSetItems, "SETITEMS"},
    {Op::kEmptySet, "EMPTY_SET"},
    {Op::kAddItems, "ADDITEMS"},
    {Op::kFrozenSet, "FROZENSET"},
    {Op::kBinPut, "BINPUT"},
    {Op::kLongBinPut, "LONG_BINPUT"},
    {Op::kMemoize, "MEMOIZE"},
    {Op::kBinGet, "BINGET"},
    {Op::kLongBinGet, "LONG_BINGET"},
    {Op::kGlobal, "GLOBAL"},
    {Op::kStackGlobal, "STACK_GLOBAL"},
    {Op::kReduce, "REDUCE"},
    {Op::kBuild, "BUILD"},
    {Op::kNewObj, "NEWOBJ"},
    {Op::kNewObjEx, "NEWOBJ_EX"},
    {Op::kInst, "INST"},
    {Op::kObj, "OBJ"},
    {Op::kPersId, "PERSID"},
    {Op::kBinPersId, "BINPERSID"},
    {Op::kProto, "PROTO"},
    {Op::kFrame, "FRAME"},
    {Op::kFloat, "FLOAT"},
    {Op::kInt, "INT"},
    {Op::kLong, "LONG"},
    {Op::kString, "STRING"},
    {Op::kUnicode, "UNICODE"},
    {Op::kGet, "GET"},
    {Op::kPut, "PUT"},
    {Op::kExt1, "EXT1"},
    {Op::kExt2, "EXT2"},
    {Op::kExt4, "EXT4"},
    {Op::kNextBuffer, "NEXT_BUFFER"},
    {Op::kReadOnlyBuffer, "READONLY_BUFFER"},
};

constexpr auto kByByte = [] {
  std::array<std::string_view, 256> names{};
  for (const auto& [op, name] : kNames) names[static_cast<size_t>(op)] = name;
  return names;
}();

}  // namespace

std::string_view name_of(Op op) { return kByByte[static_cast<size_t>(op)]; }

}  // namespace uckpt::pickle
