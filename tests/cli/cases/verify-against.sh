# What is compared with is opened first, and an answer in JSON is no manifest.
in="$DATA/torch/pt_shapes/zip.pt"
uckpt sum -q --json "$in" -o sums.json
uckpt verify "$in" --against sums.json
echo "exit $?"
# A mistyped path is told before anything is read.
uckpt verify "$in" --against no-such-file
echo "exit $?"
uckpt sum -q --sha256 "$in" -o sums.txt
uckpt verify "$in" --against sums.txt
