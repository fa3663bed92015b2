#include "lib/io/direct.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

using namespace uckpt;
namespace fs = std::filesystem;

TEST_CASE("a page buffer keeps what is in it and where pages begin") {
  PageBuffer buffer;
  for (const int64_t offset : {0, 1, 4095, 4096, 10000}) {
    buffer.begin(offset);
    CHECK(buffer.empty());
    for (const size_t size : {size_t{1}, size_t{5000}, size_t{100000}})
      std::ranges::fill(buffer.append(size), static_cast<uint8_t>(size));
    CHECK(buffer.bytes().size() == 105001);
    CHECK(reinterpret_cast<uintptr_t>(buffer.bytes().data()) % kPageBytes == offset % kPageBytes);
    CHECK(buffer.bytes()[0] == 1);
    CHECK(buffer.bytes()[5000] == static_cast<uint8_t>(5000));
    CHECK(buffer.bytes()[105000] == static_cast<uint8_t>(100000));
  }
}

TEST_CASE("ranges written past the cache, and their edges through it, make the file") {
  const fs::path path = fs::temp_directory_path() / ("uckpt_direct_" + std::to_string(::getpid()));
  const int buffered = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(buffered >= 0);
  const int direct = open_direct(path);  // -1 on some file systems: then all of it is buffered
  std::mt19937 random(1);
  std::vector<uint8_t> expected(60000);
  std::ranges::generate(expected, [&] { return static_cast<uint8_t>(random()); });
  PageBuffer buffer;
  for (size_t at = 0; at < expected.size();) {
    const size_t size = std::min<size_t>(expected.size() - at, 1 + random() % 13000);
    buffer.begin(static_cast<int64_t>(at));
    std::copy_n(expected.begin() + static_cast<std::ptrdiff_t>(at), size, buffer.append(size).begin());
    write_direct(direct, buffered, static_cast<int64_t>(at), buffer.bytes(), path);
    at += size;
  }
  if (direct >= 0) ::close(direct);
  ::close(buffered);
  std::ifstream in(path, std::ios::binary);
  const std::vector<uint8_t> found((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  CHECK(found == expected);
  fs::remove(path);
}
