// Reads pickles, writes them back through the pickler: `repickle` takes paths from its input, one a line,
// each a file that holds one pickle, and puts the result beside it, at PATH.again. test_pickler.py has Python
// read both.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "lib/base/error.h"
#include "lib/pickle/document.h"
#include "lib/pickle/machine.h"
#include "lib/pickle/pickler.h"

int main() {
  using namespace uckpt;
  int failed = 0;
  for (std::string path; std::getline(std::cin, path);) {
    try {
      std::ifstream in(path, std::ios::binary);
      const auto document = pickle::parse_whole(
          Bytes(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()), {});
      pickle::Pickler pickler;
      pickler.copy(document->root());
      const Bytes bytes = pickler.finish();
      std::ofstream out(path + ".again", std::ios::binary);
      out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      if (!out.flush()) throw std::runtime_error("cannot write");
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s: %s\n", path.c_str(), e.what());
      failed = 1;
    }
  }
  return failed;
}
