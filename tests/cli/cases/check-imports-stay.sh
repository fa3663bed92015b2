# An import cannot leave the folder of the program, not even by a link.
mkdir sub
echo secret > secret.ucl
ln -s ../secret.ucl sub/link.ucl
printf 'ucl 1\nimport "../secret.ucl"\nimport "/etc/passwd"\n' > sub/climbs.ucl
printf 'ucl 1\nimport "./link.ucl"\n' > sub/follows.ucl
uckpt check sub/climbs.ucl
echo "exit $?"
uckpt check sub/follows.ucl
echo "exit $?"
