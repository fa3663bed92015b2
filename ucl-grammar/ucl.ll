/* The tokens of UCL. Words, numbers and strings carry only their place; the parser reads their text from
   the source. Comments go to a list of their own. What is no token is reported here, and becomes BAD. */

%option reentrant noyywrap nodefault noinput nounput never-interactive nounistd 8bit
%option prefix="ucl_scan_"
%option extra-type="uckpt::ucl::Tokens*"

%top{
#include "lib/ucl/tokens.h"
#include "ucl_parser.hh"
}

%{
#include <stdexcept>

#define YY_DECL int ucl_scan_lex(yyscan_t yyscanner)
/* Flex would end the program; nothing here can fail but memory. */
#define YY_FATAL_ERROR(message) throw std::runtime_error(message)
#define YY_USER_ACTION yyextra->advance(static_cast<uint32_t>(yyleng));

using T = uckpt::ucl::Grammar::token;
%}

WORD    [A-Za-z_][A-Za-z0-9_]*
DIGITS  [0-9]+
POWER   [eE][-+]?[0-9]+
PRINT   [^\x00-\x1f\x7f"\\]
UTF8    [\xc2-\xf4][\x80-\xbf]+

%%

[ \t\r]+            ;
\n                  yyextra->newline();
"#"[^\n]*           yyextra->comment();

"ucl"               return T::UCL;
"import"            return T::IMPORT;
"given"             return T::GIVEN;
"from"              return T::FROM;
"not"               return T::NOT;
"where"             return T::WHERE;
"layout"            return T::LAYOUT;
"over"              return T::OVER;
"index"             return T::INDEX;
"local"             return T::LOCAL;
"use"               return T::USE;
"optional"          return T::OPTIONAL;
"replicate"         return T::REPLICATE;
"unique"            return T::UNIQUE;
"opaque"            return T::OPAQUE;
"drop"              return T::DROP;
"tied"              return T::TIED;
"to"                return T::TO;
"partial"           return T::PARTIAL;
"mean"              return T::MEAN;
"on"                return T::ON;
"first"             return T::FIRST;
"last"              return T::LAST;
"dtype"             return T::DTYPE;
"states"            return T::STATES;
"when"              return T::WHEN;
"map"               return T::MAP;
"pad"               return T::PAD;
"even"              return T::EVEN;
"chunk"             return T::CHUNK;
"min"               return T::MIN;
"convert"           return T::CONVERT;
"as"                return T::AS;
"with"              return T::WITH;
"keep"              return T::KEEP;
"for"               return T::FOR;
"config"            return T::CONFIG;
"true"              return T::TRUE;
"false"             return T::FALSE;
"off"               return T::OFF;

"<->"               return T::ARROW;
"..."               return T::DOTS;
"<="                return T::LESS_EQUAL;
">="                return T::GREATER_EQUAL;
"=="                return T::EQUAL;
"!="                return T::NOT_EQUAL;
"<"                 return T::LESS;
">"                 return T::GREATER;
"="                 return T::ASSIGN;
"+"                 return T::PLUS;
"-"                 return T::MINUS;
"*"                 return T::STAR;
"/"                 return T::SLASH;
","                 return T::COMMA;
":"                 return T::COLON;
"|"                 return T::BAR;
"@"                 return T::AT;
"?"                 return T::QUERY;
"("                 return T::LEFT_PAREN;
")"                 return T::RIGHT_PAREN;
"["                 return T::LEFT_BRACKET;
"]"                 return T::RIGHT_BRACKET;
"{"                 return T::LEFT_BRACE;
"}"                 return T::RIGHT_BRACE;

{DIGITS}            return yyextra->number(T::NUMBER, T::BAD);
{DIGITS}"."{DIGITS}{POWER}?|{DIGITS}{POWER}  return yyextra->decimal(T::DECIMAL, T::BAD);
{WORD}              return T::NAME;
\"({PRINT}|\\[^\x00-\x1f\x7f])*\"      return T::STRING;

 /* From here on: what is no token, each with the message that helps. */
{DIGITS}{WORD}        {
  return yyextra->bad(T::BAD, "ucl.number", "is neither a number nor a name",
                      "factors are parted by a space, as in `4 h`");
}
\"([^"\\\n]|\\[^\n])*\"  { return yyextra->bad_string(T::BAD, false); }
\"([^"\\\n]|\\[^\n])*    { return yyextra->bad_string(T::BAD, true); }
{WORD}("."{WORD})+    {
  return yyextra->bad(T::BAD, "ucl.token", "is no name here", "names of parameters stand in double quotes");
}
"“"|"”"|"‘"|"’"       {
  return yyextra->bad(T::BAD, "ucl.token", "is no character of this language",
                      "names stand in plain double quotes, `\"`");
}
'[^'\n]*'?            {
  return yyextra->bad(T::BAD, "ucl.token", "is no string", "names stand in double quotes");
}
"->"|"<-"|"=>"|"<=>"  {
  return yyextra->bad(T::BAD, "ucl.token", "is no arrow of this language",
                      "a map reads in both directions: write `<->`");
}
"&&"|"||"             {
  return yyextra->bad(T::BAD, "ucl.token", "is no operator of this language",
                      "conditions that must all hold are parted by commas");
}
".."                  {
  return yyextra->bad(T::BAD, "ucl.token", "is no token", "dims that are not written are three dots, `...`");
}
"//"[^\n]*            { return yyextra->bad(T::BAD, "ucl.token", "is no comment", "comments begin with `#`"); }
{UTF8}|.              { return yyextra->bad(T::BAD, "ucl.token", "is no character of this language", ""); }

%%

namespace uckpt::ucl {

void Tokens::scan() {
  yyscan_t scanner;
  if (ucl_scan_lex_init_extra(this, &scanner) != 0) throw std::bad_alloc();
  const std::string_view text = source_.text();
  ucl_scan__scan_bytes(text.data(), static_cast<int>(text.size()), scanner);
  while (const int kind = ucl_scan_lex(scanner))
    if (!push(kind)) break;
  ucl_scan_lex_destroy(scanner);
}

}  // namespace uckpt::ucl
