// What a conversion is asked to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/convert/whole.h"
#include "lib/formats/format.h"

namespace uckpt {

// Which tensors: patterns match a whole name or `state/name`. Empty lists take everything.
struct Selection {
  std::vector<std::string> select, drop, states;
  bool takes(const Tensor& tensor) const;
};

struct ConvertOptions {
  OpenOptions open;
  RuleOptions rules;
  std::string to;  // kind of output; empty: by the extension
  Selection selection;
  int threads = 0;      // 0: one a core
  int64_t max_mem = 0;  // bytes of our own memory for the copy; 0: a quarter of the machine's
  bool check_crc = true;
  bool trust_copies = false;  // do not compare replicas and module weights
  bool sync = true;           // the bytes are on the disk before the output gets its name
  bool force = false;         // replace an existing output
  bool verify = false;        // read the output back and compare its digests
  bool allow_expand = false;  // write out views that are far larger than their bytes in the input
  std::string created_by;     // "uckpt 0.1.0"
};

}  // namespace uckpt
