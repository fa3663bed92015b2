// Checkpoints of random tensors, cut in random ways, for tests of the executor.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lib/io/input.h"
#include "lib/kernels/crc.h"
#include "lib/tensor/catalog.h"
#include "lib/tensor/target.h"

namespace uckpt::test {

namespace fs = std::filesystem;

struct Scratch {
  fs::path path = fs::temp_directory_path() / ("uckpt_exec_" + std::to_string(::getpid()));
  Scratch() { fs::create_directories(path); }
  ~Scratch() { fs::remove_all(path); }
  std::string at(std::string_view name) const { return (path / name).string(); }
};

inline const std::vector<DType> kTypes = {DType::kU8, DType::kBF16, DType::kF32, DType::kF64, DType::kC128};

// A random checkpoint: tensors cut into flat ranges, into row or column shards, or strided views.
class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(uint32_t seed, int64_t scale) : rng_(seed), scale_(scale) {}

  Catalog make(int tensors) {
    c_.path = "random";
    for (int i = 0; i < tensors; ++i) add_tensor(i);
    return std::move(c_);
  }

 private:
  int64_t below(int64_t n) { return static_cast<int64_t>(rng_() % static_cast<uint64_t>(n)); }

  // A file with one checksummed record of random bytes, with some bytes around it.
  std::pair<FileId, uint32_t> file_of(int64_t bytes, int64_t* payload) {
    *payload = below(70);
    Bytes content(static_cast<size_t>(*payload + bytes + below(70)));
    for (auto& b : content) b = static_cast<uint8_t>(rng_());
    const ByteSpan record(content.data() + *payload, static_cast<size_t>(bytes));
    const uint32_t crc = kernels::Crc32::finish(kernels::crc32_raw(record), record.size());
    const FileId file =
        c_.add_file(std::make_shared<MemorySource>("f" + std::to_string(c_.files.size()), content));
    return {file, c_.add_record(file, *payload, bytes, crc, "data")};
  }

  void add_tensor(int i) {
    Tensor t{};
    t.name = "t" + std::to_string(i);
    t.state = "param";
    t.dtype = kTypes[rng_() % kTypes.size()];
    for (int64_t d = below(4); d > 0; --d) t.shape.push_back(below(10) == 0 ? below(2) : 1 + below(scale_));
    const int64_t item = item_size(t.dtype), numel = numel_of(t.shape);
    const uint32_t mark = c_.piece_mark();
    int64_t at = 0;
    switch (t.shape.size() == 2 && numel > 0 ? below(4) : below(2)) {
      case 0: {  // flat ranges over several files, with filler behind some
        int64_t start = 0;
        while (start < numel || mark == c_.piece_mark()) {
          const int64_t n = std::min(numel - start, 1 + below(numel + 1));
          const auto [file, record] = file_of((n + below(3)) * item, &at);
          c_.add_flat(file, record, at, numel, start, n, below(4) == 0 ? kByteSwapped : kPlain);
          start += n;
        }
        break;
      }
      case 1: {  // one view with strides of a permuted, padded storage
        std::vector<size_t> order(t.shape.size());
        std::iota(order.begin(), order.end(), 0u);
        std::shuffle(order.begin(), order.end(), rng_);
        std::vector<int64_t> strides(order.size());
        int64_t span = 1;
        for (size_t d : order) {
          strides[d] = span;
          span *= t.shape[d] + below(2);
        }
        const auto [file, record] = file_of(std::max<int64_t>(1, span) * item, &at);
        c_.add_whole(file, record, at, t.shape, strides);
        break;
      }
      default:
        shards(t, static_cast<size_t>(below(2)));
    }
    t.pieces = c_.pieces_since(mark);
    c_.tensors.push_back(t);
  }

  void shards(const Tensor& t, size_t dim) {
    for (int64_t start = 0; start < t.shape[dim];) {
      const int64_t n = std::min(t.shape[dim] - start, 1 + below(t.shape[dim]));
      std::vector<int64_t> local = t.shape;
      local[dim] = n;
      int64_t at = 0;
      const auto [file, record] = file_of(numel_of(local) * item_size(t.dtype), &at);
      const Axis box[] = {{t.shape[0], dim == 0 ? start : 0, local[0], local[1]},
                          {t.shape[1], dim == 1 ? start : 0, local[1], 1}};
      c_.add_piece(file, record, at, box);
      start += n;
    }
  }

  std::mt19937 rng_;
  int64_t scale_;
  Catalog c_;
};

// A flat output: the tensors back to back, some with a gap before them.
inline TargetLayout flat_layout(const Catalog& c, int64_t gap = 16) {
  TargetLayout layout;
  layout.files.push_back({"", 0, {}, {}});
  int64_t& size = layout.files[0].size;
  for (uint32_t i = 0; i < c.tensors.size(); ++i) {
    const uint32_t shard = layout.add_whole_shard(c, i);
    size += i % 3 == 0 ? gap : 0;
    layout.holes.push_back({shard, 0, size, 0, layout.shards[shard].numel, c.tensors[i].dtype});
    size += layout.holes.back().bytes();
  }
  return layout;
}

inline Bytes read_file(const fs::path& path) {
  Bytes bytes(fs::file_size(path));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

}  // namespace uckpt::test
