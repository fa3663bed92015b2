# A folder, a file of no permission or size, binary data: said, never waited for.
mkdir folder.ucl
mkfifo pipe.ucl
head -c 1048577 /dev/zero | tr '\0' ' ' > long.ucl
printf 'ucl 1\n\xff\xfe\x00garbage' > binary.ucl
printf 'ucl 1\n\033[31m\007 layout' > escapes.ucl
: > empty.ucl
for file in folder.ucl pipe.ucl long.ucl binary.ucl escapes.ucl empty.ucl; do
  uckpt check $file
  echo "$file: exit $?"
done
