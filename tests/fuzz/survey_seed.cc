// survey_seed FILE.h5 ANSWER: writes what a sandbox's child says of the file, as a seed for fuzz_survey. It
// says so in this process, which the library may end.
#include <fcntl.h>

#include "lib/base/error.h"
#include "lib/formats/hdf5/sandbox.h"
#include "lib/formats/hdf5/survey.h"

int main(int argc, char** argv) {
  using namespace uckpt::hdf5;
  if (argc != 3) return 2;
  const int fd = ::open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return 2;
  Outbox out(fd);
  try {
    tell_survey(out, argv[1]);
    out.end("");
  } catch (const uckpt::Error& error) {
    out.end(error.message());
  }
  return 0;
}
