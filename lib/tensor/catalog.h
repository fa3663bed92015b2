// What every reader returns and every writer is given: logical tensors and where their pieces lie.
//
// A *logical tensor* is one whole parameter in one of its states, as if on one device. A *piece* is one box
// of it in one file. A box is given along the tensor's *factoring*: a list of axes whose sizes multiply to
// the number of elements, outermost first, so the flat range [a, b) of a tensor is one axis {numel, a, b-a,
// 1} and a strided two-dimensional view is two axes. Factorings of different pieces may differ as long as
// they nest.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/base/bytes.h"
#include "lib/base/error.h"
#include "lib/tensor/dtype.h"
#include "lib/tensor/model_settings.h"

namespace uckpt {

class ByteSource;  // lib/io/input.h

using Shape = std::vector<int64_t>;

// One factor of a tensor as one piece sees it. Sizes count elements; the stride counts elements in the file.
struct Axis {
  int64_t size;    // of the factor in the whole tensor
  int64_t start;   // where this piece's box begins on it
  int64_t extent;  // how much of it the box covers
  int64_t stride;  // distance in the file between neighbours on this axis, in elements, >= 0
};

using FileId = uint32_t;
inline constexpr FileId kLiteral = 0xffffffff;  // the bytes are in Catalog::literals
inline constexpr uint32_t kNoRecord = 0xffffffff;

// How the bytes in the file differ from the tensor's elements.
enum PieceFlags : uint8_t { kPlain = 0, kByteSwapped = 1, kConjugated = 2, kNegated = 4 };

struct Piece {
  int64_t offset;  // byte offset in the file of the box's first element
  FileId file;
  uint32_t record;   // index into Catalog::records, or kNoRecord
  uint32_t axes_at;  // index of the first axis in Catalog::axes
  uint8_t rank;      // number of axes
  uint8_t flags;     // PieceFlags
};

struct PieceRange {
  uint32_t first = 0, count = 0;
};

// A checksummed range of an input file: checked while it is copied.
struct Record {
  int64_t offset, size;
  FileId file;
  uint32_t crc;            // of a zip member; of a digest where its 8 bytes begin in Catalog::literals
  uint32_t name;           // index into Catalog::record_names: the member's, or the tensor's path
  bool is_digest = false;  // the CRC-64 of a tensor's or object's bytes
};

// The state names of the consolidated file: "fp32", "exp_avg", "exp_avg_sq", "step", other optimizer states
// by their own name, "param" (module weight), "buffer", "other" (belongs to no parameter).
namespace state {
inline constexpr std::string_view kMaster = "fp32", kParam = "param", kBuffer = "buffer", kOther = "other",
                                  kStep = "step", kObjects = "objects";
}
// fp32, param or buffer: what the others are states of.
inline bool is_weight(std::string_view s) {
  return s == state::kMaster || s == state::kParam || s == state::kBuffer;
}

// A further copy of a tensor in the input. It is read and compared, not written.
struct Copy {
  PieceRange pieces;
  DType dtype;       // may be narrower: then the tensor rounded to it must equal the copy
  bool is_module;    // a module weight beside its fp32 master: where it differs both are stored
  std::string what;  // for messages: "module weight", "replica on rank 3"
  // A further rank's copy of the module weight before it, or of a part of that: it must equal that one.
  bool is_replica = false;
};

struct Tensor {
  std::string name;   // whole, dots and all; UTF-8 except where `surrogates` in the source say otherwise
  std::string state;  // see namespace state
  DType dtype;
  Shape shape;
  PieceRange pieces;  // they tile the tensor exactly
  std::vector<Copy> copies;
  std::optional<uint32_t> alias;  // index of the tensor this is another name of; then no pieces of its own
  std::string refusal;            // not empty: it can be listed but not converted, and why
  std::string layout;             // how it lies in the input, for people: "2 dp shards, flat"
  std::optional<DType> module_dtype =
      {};  // of the module's copy of this master, where the input only states it
  // Further tensors like `pieces`, each whole: the tensor is the mean of them all.
  std::vector<PieceRange> averaged_with = {};
  double factor = 1;  // the tensor is what its pieces say, times this, plus `summand`
  double summand = 0;
  std::optional<uint64_t> digest = {};  // CRC-64 of its row-major bytes, where the input keeps one

  std::string path() const { return state + "/" + name; }
};

// Where a rank stands on the axes of the mesh that a format tells apart: {"tp", 1}.
using Coordinate = std::map<std::string, int64_t, std::less<>>;

// What the ranks at one place of the mesh hold, as its files have it: fragments, with the shapes they have
// there. Replicas that the format itself undoes (data parallel cuts, pipeline stages) are undone already.
struct RankSet {
  Coordinate at;
  std::vector<Tensor> tensors;  // their pieces are in the catalog's lists; aliases count here
};

// A tensor whose fragments the input itself describes box by box, in a way that no rule says. Offsets and
// strides count elements: of the whole tensor, and of the rank's fragment, both row-major.
struct ScatteredBox {
  Shape extent, whole_strides, part_strides;
  int64_t whole_offset = 0, part_offset = 0;
};
struct Scattered {
  Shape shape;                                   // of the whole
  std::vector<std::vector<ScatteredBox>> ranks;  // of each RankSet
  double scale = 1;                              // a rank holds the value times this
};

// Non-tensor state of one input file: nothing is lost.
struct Object {
  std::string origin;  // path of the file inside the checkpoint
  std::string json;    // a view to read
  FileId file = 0;     // the original pickle bytes
  int64_t offset = 0, size = 0;
  uint32_t record = kNoRecord;
  std::optional<uint64_t> digest = {};  // CRC-64 of these bytes, where the input keeps one
};

enum class GlobalClass : uint8_t { kKnown, kUnknown, kDangerous };
// Of classes met, by name, the worst that was said of each is kept.
void note_global(std::map<std::string, GlobalClass>& globals, const std::string& name, GlobalClass trust);
void merge_globals(std::map<std::string, GlobalClass>& into, const std::map<std::string, GlobalClass>& from);

// The degrees of parallelism that the input speaks of; 1 where it does not.
struct Mesh {
  int64_t tp = 1, pp = 1, dp = 1, ep = 1;
  int64_t vp = 1;   // virtual pipeline: chunks of each stage
  int64_t etp = 1;  // tensor parallel ranks of an expert
};

// How a catalog's settings stand to the names of its tensors.
enum class SettingsAre : uint8_t {
  kAsRead,      // both as the input has them
  kTranslated,  // both in the naming that was asked for
  kOfOldNames,  // the tensors were renamed by maps that say nothing of settings
};

struct Catalog {
  std::string kind;         // "deepspeed", "deepspeed-universal", "torch", "safetensors", "hdf5"
  std::string description;  // one line for people: "DeepSpeed ZeRO stage 2 checkpoint"
  std::string path;         // as opened, for messages
  std::optional<int64_t> iteration;
  std::optional<int> zero_stage;
  Mesh mesh;
  std::vector<std::pair<std::string, std::string>> facts;  // further "key: value" lines for inspect

  std::vector<std::shared_ptr<ByteSource>> files;
  std::vector<Record> records;
  std::vector<std::string> record_names;  // for messages; equal ones in a row are one
  std::vector<Axis> axes;
  std::vector<Piece> pieces;
  Bytes literals;  // values read or made at open: steps, scalars, digests
  std::vector<Tensor> tensors;
  std::vector<Object> objects;

  // Where the input is cut in ways that rules have to tell: then `tensors` has only what is whole, until a
  // layout's rules join the fragments (lib/layout/assemble.h).
  std::vector<RankSet> ranks;
  std::map<std::string, Scattered, std::less<>> scattered;  // by name: these need no rule
  std::string rules;  // a UCL program that the input's own description gives
  // Where the input has names of a known family but no rules: specs that ship in this folder are tried
  // ("megatron").
  std::string spec_folder;
  std::string naming;                                     // of its tensors' names, once rules told
  std::map<std::string, int64_t, std::less<>> arguments;  // of the training run, for `given … from`
  ModelSettings settings;                                 // the same with all that is no whole number
  SettingsAre settings_are = SettingsAre::kAsRead;
  std::vector<std::string> settings_lack;  // keys that the tensors' new naming has, and nothing gave

  std::map<std::string, GlobalClass> globals;  // "module.name" of every pickled class met
  std::vector<std::string> warnings;           // worth a line on stderr, does not stop a conversion
  std::optional<Error> refusal;                // inspect goes on, convert throws this

  // Building. `add_piece` appends to the piece list; the caller counts ranges with `piece_mark`.
  uint32_t piece_mark() const { return static_cast<uint32_t>(pieces.size()); }
  PieceRange pieces_since(uint32_t mark) const { return {mark, piece_mark() - mark}; }
  void add_piece(FileId file, uint32_t record, int64_t offset, std::span<const Axis> box,
                 uint8_t flags = kPlain);
  // The flat elements [start, start + extent) of a tensor of `numel` elements lie back to back at `offset`.
  void add_flat(FileId file, uint32_t record, int64_t offset, int64_t numel, int64_t start, int64_t extent,
                uint8_t flags = kPlain);
  // The whole tensor with the given strides (in elements).
  void add_whole(FileId file, uint32_t record, int64_t offset, const Shape& shape,
                 std::span<const int64_t> strides, uint8_t flags = kPlain);
  // The whole tensor from bytes that we hold.
  void add_literal(ByteSpan bytes, int64_t numel);
  FileId add_file(std::shared_ptr<ByteSource> file);
  uint32_t add_record(FileId file, int64_t offset, int64_t size, uint32_t crc, std::string_view name);
  // Of a tensor whose bytes lie row-major in one range, with the digest that the input keeps of them.
  uint32_t add_digest(FileId file, int64_t offset, int64_t size, uint64_t crc64, std::string_view name);
  uint64_t digest_of(const Record& record) const;
  // Appends the pickle bytes of every object as a tensor of bytes (state "objects", name = origin), so that
  // they are planned, copied and digested like any other; returns the first one's index.
  uint32_t add_object_tensors();
  // One warning for each class that is not known.
  void warn_of_unknown_classes();

  const std::string& name_of(const Record& record) const { return record_names[record.name]; }
  std::span<const Axis> axes_of(const Piece& p) const { return {axes.data() + p.axes_at, p.rank}; }
  std::span<const Piece> pieces_of(PieceRange r) const { return {pieces.data() + r.first, r.count}; }
};

int64_t numel_of(const Shape& shape);  // INT64_MAX if 64 bits cannot count it
int64_t bytes_of(const Tensor& tensor);
// Elements as they are moved: those of types under a byte go in whole bytes, so their tensors are byte
// strings.
inline int64_t unit_size(DType dtype) { return item_size(dtype) > 0 ? item_size(dtype) : 1; }
int64_t units_of(const Tensor& tensor);

}  // namespace uckpt
