#include "lib/ucl/parse.h"

#include "lib/ucl/captures.h"
#include "lib/ucl/comments.h"
#include "lib/ucl/parser_state.h"
#include "lib/ucl/tokens.h"
#include "ucl_parser.hh"

namespace uckpt::ucl {

Program parse(const Source& source, Diagnostics& diagnostics) {
  const Tokens tokens(source, diagnostics);
  if (tokens.cut_short()) {
    Program nothing;
    nothing.complete = false;
    return nothing;
  }
  ParserState state(source, tokens, diagnostics);
  Grammar(state).parse();
  Program program = state.take();
  attach_comments(source, tokens, program);
  resolve_captures(source, program, diagnostics);
  return program;
}

}  // namespace uckpt::ucl
