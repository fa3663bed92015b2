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
