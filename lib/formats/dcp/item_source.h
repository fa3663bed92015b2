// A range of a file that is read as a file of its own.
#pragma once

#include "lib/base/bytes.h"
#include "lib/io/input.h"

namespace uckpt::dcp {

// The directory of a torch.save archive lies at both ends of it, so these are fetched once; everything else
// is read when asked for. The file must outlive the source and have the range.
class ItemSource final : public ByteSource {
 public:
  ItemSource(const ByteSource& file, int64_t offset, int64_t length);
  int64_t size() const override { return length_; }
  void read_at(int64_t offset, std::span<uint8_t> out) const override;
  const std::string& name() const override { return file_.name(); }

 private:
  const ByteSource& file_;
  const int64_t offset_, length_;
  Bytes head_, tail_;
};

}  // namespace uckpt::dcp
