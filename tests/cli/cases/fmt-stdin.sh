# `-` goes from stdin to stdout; what cannot be read as a program is not printed.
printf 'ucl   1 layout l{"a" replicate}' | uckpt fmt -
echo "exit $?"
printf 'ucl 1 layout l {' | uckpt fmt -
echo "exit $?"
uckpt fmt - < /dev/null
echo "exit $?"
