# Every name of the list can be checked.
set -e
uckpt check --list
for name in $(uckpt check --list); do
  uckpt check "$name" | grep -q "$name is valid"
done
uckpt check --list --json
