# The specs that ship with the tool, as a source file: UCKPT_SPEC_SOURCES. So the program needs no files of its own.
set(specs_folder ${PROJECT_SOURCE_DIR}/samples/specs)
set(generated_specs ${PROJECT_BINARY_DIR}/shipped_specs.cc)
file(GLOB_RECURSE specs CONFIGURE_DEPENDS RELATIVE ${specs_folder} ${specs_folder}/*.ucl)
list(SORT specs)

set(table "")
foreach(spec IN LISTS specs)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${specs_folder}/${spec})
  string(REGEX REPLACE "[.]ucl$" "" name "${spec}")
  file(READ ${specs_folder}/${spec} text)
  string(FIND "${text}" ")ucl\"" delimiter)
  if(NOT delimiter EQUAL -1)
    message(FATAL_ERROR "${spec}: `)ucl\"` would end the literal that holds the text")
  endif()
  string(APPEND table "    {\"${name}\", R\"ucl(${text})ucl\"},\n")
endforeach()
set(source "// Made by CMake from samples/specs.
#include \"lib/ucl/importer.h\"

namespace uckpt::ucl {
std::span<const Shipped> shipped_specs() {
  static constexpr Shipped kSpecs[] = {
${table}  };
  return kSpecs;
}
}  // namespace uckpt::ucl
")

# Only where it differs, so that nothing is compiled anew without need.
set(before "")
if(EXISTS ${generated_specs})
  file(READ ${generated_specs} before)
endif()
if(NOT before STREQUAL source)
  file(WRITE ${generated_specs} "${source}")
endif()
set(UCKPT_SPEC_SOURCES ${generated_specs})
