# The parser and scanner of UCL, generated from ucl-grammar: UCKPT_GRAMMAR_SOURCES, UCKPT_GRAMMAR_INCLUDES.
find_package(BISON 3.8 REQUIRED)
find_package(FLEX 2.6 REQUIRED)

set(grammar_folder ${PROJECT_SOURCE_DIR}/ucl-grammar)
set(generated_folder ${PROJECT_BINARY_DIR}/ucl-grammar)
file(MAKE_DIRECTORY ${generated_folder})

bison_target(ucl_parser ${grammar_folder}/ucl.yy ${generated_folder}/ucl_parser.cc
             DEFINES_FILE ${generated_folder}/ucl_parser.hh
             COMPILE_FLAGS "-Wall -Wcounterexamples -Werror")
flex_target(ucl_scanner ${grammar_folder}/ucl.ll ${generated_folder}/ucl_scanner.cc)
add_flex_bison_dependency(ucl_scanner ucl_parser)

# Generated code does not keep our warnings.
set_source_files_properties(${BISON_ucl_parser_OUTPUTS} ${FLEX_ucl_scanner_OUTPUTS} PROPERTIES COMPILE_OPTIONS -w)
set(UCKPT_GRAMMAR_SOURCES ${BISON_ucl_parser_OUTPUTS} ${FLEX_ucl_scanner_OUTPUTS})
set(UCKPT_GRAMMAR_INCLUDES ${generated_folder})
