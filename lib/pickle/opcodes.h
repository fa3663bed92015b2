// The opcodes of the pickle format, all of them: what we refuse is refused by name.
#pragma once

#include <cstdint>
#include <string_view>

namespace uckpt::pickle {

enum class Op : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kNone = 'N',
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kBinFloat = 'G',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kBinBytes8 = 0x8e,
  kByteArray8 = 0x96,
  kShortBinUnicode = 0x8c,
  kBinUnicode = 'X',
  kBinUnicode8 = 0x8d,
  kEmptyTuple = ')',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kEmptyList = ']',
  kList = 'l',
  kAppend = 'a',
  kAppends = 'e',
  kEmptyDict = '}',
  kDict = 'd',
  kSetItem = 's',
  kSetItems = 'u',
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kBinPut = 'q',
  kLongBinPut = 'r',
  kMemoize = 0x94,
  kBinGet = 'h',
  kLongBinGet = 'j',
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kReduce = 'R',
  kBuild = 'b',
  kNewObj = 0x81,
  kNewObjEx = 0x92,
  kInst = 'i',
  kObj = 'o',
  kPersId = 'P',
  kBinPersId = 'Q',
  kProto = 0x80,
  kFrame = 0x95,
  // Refused: text forms of protocols 0 and 1, a process-wide registry, out-of-band buffers.
  kFloat = 'F',
  kInt = 'I',
  kLong = 'L',
  kString = 'S',
  kUnicode = 'V',
  kGet = 'g',
  kPut = 'p',
  kExt1 = 0x82,
  kExt2 = 0x83,
  kExt4 = 0x84,
  kNextBuffer = 0x97,
  kReadOnlyBuffer = 0x98,
};

// What follows an opcode.
struct Operand {
  // kSized: a length and so many bytes. kStop: nothing that is read, after STOP and what we refuse.
  enum class Form : uint8_t { kFixed, kSized, kLines, kStop } form = Form::kStop;
  uint8_t size = 0;  // bytes; of the length, where it is sized; lines
};

// "SETITEMS"; empty for a byte that is no opcode.
std::string_view name_of(Op op);
Operand operand_of(Op op);

}  // namespace uckpt::pickle
