#include "lib/exec/direct_files.h"

#include <fcntl.h>
#include <unistd.h>

#include "lib/io/descriptors.h"
#include "lib/io/input.h"

namespace uckpt::exec {

using kernels::DirectFile;

DirectFiles::File::~File() {
  direct.reset();
  if (fd < 0) return;
  ::close(fd);
  release_descriptor();
}

DirectFiles::DirectFiles(kernels::Device& device, const Catalog& catalog, const Output& output,
                         size_t output_files)
    : device_(device), catalog_(catalog), output_(output) {
  if (!device.why_not_direct().empty()) return;
  inputs_ = std::make_unique<File[]>(catalog.files.size());
  outputs_ = std::make_unique<File[]>(output_files);
}

template <class Open>
const DirectFile* DirectFiles::get(File& file, const Open& open) {
  std::call_once(file.asked, [&] {
    if (!reserve_descriptor()) return;
    file.fd = open();
    if (file.fd < 0) return release_descriptor();
    std::string why_not;
    file.direct = device_.open_direct(file.fd, why_not);
  });
  return file.direct.get();
}

const DirectFile* DirectFiles::input(FileId file) {
  if (!inputs_ || file >= catalog_.files.size()) return nullptr;
  return get(inputs_[file], [&] { return catalog_.files[file]->open_direct(); });
}

const DirectFile* DirectFiles::output(uint32_t file) {
  if (!outputs_) return nullptr;
  return get(outputs_[file], [&] { return output_.open_direct(file); });
}

std::string why_not_direct(kernels::Device& device, const std::string& folder) {
  std::string why_not = device.why_not_direct();
  if (!why_not.empty()) return why_not;
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) return "the file system here has no way past the page cache";
  device.open_direct(fd, why_not);
  ::close(fd);
  return why_not;
}

}  // namespace uckpt::exec
