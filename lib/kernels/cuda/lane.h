// A lane over any machine that runs bodies: a device, or the host in tests.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "lib/base/error.h"
#include "lib/base/text.h"
#include "lib/kernels/arithmetic.h"
#include "lib/kernels/cast.h"
#include "lib/kernels/cuda/boxes.h"
#include "lib/kernels/cuda/casts.h"
#include "lib/kernels/cuda/checksums.h"
#include "lib/kernels/cuda/flat.h"
#include "lib/kernels/cuda/plan.h"
#include "lib/kernels/device.h"
#include "lib/tensor/catalog.h"

namespace uckpt::kernels::cuda {

// Where a machine keeps the tables; of its own memory.
struct Tables {
  const Crc32Tables* crc32 = nullptr;
  const Crc64Tables* crc64 = nullptr;
};
// How far a run of a body is divided: blocks that a device has room for at once.
struct Room {
  int64_t crc32_blocks = 1, crc64_blocks = 1;
};

// `Machine` has, all of it queued but the first five and `wait`:
//   sizes, memory(Region), input(), output(), results() (of the device), found() (of the host, after wait)
//   tables(), room(), upload, download, clear(uint8_t*, bytes), fetch_results(count), clear_results(count)
//   launch<Body>(args, units), wait(), and `begin()`, called before the first work after a wait.
//   read_direct, write_direct: at once
template <class Machine>
class LaneOn final : public Lane {
 public:
  explicit LaneOn(std::unique_ptr<Machine> machine) : machine_(std::move(machine)) {}

  void reserve(Region region, int64_t bytes) override {
    const int64_t size = machine_->sizes()[region];
    if (bytes > size)
      throw trouble("device.memory", cat("a lane has ", size, " bytes where ", bytes, " are needed"));
  }
  std::span<uint8_t> input() override { return machine_->input(); }
  std::span<const uint8_t> output() override { return machine_->output(); }

  void upload(int64_t offset, int64_t bytes) override {
    if (bytes <= 0) return;
    uint8_t* to = place({Region::kInput, offset}, 0, bytes);
    begin();
    machine_->upload(to, offset, bytes);
  }
  void download(int64_t offset, int64_t bytes) override {
    if (bytes <= 0) return;
    const uint8_t* from = place({Region::kOutput, offset}, 0, bytes);
    begin();
    machine_->download(offset, from, bytes);
  }
  bool read_direct(const DirectFile& from, int64_t file_offset, int64_t offset, int64_t bytes) override {
    place({Region::kInput, offset}, 0, bytes);
    return machine_->read_direct(from, file_offset, offset, bytes);
  }
  bool write_direct(const DirectFile& to, int64_t file_offset, int64_t offset, int64_t bytes) override {
    place({Region::kOutput, offset}, 0, bytes);
    return machine_->write_direct(to, file_offset, offset, bytes);
  }
  void clear(At at, int64_t bytes) override {
    if (bytes <= 0) return;
    uint8_t* to = place(at, 0, bytes);
    begin();
    machine_->clear(to, bytes);
  }

  void copy_strided(At dst, At src, std::span<const CopyLoop> loops, int64_t item) override {
    if (is_empty(loops) || item <= 0) return;
    uint8_t* to = place(dst, loops, &CopyLoop::dst_stride, item);
    const uint8_t* from = place(src, loops, &CopyLoop::src_stride, item);
    begin_round();
    BoxPlan([this](const Box& box) { add_box(box); }).copy(to, from, loops, item);
  }
  void cast_strided(At dst, DType dst_dtype, At src, DType src_dtype,
                    std::span<const CopyLoop> loops) override {
    if (src_dtype == dst_dtype) return copy_strided(dst, src, loops, item_size(src_dtype));
    if (is_empty(loops)) return;
    uint8_t* to = place(dst, loops, &CopyLoop::dst_stride, item_size(dst_dtype));
    const uint8_t* from = place(src, loops, &CopyLoop::src_stride, item_size(src_dtype));
    begin_round();
    BoxPlan([this](const Box& box) { add_box(box); }).cast(to, dst_dtype, from, src_dtype, loops);
  }
  void cast(At dst, DType dst_dtype, At src, DType src_dtype, int64_t count) override {
    const CopyLoop loop{count, item_size(src_dtype), item_size(dst_dtype)};
    cast_strided(dst, dst_dtype, src, src_dtype, std::span(&loop, 1));
  }

  void apply_flags(At data, int64_t count, DType dtype, uint8_t flags) override {
    const DTypeInfo& type = info(dtype);
    const bool complex = type.kind == DTypeClass::kComplex;
    const int item = complex ? item_size(dtype) / 2 : item_size(dtype);
    FlagArgs args;
    args.item = item;
    args.swap = (flags & kByteSwapped) != 0 && item > 1;
    args.conjugate = (flags & kConjugated) != 0 && complex;
    args.negate = (flags & kNegated) != 0;
    args.integers = !complex && type.kind != DTypeClass::kFloat;
    if (count <= 0 || item == 0 || !(args.swap || args.conjugate || args.negate)) return;
    const int64_t words = complex ? 2 * count : count;
    args.words = Groups::of(place(data, 0, words * item), words, item);
    begin();
    machine_->template launch<FlagBody>(args, units_of_groups(args.words.groups(item)));
  }

  void add(At into, At other, DType dtype, int64_t count) override {
    ArithmeticArgs args;
    args.sum = Sum::kAdd;
    if (count > 0) args.other = place(other, 0, count * item_size(dtype));
    arithmetic(args, into, dtype, count);
  }
  void divide(At into, double by, DType dtype, int64_t count) override {
    ArithmeticArgs args;
    args.sum = Sum::kDivide;
    args.by = by;
    arithmetic(args, into, dtype, count);
  }
  void scale(At into, double factor, double summand, DType dtype, int64_t count) override {
    if (factor == 1 && summand == 0) return;
    ArithmeticArgs args;
    args.sum = Sum::kScale;
    args.by = factor;
    args.more = summand;
    arithmetic(args, into, dtype, count);
  }

  int compare_rounded(At wide, DType wide_dtype, At narrow, DType narrow_dtype, int64_t count) override {
    const int result = next_result();
    if (count <= 0) return result;
    const int item = std::max(1, item_size(wide_dtype));
    CompareArgs args;
    args.wide = place(wide, 0, count * item);
    args.narrow = place(narrow, 0, count * std::max(1, item_size(narrow_dtype)));
    args.result = machine_->results() + result;
    args.words = item == 16 ? 2 : 1;
    args.item = item / args.words;
    args.count = count * args.words;
    args.infinity = infinity_of(narrow_dtype);
    if (wide_dtype != narrow_dtype) args.rounded = narrow_dtype;
    begin();
    machine_->template launch<CompareBody>(args, units_of_groups(ceil_div(args.count * args.item, kVector)));
    return result;
  }
  int crc32_raw(At data, int64_t bytes) override {
    return crc<Crc32, uint32_t>(data, bytes, machine_->tables().crc32, machine_->room().crc32_blocks);
  }
  int crc64_raw(At data, int64_t bytes) override {
    return crc<Crc64, uint64_t>(data, bytes, machine_->tables().crc64, machine_->room().crc64_blocks);
  }

  void wait() override {
    begin();
    const int results = std::exchange(results_, 0);
    if (results > 0) {
      machine_->fetch_results(results);
      machine_->clear_results(results);
    }
    waited_ = true;
    machine_->wait();
  }
  Differences differences(int result) const override {
    const Result& found = machine_->found()[static_cast<size_t>(result)];
    Differences out;
    out.count = static_cast<int64_t>(found.sum);
    if (out.count > 0) out.first = static_cast<int64_t>(~found.first);
    return out;
  }
  uint64_t crc(int result) const override { return machine_->found()[static_cast<size_t>(result)].sum; }

 private:
  enum class BodyOf : uint8_t { kRuns, kItems, kNarrowTiles, kTiles, kCasts };
  static BodyOf body_of(const Box& box) {
    if (box.way == Way::kCasts) return BodyOf::kCasts;
    if (box.way != Way::kTiles) return box.way == Way::kRuns ? BodyOf::kRuns : BodyOf::kItems;
    return box.item < 4 ? BodyOf::kNarrowTiles : BodyOf::kTiles;
  }
  static bool is_empty(std::span<const CopyLoop> loops) {
    return std::any_of(loops.begin(), loops.end(), [](const CopyLoop& l) { return l.count <= 0; });
  }

  // The address of what lies `low` to `high` bytes from there; a caller's mistake if that is not all there.
  uint8_t* place(At at, int64_t low, int64_t high) {
    const int64_t size = machine_->sizes()[at.region];
    if (at.offset < 0 || at.offset + low < 0 || at.offset + high > size)
      throw trouble("device.failed",
                    cat("bytes ", at.offset + low, " to ", at.offset + high, " of memory region ",
                        static_cast<int>(at.region), " were asked for, which has ", size, " bytes"));
    return machine_->memory(at.region) + at.offset;
  }
  uint8_t* place(At at, std::span<const CopyLoop> loops, int64_t CopyLoop::*stride, int64_t item) {
    int64_t low = 0, high = item;
    for (const CopyLoop& l : loops) (l.*stride < 0 ? low : high) += (l.count - 1) * (l.*stride);
    return place(at, low, high);
  }

  // Before any other work: what has been gathered comes first.
  void begin() {
    flush();
    begin_round();
  }
  void begin_round() {
    if (std::exchange(waited_, false)) machine_->begin();
  }
  // Boxes of one body are gathered until there is other work.
  void add_box(const Box& box) {
    const uint32_t units = units_of(box);
    if (boxes_.count == kMostBoxes || units > ~uint32_t{0} - units_ || body_of(box) != body_) flush();
    body_ = body_of(box);
    boxes_.first_unit[boxes_.count] = units_;
    boxes_.box[boxes_.count++] = box;
    units_ += units;
  }
  void flush() {
    if (boxes_.count == 0) return;
    switch (body_) {
      case BodyOf::kRuns:
        machine_->template launch<RunBody>(boxes_, units_);
        break;
      case BodyOf::kItems:
        machine_->template launch<ItemBody>(boxes_, units_);
        break;
      case BodyOf::kNarrowTiles:
        machine_->template launch<TileBody<true>>(boxes_, units_);
        break;
      case BodyOf::kTiles:
        machine_->template launch<TileBody<false>>(boxes_, units_);
        break;
      case BodyOf::kCasts:
        machine_->template launch<CastBody>(boxes_, units_);
        break;
    }
    boxes_.count = 0;
    units_ = 0;
  }
  void arithmetic(ArithmeticArgs& args, At into, DType dtype, int64_t count) {
    if (count <= 0) return;
    const int item = item_size(dtype);
    args.dtype = dtype;
    args.into = Groups::of(place(into, 0, count * item), count, item);
    begin();
    machine_->template launch<ArithmeticBody>(args, units_of_groups(args.into.groups(item)));
  }

  template <class Field, class W>
  int crc(At data, int64_t bytes, const CrcTables<Field, W>* tables, int64_t blocks) {
    const int result = next_result();
    if (bytes <= 0) return result;
    const uint8_t* from = place(data, 0, bytes);
    CrcArgs<Field, W> args = crc_args<Field, W>(from, bytes, blocks);
    args.tables = tables;
    args.result = machine_->results() + result;
    begin();
    machine_->template launch<CrcBody<Field, W>>(args, crc_units(args));
    return result;
  }
  int next_result() {
    if (results_ == kMostResults)
      throw trouble("device.failed",
                    cat("more than ", kMostResults, " results were asked for before a wait"));
    return results_++;
  }

  static uint64_t infinity_of(DType dtype) {
    switch (dtype) {
      case DType::kF16:
        return 0x7c00;
      case DType::kBF16:
        return 0x7f80;
      case DType::kF32:
        return 0x7f800000;
      case DType::kF64:
        return 0x7ff0000000000000;
      default:
        return ~uint64_t{0};
    }
  }

  std::unique_ptr<Machine> machine_;
  Boxes boxes_;
  uint32_t units_ = 0;
  BodyOf body_ = BodyOf::kRuns;
  int results_ = 0;
  bool waited_ = true;
};

}  // namespace uckpt::kernels::cuda
