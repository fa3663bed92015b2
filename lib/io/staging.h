// A hidden temporary beside a path, which takes the path's name when it is finished: what output files and
// output folders have in common.
#pragma once

#include <cerrno>
#include <cstdint>
#include <span>
#include <string>

#include "lib/base/error.h"

namespace uckpt {

struct StagedPath {
  std::string path, folder, temporary, journal;
};
// Throws trouble (`output.name`) for a path that ends in no name.
StagedPath stage(std::string path, std::string_view what);  // what: "file", "folder"

// A system call, made again where a signal interrupts it.
template <class Call>
auto uninterrupted(const Call& call) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

bool path_exists(const std::string& path);
// Throws trouble where the path holds something that is not to be replaced: anything at all unless `replace`,
// and what is neither a file nor a folder always.
void check_free_or_replaceable(const std::string& path, bool replace);
bool same_file(int fd, const std::string& path);
Error exists_error(const std::string& path);
Error write_error(const std::string& path);  // from errno

void reserve_blocks(int fd, int64_t size, const std::string& path);
void write_all(int fd, int64_t offset, std::span<const uint8_t> bytes, const std::string& path);
void read_all(int fd, int64_t offset, std::span<uint8_t> out, const std::string& path);
void sync_data(int fd, const std::string& path);
void sync_folder(const std::string& folder);   // throws where that fails; some file systems cannot
void sync_new_name(const StagedPath& staged);  // the same, once the output has it
void remove_tree(const std::string& path);     // whatever lies there; failures are ignored
// Throws trouble (`io.no_space`) where the disk has no room for that many bytes more in the folder.
void check_free_space(const StagedPath& staged, int64_t bytes);

// Renames without replacing; false where the file system cannot do that. Throws if the name is taken.
bool rename_to_free_name(const StagedPath& staged);

}  // namespace uckpt
