# A file that is no checkpoint at all.
echo "just text" > notes.txt
uckpt inspect notes.txt
