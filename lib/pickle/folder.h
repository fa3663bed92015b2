// Takes small objects of which a pickle has very many out of the tree while it is read: what they hold goes
// into tables of the folder's own, and one node with a number stays for each.
//
// An object is offered once BUILD gave it its state, and only where nothing else in the pickle has a part of
// it that could change or be looked into later: the rest stays in the tree, so a folder's caller reads both.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/pickle/globals.h"
#include "lib/pickle/value.h"

namespace uckpt::pickle {

class Folder {
 public:
  virtual ~Folder() = default;
  // A number for the class, from 0, if its objects are to be offered.
  virtual std::optional<uint8_t> wants(const Global& cls) const = 0;
  // What stands for the object from now on (Value::folded), or nothing: it stays as it is. While a pickle is
  // read the items of lists and the entries of dicts cannot be counted up: tuples and attributes can be read.
  virtual std::optional<uint32_t> fold(uint8_t cls, const Value& object) = 0;
};

}  // namespace uckpt::pickle
