" Syntax highlighting for UCL, the checkpoint-conversion language of uckpt.
if exists("b:current_syntax")
  finish
endif

syntax match uclComment "#.*$" contains=@Spell
syntax region uclString start=+"+ skip=+\\.+ end=+"+ oneline contains=uclEscape,uclCapture,uclWildcard
syntax match uclEscape "\\[*{}\"\\]" contained
syntax match uclWildcard "\*\*\=" contained
syntax match uclCapture "{\h\w*\%(+\d\+\|:[^{}\"]\+\)\=}" contained

syntax keyword uclStatement ucl import given where layout map config convert index use
syntax keyword uclModifier optional local on first last dtype states when over from to as with for keep not
syntax keyword uclBody replicate partial mean unique opaque drop tied pad even chunk min
syntax keyword uclBoolean true false
syntax match uclNumber "\<\d\+\%(\.\d\+\)\=\%([eE][-+]\=\d\+\)\=\>"
syntax match uclLabel "\<\h\w*\ze\s*:"
syntax match uclMesh "@\s*\h\w*"
syntax match uclOperator "<->\|\.\.\.\|[<>=!]=\|[-+*/=<>|?]"

highlight default link uclComment Comment
highlight default link uclString String
highlight default link uclEscape SpecialChar
highlight default link uclWildcard Special
highlight default link uclCapture Identifier
highlight default link uclStatement Statement
highlight default link uclModifier Keyword
highlight default link uclBody Function
highlight default link uclBoolean Boolean
highlight default link uclNumber Number
highlight default link uclLabel Label
highlight default link uclMesh Type
highlight default link uclOperator Operator

setlocal commentstring=#\ %s
let b:current_syntax = "ucl"
