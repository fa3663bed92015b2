#include "lib/pickle/recalled.h"

#include "lib/pickle/opcodes.h"

namespace uckpt::pickle {

Recalled::Recalled(size_t size, const ReadAt& read) {
  Window window(size, read);
  size_t at = 0, remembered = 0;
  while (at < size) {
    const Op op{*window.get(at, 1)};
    const Operand operand = operand_of(op);
    ++at;
    if (operand.form == Operand::Form::kStop) break;
    if (operand.form == Operand::Form::kLines) {
      for (uint8_t line = 0; line < operand.size; ++line) {
        while (at < size && *window.get(at, 1) != '\n') ++at;
        at += at < size ? 1 : 0;
      }
      continue;
    }
    if (operand.size > size - at) break;
    uint64_t value = 0;
    const uint8_t* bytes = operand.size > 0 ? window.get(at, operand.size) : nullptr;
    for (uint8_t i = 0; i < operand.size; ++i) value |= uint64_t{bytes[i]} << 8 * i;
    at += operand.size;
    if (operand.form == Operand::Form::kSized) {
      if (value > size - at) break;
      at += static_cast<size_t>(value);
    } else if (op == Op::kBinGet || op == Op::kLongBinGet) {
      note(static_cast<uint32_t>(value), remembered);
    } else if (op == Op::kMemoize || op == Op::kBinPut || op == Op::kLongBinPut) {
      ++remembered;
    }
  }
  before_.reserve(bits_.size());
  for (const uint64_t word : bits_) {
    before_.push_back(static_cast<uint32_t>(count_));
    count_ += static_cast<size_t>(std::popcount(word));
  }
  for (auto& [index, place] : odd_) place = static_cast<uint32_t>(count_++);
}

void Recalled::note(uint32_t index, size_t remembered) {
  if (index >= remembered) {
    odd_.try_emplace(index, 0);
    return;
  }
  if (index / 64 >= bits_.size()) bits_.resize(index / 64 + 1);
  bits_[index / 64] |= uint64_t{1} << index % 64;
}

}  // namespace uckpt::pickle
