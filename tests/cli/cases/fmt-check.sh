# --check writes nothing, and names what would change.
printf 'ucl 1\n' > good.ucl
printf 'ucl   1\n' > bad.ucl
uckpt fmt --check good.ucl
echo "exit $?"
uckpt fmt --check good.ucl bad.ucl
echo "exit $?"
cat bad.ucl
uckpt fmt --check - < bad.ucl
echo "exit $?"
uckpt fmt --check - < good.ucl
echo "exit $?"
