// The files of a run that its device reads and writes itself, past the host's memory.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "lib/io/output.h"
#include "lib/kernels/device.h"
#include "lib/tensor/catalog.h"

namespace uckpt::exec {

// Made before there are threads, then thread-safe. Files are opened when they are first asked for.
class DirectFiles {
 public:
  // All of the output's files are added.
  DirectFiles(kernels::Device& device, const Catalog& catalog, const Output& output, size_t output_files);

  // Null: it goes through the host's memory.
  const kernels::DirectFile* input(FileId file);
  const kernels::DirectFile* output(uint32_t file);
  void add(int64_t bytes) { bytes_ += bytes; }
  int64_t bytes() const { return bytes_; }  // read and written
  // Why it was given up on the way, as a clause; empty: it was not.
  std::string failure() const { return inputs_ ? device_.why_not_direct() : std::string(); }

 private:
  struct File {
    ~File();
    std::once_flag asked;
    int fd = -1;
    std::unique_ptr<kernels::DirectFile> direct;
  };
  template <class Open>
  const kernels::DirectFile* get(File& file, const Open& open);

  kernels::Device& device_;
  const Catalog& catalog_;
  const Output& output_;
  std::unique_ptr<File[]> inputs_, outputs_;
  std::atomic<int64_t> bytes_{0};
};

// Why a device cannot read and write files in this folder itself, as a clause; empty: it can.
std::string why_not_direct(kernels::Device& device, const std::string& folder);

}  // namespace uckpt::exec
