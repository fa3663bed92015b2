# Everything comes from the system's packages; scripts/install-deps knows their names.
include(CheckCXXSourceCompiles)
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(TBB REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(hwy REQUIRED)

# HDF5: the serial C library, by its own pkg-config file. Its archive, where there is one that links: the shared library
# brings some thirty more along (curl, Kerberos, LDAP) for drivers that are of no use here, and loading them takes longer
# than all else that the program does before its first read.
pkg_check_modules(HDF5 REQUIRED IMPORTED_TARGET hdf5-serial)
add_library(uckpt_hdf5 INTERFACE)
find_library(UCKPT_HDF5_ARCHIVE NAMES libhdf5.a HINTS ${HDF5_LIBRARY_DIRS} NO_DEFAULT_PATH)
find_file(UCKPT_HDF5_LICENSE NAMES copyright PATHS /usr/share/doc/libhdf5-dev NO_DEFAULT_PATH)  # goes with the program then
if(UCKPT_HDF5_ARCHIVE)
  set(archive_libraries ${UCKPT_HDF5_ARCHIVE} sz ZLIB::ZLIB m ${CMAKE_DL_LIBS} Threads::Threads)
  set(CMAKE_REQUIRED_INCLUDES ${HDF5_INCLUDE_DIRS})
  set(CMAKE_REQUIRED_LIBRARIES ${archive_libraries})
  check_cxx_source_compiles("#include <hdf5.h>\nint main() { return H5open() + H5Z_FILTER_SZIP; }" UCKPT_HDF5_ARCHIVE_LINKS)
  unset(CMAKE_REQUIRED_INCLUDES)
  unset(CMAKE_REQUIRED_LIBRARIES)
endif()
if(UCKPT_HDF5_ARCHIVE_LINKS)
  target_include_directories(uckpt_hdf5 SYSTEM INTERFACE ${HDF5_INCLUDE_DIRS})
  target_link_libraries(uckpt_hdf5 INTERFACE ${archive_libraries})
else()
  target_link_libraries(uckpt_hdf5 INTERFACE PkgConfig::HDF5)
endif()

pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
add_library(uckpt_re2 INTERFACE)
target_link_libraries(uckpt_re2 INTERFACE PkgConfig::RE2)

# OpenSSL's libcrypto: SHA-256.
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)
