# Every snippet of the grammar and every shipped spec: formatting twice changes nothing more.
set -e
for file in "$DATA"/../../ucl-grammar/valid/*.ucl "$DATA"/../../samples/specs/*/*.ucl; do
  uckpt fmt - < "$file" > once.ucl
  uckpt fmt - < once.ucl > twice.ucl
  cmp once.ucl twice.ucl
done
uckpt fmt --check "$DATA"/../../samples/specs/*/*.ucl
