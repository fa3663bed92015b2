// What a conversion does to the elements of each hole on their way, and so what a device could do for it.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/plan/plan.h"
#include "lib/tensor/target.h"

namespace uckpt::exec {

// Where there is more than one, the last.
enum class Reshaping : uint8_t {
  kCopied,   // runs, and rows that have at least `kLongRun` bytes together on both sides
  kStrided,  // elements or short rows that lie apart on one side: transposed, interleaved
  kCast,     // another type or byte order
  kMean,     // a mean of parts, a factor, a summand
};
inline constexpr int kReshapings = 4;
inline constexpr int64_t kLongRun = 256;

// Bytes read for such holes, comparisons included, and written to them.
struct Flow {
  int64_t in = 0, out = 0;
  int64_t wider() const { return in > out ? in : out; }
  bool operator==(const Flow&) const = default;
};

struct Work {
  Flow of[kReshapings];
  const Flow& operator[](Reshaping r) const { return of[static_cast<int>(r)]; }
  Flow& operator[](Reshaping r) { return of[static_cast<int>(r)]; }
  Flow all() const;
  Flow for_device() const;  // all but what is only copied
};

class Reshapings {
 public:
  // In time of moves and holes; keeps a byte a hole.
  Reshapings(const Catalog& catalog, const TargetLayout& target, const plan::Plan& plan);

  Reshaping of(uint32_t hole) const { return of_[hole]; }
  // Copying is never worth the way to a device and back.
  bool suits_device(uint32_t hole) const { return of_[hole] != Reshaping::kCopied; }
  const Work& work() const { return work_; }

 private:
  std::vector<Reshaping> of_;
  Work work_;
};

}  // namespace uckpt::exec
