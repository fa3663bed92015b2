# A clean program: one line, exit 0. Imports are looked for beside the program, wherever that is.
set -e
mkdir sub
printf 'ucl 1\nlayout base over tp { "b" [o@tp, i] }\n' > sub/base.ucl
printf 'ucl 1\nimport "./base.ucl"\nlayout l over tp { use base "a" [o@tp, i] }\nmap l <-> m { "a" <-> "x" "b" <-> "y" }\n' > sub/l.ucl
uckpt check sub/l.ucl
uckpt check megatron/llama_te
