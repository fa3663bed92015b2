// What a conversion is asked to do.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/convert/kept_plan.h"
#include "lib/convert/whole.h"
#include "lib/exec/device_choice.h"
#include "lib/formats/format.h"
#include "lib/ucl/name_pattern.h"

namespace uckpt {

// Which tensors: globs match a whole name or `state/name`. Empty lists take everything.
struct Selection {
  std::vector<std::string> select, drop, states;
  std::vector<ucl::NamePattern> drop_names;  // of a spec's `drop`: whole names
  std::vector<std::string> drop_places;      // of each: "mine.ucl:4:10"
  bool takes(const Tensor& tensor) const;
  static bool matches(std::string_view glob, const Tensor& tensor);
  bool takes_all() const { return select.empty() && drop.empty() && states.empty() && drop_names.empty(); }
};

// The types that weights are written in. Names are the target's.
struct DTypeRules {
  struct Rule {
    std::optional<DType> dtype;           // nothing: as the source has it
    std::vector<ucl::NamePattern> names;  // empty: every name
    std::string typed;                    // on the command line; empty: a spec says it
    std::vector<std::string> places;      // in the spec, of each name
  };
  std::vector<Rule> rules;  // the first that takes a name wins

  // The type to write the tensor in, be it the one that it has; nothing where no rule says one. Only floating
  // weights are cast: neither optimizer states, whose values a narrower type would lose, nor buffers.
  std::optional<DType> wanted(const Tensor& tensor) const;
  // The same of a tensor that has several names: the first rule that takes any of them wins.
  std::optional<DType> wanted(const Tensor& tensor, std::span<const std::string_view> names) const;
};
// "bf16", "keep", or "fp32:PATTERN" for the names that the pattern of the language matches. Throws
// `usage.dtype`.
DTypeRules::Rule parse_dtype_rule(std::string_view text);

struct ConvertOptions {
  OpenOptions open;
  RuleOptions rules;
  std::string to;  // kind of output; empty: by the extension
  Selection selection;
  DTypeRules dtypes;
  std::map<std::string, int64_t, std::less<>> layout;  // sizes of the target's mesh: {"tp", 2}
  std::vector<int64_t>
      stage_sizes;         // of the target's pipeline stages, in layers; empty: as its kind has them
  int64_t shard_size = 0;  // bytes of one output file at most, where the kind allows several; 0: all in one
  int threads = 0;         // 0: one a core
  int64_t max_mem = 0;     // bytes of our own memory for the copy; 0: a quarter of the machine's
  exec::DeviceChoice device;  // what computes; the bytes are the same
  bool missing_zero = false;  // --missing zero: what the output needs and the input lacks begins at zero
  bool check_crc = true;
  bool trust_copies = false;             // do not compare replicas and module weights
  bool sync = true;                      // the bytes are on the disk before the output gets its name
  bool force = false;                    // replace an existing output
  bool verify = false;                   // read the output back and compare its digests
  bool direct = false;                   // write past the page cache where the file system can
  bool digests = true;                   // of all that is written; else only those that the output holds
  bool restart = false;                  // forget what an interrupted run has done
  std::string manifest;                  // a file to write the digest of every tensor to; empty: none
  bool allow_expand = false;             // write out views that are far larger than their bytes in the input
  std::string created_by;                // "uckpt 0.1.0"
  std::vector<std::string> request;      // as typed, for a plan that is kept
  std::shared_ptr<const KeptPlan> kept;  // --plan: do this and nothing else
};

// The same, with what the `convert` block of the spec asks for where `options` say nothing: the kind of the
// target and the sizes of its mesh, the types and states to write; what it drops is dropped too. A spec with
// errors changes nothing: whoever joins by it tells them.
ConvertOptions with_convert_block(ConvertOptions options);

}  // namespace uckpt
