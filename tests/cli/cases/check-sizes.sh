# Sizes that no input can make right are told without one, as far as the text and --set tell them.
printf 'ucl 1\ngiven n = 0\nwhere z = 0, y = 1/z, w = 3/2, v = 3 - 5, u = 6/n\nlayout hf {\n    "a"  [y, w, v, u]\n}\n' > sizes.ucl
uckpt check sizes.ucl
echo "exit $?"
uckpt check --json sizes.ucl --set n=0 | grep -o "cannot be this" | wc -l
uckpt check sizes.ucl --set m=0
echo "exit $?"
# What an editor puts before the text.
printf '\357\273\277ucl 1\n' > mark.ucl
uckpt check mark.ucl
