// An output of many files: a hidden folder that is filled and takes its name whole.
#pragma once

#include <set>
#include <vector>

#include "lib/io/output.h"
#include "lib/io/staging.h"

namespace uckpt {

class OutputFolder final : public Output {
 public:
  OutputFolder(const Claim& claim, bool replace, LeftOver left, bool direct = false);
  ~OutputFolder() override;  // removes what is neither committed nor kept
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  const std::string& path() const override { return staged_.path; }
  std::string add(std::string_view name) override;
  void preallocate(uint32_t file, int64_t size) override;
  void write_at(uint32_t file, int64_t offset, std::span<const uint8_t> bytes) override;
  void read_at(uint32_t file, int64_t offset, std::span<uint8_t> out) const override;
  void start_writeback(uint32_t file, int64_t offset, int64_t size) override;
  bool is_direct() const override;
  int open_direct(uint32_t file) const override;
  void sync() const override;
  void commit(bool sync) override;
  void keep(bool kept) override { kept_ = kept; }

 private:
  struct File {
    std::string path;
    int fd = -1;         // -1: opened for each access
    int direct_fd = -1;  // the same, where writing is direct
  };
  class Access;
  void make_folders(std::string_view name);
  void close_files();
  void remove_made();
  void take_name();

  StagedPath staged_;
  bool replace_;
  LeftOver left_;
  bool direct_;
  bool committed_ = false, kept_ = false;
  std::vector<File> files_;
  std::set<std::string, std::less<>> folders_;  // below the temporary
};

}  // namespace uckpt
