# Everything comes from the system's packages; scripts/install-deps knows their names.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(TBB REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(hwy REQUIRED)

# HDF5: the serial C library, by its own pkg-config file.
pkg_check_modules(HDF5 REQUIRED IMPORTED_TARGET hdf5-serial)
add_library(uckpt_hdf5 INTERFACE)
target_link_libraries(uckpt_hdf5 INTERFACE PkgConfig::HDF5)

pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
add_library(uckpt_re2 INTERFACE)
target_link_libraries(uckpt_re2 INTERFACE PkgConfig::RE2)

# OpenSSL's libcrypto: SHA-256.
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto)

# CUDA is optional at build time and at run time.
if(NOT UCKPT_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(UCKPT_HAS_CUDA ON)
  elseif(UCKPT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "UCKPT_CUDA=ON, but no CUDA compiler was found")
  endif()
endif()
message(STATUS "CUDA compiler: ${CMAKE_CUDA_COMPILER}")
