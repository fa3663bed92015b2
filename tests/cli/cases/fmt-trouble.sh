# Every file gets its turn; one that does not parse stays as it is.
printf 'ucl   1\n' > good.ucl
printf 'ucl   1\nlayout {\n' > broken.ucl
mkdir folder.ucl
head -c 300 /dev/urandom > garbage.ucl
uckpt fmt broken.ucl folder.ucl none.ucl good.ucl
echo "exit $?"
uckpt fmt garbage.ucl 2> /dev/null
echo "exit $?"
uckpt fmt
echo "exit $?"
cat good.ucl broken.ucl
